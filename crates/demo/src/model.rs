//! What is known of the demonstration at one moment. Pure: it is told what happened and when, all times being since the
//! beginning, and answers with the news for people.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use taskscaler::InstanceLine;
use taskscaler_core::{Fate, PhaseName};

use crate::settings::CAPACITY;

/// News that the picture may show.
const RECENT: usize = 50;

/// Everything that the picture and the summary are made of.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Jobs that will arrive in all.
    pub(crate) planned: usize,
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// Those that exist, in the order of their first sight.
    pub(crate) instances: Vec<Instance>,
    /// Those that are gone, in the order of their end.
    pub(crate) gone: Vec<Life>,
    /// Why the last decision was taken, most important first.
    pub(crate) why: Vec<String>,
    /// A look at the numbers, at regular intervals.
    pub(crate) samples: Vec<Sample>,
    /// The newest news last.
    pub(crate) recent: VecDeque<(Duration, String)>,
    /// The instance that was killed, and when.
    pub(crate) killed: Option<(String, Duration)>,
}

/// One job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) arrived: Duration,
    pub(crate) received: Option<Duration>,
    pub(crate) place: Option<Place>,
    pub(crate) stage: String,
    pub(crate) stage_since: Duration,
    pub(crate) end: Option<End>,
}

/// Where and since when a job runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) since: Duration,
    pub(crate) instance: String,
    /// The box in the picture; none once another job has taken it over.
    pub(crate) slot: Option<u32>,
}

/// How and when a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: Duration,
    /// The runner's word for why it failed; none for success.
    pub(crate) failure: Option<String>,
}

/// One instance that exists.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) phase: PhaseName,
    pub(crate) seen: Duration,
    pub(crate) uses: u32,
    /// Why it goes, once that is so.
    pub(crate) reason: Option<String>,
}

/// One instance that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) id: String,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) uses: u32,
    pub(crate) reason: String,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sample {
    pub(crate) instances: u32,
    pub(crate) waiting: u32,
    pub(crate) running: u32,
}

/// Counts of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) arrived: u32,
    /// Arrived and without a slot.
    pub(crate) waiting: u32,
    /// On a slot.
    pub(crate) running: u32,
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// GitLab has a job.
    Arrived { job: u64, name: String },
    /// The manager has taken it.
    Received { job: u64 },
    /// It has a slot.
    Placed { job: u64, instance: String },
    /// It begins a stage.
    Stage { job: u64, stage: String },
    /// It is over.
    Ended { job: u64, failure: Option<String> },
    /// A look at the instances and at why the last decision was taken.
    Looked { instances: Vec<InstanceLine>, why: Vec<String> },
    /// An instance was killed under its jobs.
    Killed { instance: String },
    /// Time for a sample.
    Sample,
}

/// Something worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Arrived { job: u64, name: String },
    Started { job: u64, name: String, instance: String, waited: Duration },
    Succeeded { job: u64, name: String, after: Duration },
    Failed { job: u64, name: String, reason: String, after: Duration },
    Requested { instance: String },
    Ready { instance: String, after: Duration },
    Leaving { instance: String, reason: String },
    Gone { instance: String, reason: String, uses: u32, after: Duration },
    Killed { instance: String, jobs: Vec<u64> },
    Decided { why: String },
}

// === impl Model ===

impl Model {
    /// Nothing has happened yet.
    pub(crate) fn new(planned: usize) -> Self {
        Self { planned, ..Self::default() }
    }

    /// Takes in what happened.
    pub(crate) fn apply(&mut self, at: Duration, event: Event) -> Vec<News> {
        let news = match event {
            Event::Arrived { job, name } => self.arrived(at, job, name),
            Event::Received { job } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.received = Some(at);
                }
                Vec::new()
            }
            Event::Placed { job, instance } => self.placed(at, job, instance),
            Event::Stage { job, stage } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.stage = stage;
                    job.stage_since = at;
                }
                Vec::new()
            }
            Event::Ended { job, failure } => self.ended(at, job, failure),
            Event::Looked { instances, why } => self.looked(at, &instances, why),
            Event::Killed { instance } => {
                let jobs = self.on(&instance).map(|(id, _)| id).collect();
                self.killed = Some((instance.clone(), at));
                vec![News::Killed { instance, jobs }]
            }
            Event::Sample => {
                let Counts { waiting, running, .. } = self.counts();
                let instances = u32::try_from(self.instances.len()).unwrap_or(u32::MAX);
                self.samples.push(Sample { instances, waiting, running });
                Vec::new()
            }
        };
        // Decisions have a place of their own in the picture.
        for item in news.iter().filter(|item| !matches!(item, News::Decided { .. })) {
            self.recent.push_back((at, item.to_string()));
        }
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        news
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for job in self.jobs.values() {
            counts.arrived += 1;
            match (&job.end, &job.place) {
                (Some(End { failure: None, .. }), _) => counts.succeeded += 1,
                (Some(End { failure: Some(_), .. }), _) => counts.failed += 1,
                (None, Some(_)) => counts.running += 1,
                (None, None) => counts.waiting += 1,
            }
        }
        counts
    }

    /// Every job of the plan has come and gone.
    pub(crate) fn all_ended(&self) -> bool {
        let counts = self.counts();
        self.jobs.len() == self.planned && counts.waiting == 0 && counts.running == 0
    }

    /// Jobs that run on an instance.
    pub(crate) fn on(&self, instance: &str) -> impl Iterator<Item = (u64, &Job)> {
        self.jobs.iter().filter_map(move |(id, job)| {
            let place = job.place.as_ref().filter(|place| place.instance == instance)?;
            (job.end.is_none() && !place.instance.is_empty()).then_some((*id, job))
        })
    }

    /// Whether a job was running on the killed instance when that happened, or came there afterwards.
    pub(crate) fn is_victim(&self, job: u64) -> bool {
        let (Some((killed, when)), Some(job)) = (&self.killed, self.jobs.get(&job)) else { return false };
        let there = job.place.as_ref().is_some_and(|place| place.instance == *killed);
        there && job.end.as_ref().is_none_or(|end| end.at >= *when)
    }

    fn arrived(&mut self, at: Duration, job: u64, name: String) -> Vec<News> {
        let news = News::Arrived { job, name: name.clone() };
        let state = Job {
            name,
            arrived: at,
            received: None,
            place: None,
            stage: String::new(),
            stage_since: at,
            end: None,
        };
        self.jobs.insert(job, state);
        vec![news]
    }

    fn placed(&mut self, at: Duration, id: u64, instance: String) -> Vec<News> {
        let slot = self.free_slot(&instance);
        let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
        job.place = Some(Place { since: at, instance: instance.clone(), slot: Some(slot) });
        let waited = at.saturating_sub(job.arrived);
        vec![News::Started { job: id, name: job.name.clone(), instance, waited }]
    }

    /// The lowest free box. An instance's slot is free before the result of its job has reached GitLab, so that all boxes
    /// may be taken: then that of the job is taken over that has been in its last stage for longest.
    fn free_slot(&mut self, instance: &str) -> u32 {
        let taken: BTreeMap<u32, (Duration, u64)> = self
            .on(instance)
            .filter_map(|(id, job)| Some((job.place.as_ref()?.slot?, (job.stage_since, id))))
            .collect();
        if let Some(free) = (0..CAPACITY).find(|slot| !taken.contains_key(slot)) {
            return free;
        }
        let Some((&slot, &(_, oldest))) = taken.iter().min_by_key(|(_, since)| **since) else { return 0 };
        if let Some(place) = self.jobs.get_mut(&oldest).and_then(|job| job.place.as_mut()) {
            place.slot = None;
        }
        slot
    }

    fn ended(&mut self, at: Duration, id: u64, failure: Option<String>) -> Vec<News> {
        let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
        job.end = Some(End { at, failure: failure.clone() });
        let after = at.saturating_sub(job.place.as_ref().map_or(job.arrived, |place| place.since));
        let name = job.name.clone();
        vec![match failure {
            None => News::Succeeded { job: id, name, after },
            Some(reason) => News::Failed { job: id, name, reason, after },
        }]
    }

    fn looked(&mut self, at: Duration, lines: &[InstanceLine], why: Vec<String>) -> Vec<News> {
        let mut news = Vec::new();
        if !why.is_empty() && why != self.why {
            news.push(News::Decided { why: why.join("; ") });
            self.why = why;
        }
        for line in lines {
            self.see(at, line, &mut news);
        }
        let exists = |instance: &Instance| lines.iter().any(|line| line.id.as_str() == instance.id);
        let (living, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.instances).into_iter().partition(exists);
        self.instances = living;
        for Instance { id, seen, uses, reason, .. } in gone {
            let killed = self.killed.as_ref().is_some_and(|(killed, _)| *killed == id);
            let reason =
                if killed { "killed".to_owned() } else { reason.unwrap_or_else(|| "vanished".to_owned()) };
            let after = at.saturating_sub(seen);
            news.push(News::Gone { instance: id.clone(), reason: reason.clone(), uses, after });
            self.gone.push(Life { id, from: seen, until: at, uses, reason });
        }
        news
    }

    /// Takes in what is known of one instance.
    fn see(&mut self, at: Duration, line: &InstanceLine, news: &mut Vec<News>) {
        let id = line.id.as_str();
        let index = self.instances.iter().position(|instance| instance.id == id).unwrap_or_else(|| {
            news.push(News::Requested { instance: id.to_owned() });
            self.instances.push(Instance {
                id: id.to_owned(),
                phase: PhaseName::Creating,
                seen: at,
                uses: 0,
                reason: None,
            });
            self.instances.len() - 1
        });
        let instance = &mut self.instances[index];
        let before = std::mem::replace(&mut instance.phase, line.phase);
        instance.uses = line.use_count;
        if line.phase == PhaseName::Ready && matches!(before, PhaseName::Creating | PhaseName::Booting) {
            let after = at.saturating_sub(instance.seen);
            news.push(News::Ready { instance: id.to_owned(), after });
        }
        let reason = why_it_goes(&line.fate);
        if reason.is_some() && instance.reason.is_none() {
            news.push(News::Leaving { instance: id.to_owned(), reason: reason.clone().unwrap_or_default() });
        }
        instance.reason = reason.or(instance.reason.take());
    }
}

// === impl News ===

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrived { job, name } => write!(f, "job {job} arrived: {name}"),
            Self::Started { job, name, instance, waited } => {
                write!(f, "job {job} started on {instance}: {name}, after waiting {}", seconds(*waited))
            }
            Self::Succeeded { job, name, after } => {
                write!(f, "job {job} succeeded: {name}, after {}", seconds(*after))
            }
            Self::Failed { job, name, reason, after } => {
                write!(f, "job {job} failed: {name}, {reason} after {}", seconds(*after))
            }
            Self::Requested { instance } => write!(f, "instance {instance} requested"),
            Self::Ready { instance, after } => {
                write!(f, "instance {instance} ready after {}", seconds(*after))
            }
            Self::Leaving { instance, reason } => write!(f, "instance {instance} to be removed: {reason}"),
            Self::Gone { instance, reason, uses, after } => {
                let lived = seconds(*after);
                write!(f, "instance {instance} removed: {reason} (ran {uses} jobs in {lived})")
            }
            Self::Killed { instance, jobs } => {
                let jobs: Vec<String> = jobs.iter().map(|job| format!("job {job}")).collect();
                write!(f, "instance {instance} killed under {}", jobs.join(" and "))
            }
            Self::Decided { why } => write!(f, "decision: {why}"),
        }
    }
}

/// Seconds with one decimal.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn why_it_goes(fate: &Fate) -> Option<String> {
    match fate {
        Fate::LastJobs => Some("instance reached max use count".to_owned()),
        Fate::Draining { reason } | Fate::Deleting { reason } => Some(reason.to_string()),
        Fate::AwaitingListing
        | Fate::Creating { .. }
        | Fate::ReadyingUp
        | Fate::Busy
        | Fate::Kept { .. }
        | Fate::RemovableAt { .. }
        | Fate::Suspect { .. } => None,
    }
}
