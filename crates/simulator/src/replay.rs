//! One setup and one trace: what would have happened.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use taskscaler_core::{Acquire, ClaimKey, Config, Event, Report};

use crate::cloud::{Billed, Cloud, CloudModel};
use crate::series::Series;
use crate::trace::Trace;
use crate::world::{Intervals, Millis, World, millis};

/// A scaler and how its manager takes jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Its name in the report.
    pub name: String,
    /// The settings of the scaler.
    pub scaler: Config,
    /// Most jobs at the same time: the smaller of `concurrent` and `limit`.
    pub most_jobs: u32,
    /// Requests for jobs at the same time.
    pub request_concurrency: u32,
    /// Wait after GitLab had no job.
    pub check_interval: Duration,
    /// How often the group is listed when nothing is expected.
    pub update_interval: Duration,
    /// How often while a change is expected.
    pub update_interval_when_expecting: Duration,
    /// How long a job that was taken may wait for an instance.
    pub acquire_timeout: Duration,
}

/// What is the same for all setups that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Surroundings {
    /// The cloud.
    pub cloud: CloudModel,
    /// How long GitLab takes to hand out a job.
    pub request: Duration,
    /// Decides how long each boot takes and which fail.
    pub seed: u64,
}

/// What happened.
#[derive(Clone)]
pub struct Outcome {
    /// How long each job waited from its creation until it had a slot of a ready instance, shortest first, in milliseconds.
    pub(crate) waits: Vec<Millis>,
    pub(crate) wait_sum: u64,
    /// Jobs that had not started when the simulation gave up, and the last reason.
    pub(crate) stuck: u64,
    pub(crate) stuck_because: Option<String>,
    /// Jobs that waited longer for an instance than `instance_acquire_timeout`.
    pub(crate) timed_out: u64,
    /// Jobs whose instance was taken away, so that they ran again.
    pub(crate) lost: u64,
    pub(crate) billed: Billed,
    pub(crate) slots: u32,
    pub(crate) busy: u64,
    pub(crate) end: Millis,
    pub(crate) instances: Series,
    pub(crate) running: Series,
    pub(crate) waiting: Series,
    pub(crate) decisions: u64,
    pub(crate) listings: u64,
}

/// What the manager has to do at a certain time.
#[derive(Debug, Clone, Copy)]
enum Due {
    Poll,
    Answer(usize),
    Finish { job: usize, attempt: u32 },
}

#[derive(Debug, Clone, Copy, Default)]
struct Fortune {
    /// Taken from GitLab.
    taken: Option<Millis>,
    started: Option<Millis>,
    attempt: u32,
}

/// How the manager comes to ask for jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polling {
    /// The last answer was "no job", and there is none.
    Idle,
    /// There are jobs; they are asked for at the next interval.
    Waiting,
    /// A job was had: the next one is asked for at once.
    Busy,
}

struct Replay<'a> {
    setup: &'a Setup,
    around: &'a Surroundings,
    world: World<Due>,
    arrivals: Vec<(Millis, Millis)>,
    arrived: usize,
    queue: VecDeque<usize>,
    fortunes: Vec<Fortune>,
    polling: Polling,
    in_flight: u32,
    taken: u32,
    running: u32,
    done: usize,
    refusal: Option<String>,
    out: Outcome,
}

/// How long after the last job was to have ended the simulation goes on for those that did not start.
const PATIENCE: Millis = 24 * 3_600_000;
/// How long after the last job instances are watched and paid for.
const AFTERMATH: Millis = 3_600_000;

/// When the simulation of a trace begins.
pub(crate) fn start_of(trace: &Trace) -> DateTime<Utc> {
    let first = trace.jobs().first().map(|job| job.created).unwrap_or_default();
    // An hour for idle capacity to come up.
    let at = first - TimeDelta::hours(1);
    DateTime::from_timestamp(at.timestamp().div_euclid(60) * 60, 0).unwrap_or(at)
}

/// Replays a trace.
#[must_use]
pub fn replay(setup: &Setup, trace: &Trace, around: &Surroundings) -> Outcome {
    Replay::new(setup, trace, around).run()
}

// === impl Setup ===

impl Default for Setup {
    /// GitLab Runner's defaults, without a policy.
    fn default() -> Self {
        Self {
            name: String::new(),
            scaler: Config::default(),
            most_jobs: 1,
            request_concurrency: 1,
            check_interval: Duration::from_secs(3),
            update_interval: Duration::from_secs(60),
            update_interval_when_expecting: Duration::from_secs(2),
            acquire_timeout: Duration::from_secs(15 * 60),
        }
    }
}

// === impl Surroundings ===

impl Default for Surroundings {
    fn default() -> Self {
        Self { cloud: CloudModel::default(), request: Duration::from_millis(200), seed: 1 }
    }
}

// === impl Replay ===

impl<'a> Replay<'a> {
    fn new(setup: &'a Setup, trace: &Trace, around: &'a Surroundings) -> Self {
        let start = start_of(trace);
        let since = |at: DateTime<Utc>| u64::try_from((at - start).num_milliseconds()).unwrap_or(0);
        let arrivals: Vec<(Millis, Millis)> =
            trace.jobs().iter().map(|job| (since(job.created), millis(job.duration))).collect();
        let intervals =
            Intervals { regular: setup.update_interval, expecting: setup.update_interval_when_expecting };
        // Health checks would always succeed, and the manager never restarts.
        let scaler =
            Config { heartbeat_interval: Duration::ZERO, restores_state: false, ..setup.scaler.clone() };
        let cloud = Cloud::new(around.cloud.clone(), around.seed);
        Self {
            setup,
            around,
            fortunes: vec![Fortune::default(); arrivals.len()],
            arrivals,
            arrived: 0,
            queue: VecDeque::new(),
            polling: Polling::Idle,
            in_flight: 0,
            taken: 0,
            running: 0,
            done: 0,
            refusal: None,
            out: Outcome::new(scaler.capacity()),
            world: World::new(scaler, cloud, start, intervals),
        }
    }

    fn run(mut self) -> Outcome {
        let last = self.arrivals.iter().map(|(at, long)| at + long).max().unwrap_or(0);
        loop {
            let all_done = self.done == self.arrivals.len();
            let limit = last + if all_done { AFTERMATH } else { PATIENCE };
            let arrival = self.arrivals.get(self.arrived).map(|(at, _)| *at);
            match [self.world.next_at(), arrival].into_iter().flatten().min() {
                Some(at) if at <= limit => self.step(at),
                Some(_) | None => return self.finish(limit),
            }
        }
    }

    fn step(&mut self, at: Millis) {
        for due in self.world.go(at) {
            self.happen(due);
        }
        while let Some((at, _)) = self.arrivals.get(self.arrived)
            && *at <= self.world.millis()
        {
            self.queue.push_back(self.arrived);
            self.arrived += 1;
        }
        self.poll_soon();
        loop {
            self.hear();
            self.ask();
            let series = &mut self.out.instances;
            let decided =
                self.world.decide(&mut |now, _, report| series.set(millis(now.mono), existing(report)));
            if !decided {
                break;
            }
        }
        let now = self.world.millis();
        self.out.running.set(now, self.running);
        let waiting = self.arrived - self.done - self.running as usize;
        self.out.waiting.set(now, u32::try_from(waiting).unwrap_or(u32::MAX));
    }

    /// A manager that had no job asks at its interval.
    fn poll_soon(&mut self) {
        if self.polling != Polling::Idle || self.queue.is_empty() {
            return;
        }
        self.polling = Polling::Waiting;
        let interval = millis(self.setup.check_interval).max(1);
        let tick = self.world.millis().div_ceil(interval) * interval;
        self.world.schedule(tick, Due::Poll);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Poll => self.polling = Polling::Busy,
            Due::Answer(job) => self.answer(job),
            Due::Finish { job, attempt } => {
                let fortune = &self.fortunes[job];
                if fortune.attempt == attempt
                    && let Some(started) = fortune.started
                {
                    self.out.busy += self.world.millis() - started;
                    self.running -= 1;
                    self.taken -= 1;
                    self.done += 1;
                    let now = self.world.now();
                    self.world.core.release(&key(job), now);
                    self.world.stir();
                }
            }
        }
    }

    /// Asks for jobs as long as there is room for what may come.
    fn ask(&mut self) {
        while self.polling == Polling::Busy
            && self.in_flight < self.setup.request_concurrency
            && self.taken < self.setup.most_jobs
            && let Some(job) = self.queue.front().copied()
        {
            let now = self.world.now();
            if let Err(refusal) = self.world.core.reserve(key(job), now) {
                self.refusal = Some(refusal.to_string());
                return;
            }
            self.world.stir();
            self.queue.pop_front();
            self.in_flight += 1;
            self.taken += 1;
            self.world.schedule(self.world.millis() + millis(self.around.request), Due::Answer(job));
        }
        if self.polling == Polling::Busy && self.queue.is_empty() && self.in_flight == 0 {
            self.polling = Polling::Idle;
        }
    }

    /// GitLab hands the job out.
    fn answer(&mut self, job: usize) {
        self.in_flight -= 1;
        let now = self.world.now();
        self.fortunes[job].taken = Some(self.world.millis());
        self.world.stir();
        if let Ok(Acquire::Granted(_)) = self.world.core.acquire(&key(job), now) {
            self.start(job);
        }
    }

    /// Takes in what the core says about claims.
    fn hear(&mut self) {
        while let Some(event) = self.world.core.poll_event() {
            match event {
                Event::Granted { key, .. } => self.start(job_of(&key)),
                // Nothing here has a moment at which it ends for certain.
                Event::Doomed { .. } => {}
                Event::Lost { key, .. } => self.lose(job_of(&key)),
            }
        }
    }

    fn start(&mut self, job: usize) {
        let now = self.world.millis();
        let (created, duration) = self.arrivals[job];
        let fortune = &mut self.fortunes[job];
        if fortune.attempt == 0 {
            let wait = now - created;
            self.out.waits.push(wait);
            self.out.wait_sum += wait;
            let since = fortune.taken.unwrap_or(now);
            if now - since > millis(self.setup.acquire_timeout) {
                self.out.timed_out += 1;
            }
        }
        fortune.attempt += 1;
        fortune.started = Some(now);
        let attempt = fortune.attempt;
        self.running += 1;
        self.world.schedule(now + duration, Due::Finish { job, attempt });
    }

    /// The instance of a job is gone: the job fails, and GitLab's retry comes back to the queue.
    fn lose(&mut self, job: usize) {
        let Some(started) = self.fortunes[job].started.take() else { return };
        self.out.busy += self.world.millis() - started;
        self.out.lost += 1;
        self.fortunes[job].attempt += 1;
        self.running -= 1;
        self.taken -= 1;
        self.queue.push_back(job);
        self.poll_soon();
    }

    fn finish(mut self, end: Millis) -> Outcome {
        self.out.waits.sort_unstable();
        self.out.stuck = (self.arrivals.len() - self.out.waits.len()) as u64;
        if self.out.stuck > 0 {
            self.out.stuck_because = self.refusal;
        }
        self.out.billed = self.world.cloud.billed(end);
        self.out.end = end;
        for series in [&mut self.out.instances, &mut self.out.running, &mut self.out.waiting] {
            series.close(end);
        }
        self.out.decisions = self.world.decisions;
        self.out.listings = self.world.listings;
        self.out
    }
}

// === impl Outcome ===

impl Outcome {
    fn new(slots: u32) -> Self {
        Self {
            waits: Vec::new(),
            wait_sum: 0,
            stuck: 0,
            stuck_because: None,
            timed_out: 0,
            lost: 0,
            billed: Billed::default(),
            slots,
            busy: 0,
            end: 0,
            instances: Series::default(),
            running: Series::default(),
            waiting: Series::default(),
            decisions: 0,
            listings: 0,
        }
    }

    /// The time that this share of the jobs waited at most.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        Duration::from_millis(percentile(&self.waits, share))
    }

    pub(crate) fn mean_wait(&self) -> Duration {
        Duration::from_millis(self.wait_sum.checked_div(self.waits.len() as u64).unwrap_or(0))
    }

    /// Share of the slots' existence in which a job ran.
    #[expect(clippy::cast_precision_loss, reason = "a share of some ten billion milliseconds")]
    pub(crate) fn utilisation(&self) -> f64 {
        let existed = self.billed.alive * u64::from(self.slots);
        if existed == 0 { 0.0 } else { self.busy as f64 / existed as f64 }
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("started", &self.waits.len())
            .field("p50", &self.percentile(0.5))
            .field("p95", &self.percentile(0.95))
            .field("stuck", &self.stuck)
            .field("billed", &self.billed)
            .field("decisions", &self.decisions)
            .field("listings", &self.listings)
            .finish_non_exhaustive()
    }
}

/// Instances that exist or are on their way.
fn existing(report: &Report) -> u32 {
    let counts = &report.counts;
    counts.requested + counts.creating + counts.booting + counts.ready + counts.suspect + counts.draining
}

/// The nearest-rank percentile of a sorted list.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank of a list in memory"
)]
fn percentile(sorted: &[Millis], share: f64) -> Millis {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

fn key(job: usize) -> ClaimKey {
    ClaimKey::from(job.to_string())
}

fn job_of(key: &ClaimKey) -> usize {
    key.as_str().parse().unwrap_or(usize::MAX)
}
