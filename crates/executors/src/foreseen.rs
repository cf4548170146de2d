//! What a job makes of an announcement that its instance will be taken away.
//!
//! A job that cannot end before its instance does would end with a broken connection: the end of its log is lost then, and GitLab
//! hears of it late. So where the moment is certain, the job is stopped [`MARGIN`] before it. Its result is a system failure,
//! which GitLab can be told to retry.
//!
//! A job that has something to save ([`Saving`]: `after_script`, artifacts or caches also of failed jobs) is stopped earlier, if the
//! notice came early enough for that: what saves it runs until [`MARGIN`] before the end. Where it did not, nothing else runs on the
//! instance.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use job::JobFailure;
use job::log::LineKind;
use taskscaler::{Acquisition, Doom, DoomKind};
use tokio::sync::watch;
use tokio::time::Instant;
use trace::JobLog;

/// How long before the end of its instance a job is stopped: time for its scripts to end after `TERM`, for what they still say,
/// and for an end that comes a little early.
pub(crate) const MARGIN: Duration = Duration::from_secs(20);
/// Less than this is no time to save anything in.
const LEAST: Duration = Duration::from_secs(3);
/// Of what is left until the end, this much is not given to scripts that were told to end.
const RESERVE: Duration = Duration::from_secs(8);
/// A wall clock that jumps is noticed after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A moment that moves by less is not said again.
const SAME: TimeDelta = TimeDelta::seconds(60);

/// What is announced for the instance of a job, as it changes.
#[derive(Debug, Clone)]
pub struct Foreseen {
    /// Name of the instance.
    pub instance: String,
    /// The announcement that counts; `None` while there is none.
    pub doom: watch::Receiver<Option<Doom>>,
    heard: Arc<Mutex<Option<Heard>>>,
}

/// A moment that was announced.
#[derive(Debug, Clone, Copy)]
struct Heard {
    moment: DateTime<Utc>,
    /// When this process heard of it.
    since: DateTime<Utc>,
}

/// How long before [`MARGIN`] the script of a job is stopped, so that what it leaves can be saved; zero if there is nothing to save.
pub(crate) type Saving = Duration;

/// A job that is to be stopped because its instance is about to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) instance: String,
    pub(crate) doom: Doom,
    at: DateTime<Utc>,
}

// === impl Foreseen ===

impl Foreseen {
    /// What is announced for the instance of a slot.
    pub(crate) fn of(acquisition: &Acquisition) -> Self {
        Self::new(acquisition.instance().to_string(), acquisition.doom())
    }

    /// An announcement, or none yet, for an instance.
    #[must_use]
    pub fn new(instance: String, doom: watch::Receiver<Option<Doom>>) -> Self {
        Self { instance, doom, heard: Arc::default() }
    }

    /// How long before the end a job is stopped, so that it has this time to save what it leaves. A notice that is too short for
    /// that gives none: the script goes on for as long as it can.
    fn margin(&self, at: DateTime<Utc>, now: DateTime<Utc>, saving: Saving) -> Duration {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *heard {
            Some(Heard { moment, since }) if (moment - at).abs() < SAME => since,
            Some(_) | None => now,
        };
        *heard = Some(Heard { moment: at, since });
        let staged = MARGIN + saving;
        if (at - since).to_std().unwrap_or_default() >= staged { staged } else { MARGIN }
    }

    /// Completes when the job, or the part of it that this time is for, must be stopped; never where that is not known.
    pub(crate) async fn taken(&self, saving: Saving) -> Taken {
        let mut doom = self.doom.clone();
        loop {
            let known = doom.borrow_and_update().clone();
            let due = known.as_ref().and_then(|doom| doom.at);
            let now = Utc::now();
            let wait = due.map(|at| until_stop(at, now, self.margin(at, now, saving)));
            if let (Some(doom), Some(at), Some(Duration::ZERO)) = (known, due, wait) {
                return Taken { instance: self.instance.clone(), doom, at };
            }
            tokio::select! {
                changed = doom.changed() => if changed.is_err() {
                    // The slot was given back.
                    std::future::pending::<()>().await;
                },
                () = tokio::time::sleep(wait.unwrap_or_default().min(LOOK_AGAIN)), if wait.is_some() => {}
            }
        }
    }

    /// Completes when the instance is not worth beginning anything on, with the reason for people.
    pub(crate) async fn leaving(&self) -> String {
        let mut doom = self.doom.clone();
        match doom.wait_for(Option::is_some).await.map(|doom| doom.clone()) {
            Ok(Some(doom)) => format!("instance {} will be taken away: {doom}", self.instance),
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The loss of a connection to an instance whose end was announced.
    pub(crate) fn lost(&self) -> Option<String> {
        let doom = self.doom.borrow();
        doom.as_ref().map(|doom| format!("instance {} was lost, as announced: {doom}", self.instance))
    }

    /// Tells the job's log what is announced, as soon as it is. Never completes. What comes after `job_end`, when the job is over
    /// anyway, is not told.
    pub(crate) async fn tell(&self, job: u64, log: &JobLog, job_end: Instant, saving: Saving) -> Infallible {
        let mut doom = self.doom.clone();
        let mut said: Option<Doom> = None;
        loop {
            let known = doom.borrow_and_update().clone();
            let now = Utc::now();
            let left = job_end.saturating_duration_since(Instant::now());
            let moment = known.as_ref().and_then(|doom| doom.at);
            let margin = moment.map_or(MARGIN, |at| self.margin(at, now, saving));
            let news = words(&self.instance, said.as_ref(), known.as_ref(), now, left, margin);
            if let Some((kind, line)) = news {
                tracing::info!(job, instance = self.instance, "{line}");
                log.line(kind, line);
                said = known;
            }
            if doom.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

// === impl Taken ===

impl Taken {
    /// How the job ends.
    pub(crate) fn failure(&self) -> JobFailure {
        JobFailure::system(self.to_string())
    }

    /// What is left to save something in, until nothing runs any more; none if that is nothing worth beginning.
    pub(crate) fn time_to_save(&self) -> Option<Duration> {
        let left = until_stop(self.at, Utc::now(), MARGIN);
        (left >= LEAST).then_some(left)
    }

    /// How long its scripts may take to end after `TERM`.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        patience(self.at, Utc::now(), most)
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {} is taken away: {}", self.instance, self.doom)
    }
}

// === helpers ===

/// Time until what may run until `margin` before the end of its instance must be stopped.
fn until_stop(at: DateTime<Utc>, now: DateTime<Utc>, margin: Duration) -> Duration {
    (at - now).to_std().unwrap_or_default().saturating_sub(margin)
}

fn patience(at: DateTime<Utc>, now: DateTime<Utc>, most: Duration) -> Duration {
    let left = (at - now).to_std().unwrap_or_default();
    left.saturating_sub(RESERVE).clamp(Duration::from_secs(1).min(most), most)
}

/// What the job's log is told, if there is anything new. `left` is what is left of the job's own time; it is stopped `margin` before
/// the end.
fn words(
    instance: &str,
    said: Option<&Doom>,
    known: Option<&Doom>,
    now: DateTime<Utc>,
    left: Duration,
    margin: Duration,
) -> Option<(LineKind, String)> {
    let Some(doom) = known else {
        said?;
        let line = format!("The announced end of instance {instance} was called off. The job goes on.");
        return Some((LineKind::Info, line));
    };
    let why = &doom.why;
    let Some(at) = doom.at else {
        let told = match doom.kind {
            DoomKind::Rebalance => true,
            DoomKind::Interruption | DoomKind::Maintenance | DoomKind::Ending => said.is_some(),
        };
        let line = format!("Instance {instance} will be taken away: {why}. The job goes on until then.");
        return (!told).then_some((LineKind::Warning, line));
    };
    let until = until_stop(at, now, margin);
    if until >= left || said.and_then(|said| said.at).is_some_and(|said| (said - at).abs() < SAME) {
        return None;
    }
    let (moment, in_time) = (at.format("%Y-%m-%d %H:%M:%S UTC"), whole_seconds(at - now));
    let then = match until {
        Duration::ZERO => "The job is stopped.".to_owned(),
        _ => {
            let stop = (at - TimeDelta::from_std(margin).unwrap_or_default()).format("%H:%M:%S UTC");
            let what = if margin > MARGIN { "its script still runs" } else { "the job still runs" };
            format!("If {what} at {stop}, it is stopped.")
        }
    };
    let line = format!("Instance {instance} will be taken away at {moment}, in {in_time}: {why}. {then}");
    Some((LineKind::Warning, line))
}

fn whole_seconds(time: TimeDelta) -> String {
    go_duration::format(Duration::from_secs(time.num_seconds().try_into().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn spot(second: i64) -> Doom {
        Doom::new(DoomKind::Interruption, "spot interruption notice (terminate)").at(at(second))
    }

    fn said(before: Option<&Doom>, known: Option<&Doom>, left: Duration) -> Option<String> {
        words("i-1", before, known, at(0), left, MARGIN).map(|(_, line)| line)
    }

    #[test_case(120 => 100; "two minutes")]
    #[test_case(20 => 0; "the margin")]
    #[test_case(5 => 0; "a notice that came late")]
    #[test_case(-5 => 0; "one that came too late")]
    #[test_case(432_000 => 431_980; "five days")]
    fn a_job_is_stopped_a_margin_before_the_end(second: i64) -> u64 {
        until_stop(at(second), at(0), MARGIN).as_secs()
    }

    #[test_case(20 => 10; "all of it")]
    #[test_case(12 => 4; "what is left")]
    #[test_case(3 => 1; "hardly any")]
    #[test_case(-1 => 1; "too late")]
    fn scripts_have_time_to_end_as_long_as_there_is_some(second: i64) -> u64 {
        patience(at(second), at(0), Duration::from_secs(10)).as_secs()
    }

    #[test]
    fn the_log_names_the_moment_the_reason_and_what_will_happen() {
        let line = said(None, Some(&spot(120)), HOUR).unwrap();
        assert_eq!(
            line,
            "Instance i-1 will be taken away at 2027-01-15 08:02:00 UTC, in 2m0s: spot interruption notice (terminate). If the \
             job still runs at 08:01:40 UTC, it is stopped."
        );
        let late = said(None, Some(&spot(10)), HOUR).unwrap();
        assert!(
            late.ends_with("in 10s: spot interruption notice (terminate). The job is stopped."),
            "{late}"
        );
        let taken = Taken { instance: "i-1".to_owned(), doom: spot(120), at: at(120) };
        assert_eq!(
            taken.failure().message,
            "instance i-1 is taken away: spot interruption notice (terminate), at 2027-01-15 08:02:00 UTC"
        );
    }

    #[test]
    fn what_does_not_concern_the_job_is_not_told() {
        let retired =
            Doom::new(DoomKind::Maintenance, "AWS has scheduled instance-retirement").at(at(432_000));
        assert_eq!(said(None, Some(&retired), HOUR), None, "the job is over by then");
        assert_eq!(said(None, Some(&Doom::new(DoomKind::Rebalance, "advice")), HOUR), None);
        assert_eq!(said(None, None, HOUR), None);
        assert_eq!(said(Some(&spot(120)), Some(&spot(121)), HOUR), None, "the same, told by somebody else");
        let ending = Doom::new(DoomKind::Ending, "a hook holds it");
        assert!(said(None, Some(&ending), HOUR).is_some());
        assert_eq!(said(Some(&ending), Some(&ending), HOUR), None);
    }

    #[test]
    fn what_changes_is_told_again() {
        let soon = Doom::new(DoomKind::Maintenance, "AWS has scheduled instance-stop").at(at(1200));
        let later = soon.clone().at(at(2400));
        assert!(said(Some(&soon), Some(&later), HOUR).unwrap().contains("in 40m0s"));
        assert!(said(Some(&soon), None, HOUR).unwrap().contains("called off"));
    }

    fn foreseen(doom: Option<Doom>) -> (watch::Sender<Option<Doom>>, Foreseen) {
        let (sender, doom) = watch::channel(doom);
        (sender, Foreseen::new("i-1".to_owned(), doom))
    }

    #[test_case(115, 40 => 60; "two minutes of notice, heard of within seconds")]
    #[test_case(60, 40 => 60; "just enough")]
    #[test_case(59, 40 => 20; "too late to save anything")]
    #[test_case(115, 0 => 20; "nothing to save")]
    #[test_case(115, 100 => 20; "more time is wanted than there is")]
    fn a_script_is_stopped_sooner_if_there_is_time_to_save_something(notice: i64, saving: u64) -> u64 {
        let foreseen = foreseen(None).1;
        foreseen.margin(at(notice), at(0), Duration::from_secs(saving)).as_secs()
    }

    #[test]
    fn stages_that_begin_late_keep_to_what_the_notice_allowed() {
        let (saving, foreseen) = (Duration::from_secs(40), foreseen(None).1);
        assert_eq!(foreseen.margin(at(115), at(0), saving), MARGIN + saving);
        // The same moment, as somebody else tells it, and a second step of the script right before its end.
        assert_eq!(foreseen.margin(at(116), at(70), saving), MARGIN + saving);
        // What saves it has until the margin.
        assert_eq!(foreseen.margin(at(116), at(70), Saving::ZERO), MARGIN);
        // Another moment is another notice.
        assert_eq!(foreseen.margin(at(300), at(250), saving), MARGIN);
    }

    #[test]
    fn the_log_says_when_the_script_is_stopped() {
        let margin = MARGIN + Duration::from_secs(40);
        let (_, line) = words("i-1", None, Some(&spot(115)), at(0), HOUR, margin).unwrap();
        assert!(line.ends_with("If its script still runs at 08:00:55 UTC, it is stopped."), "{line}");
    }

    #[tokio::test]
    async fn an_end_that_is_called_off_or_has_no_moment_stops_no_job() {
        let ending = Doom::new(DoomKind::Ending, "a hook holds it");
        let (sender, foreseen) = foreseen(Some(ending));
        let taken = foreseen.taken(Saving::ZERO);
        tokio::pin!(taken);
        assert!(futures_util::poll!(&mut taken).is_pending());
        sender.send_replace(Some(spot(0).at(Utc::now() + TimeDelta::seconds(300))));
        assert!(futures_util::poll!(&mut taken).is_pending());
        sender.send_replace(None);
        assert!(futures_util::poll!(&mut taken).is_pending());
        let soon = spot(0).at(Utc::now() + TimeDelta::seconds(19));
        sender.send_replace(Some(soon.clone()));
        assert_eq!(taken.await.doom, soon);
    }
}
