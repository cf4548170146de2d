//! The cloud that is simulated: how long things take, what fails, and what it costs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use taskscaler_core::{Doom, DoomKind, Failure, FailureKind, InstanceId, Seen, SeenState};

use crate::random::{Random, seconds};
use crate::world::Millis;

/// How long something takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Always the same.
    Constant(Duration),
    /// Anything between the two, equally likely.
    Uniform(Duration, Duration),
    /// Around a median, with a long tail: the standard deviation of the logarithm.
    Lognormal(Duration, f64),
}

/// What cannot be read as a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a span: expected 40s, 30s..90s, or lognormal:45s:0.4 (median and spread)")]
pub struct SpanError {
    text: String,
}

/// What the cloud asks for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Price {
    /// For one instance and hour, in millionths of a currency unit.
    pub micros_per_hour: u64,
    /// What counts as an hour.
    pub billing: Billing,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Billing {
    /// Every hour that has begun.
    Hourly,
    /// Time as it passes, but at least this much for each instance.
    PerSecond {
        /// The least that is billed.
        minimum: Duration,
    },
}

/// The cloud.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CloudModel {
    /// From the request until the cloud says that the instance runs.
    pub boot: Span,
    /// From then until it takes jobs: the first connection and `instance_ready_command`.
    pub ready: Span,
    /// How long a deletion takes. It occupies a place below `max_instances` and is not billed.
    pub delete: Duration,
    /// Share of instances that cannot be made ready.
    pub boot_failures: f64,
    /// Most instances that the cloud has; more are refused for lack of capacity. `0`: as many as are wanted.
    pub capacity: u32,
    /// How often the cloud takes an instance away, per instance and hour, as it does with spot instances. The job there
    /// is lost and begins anew.
    pub interruptions_per_hour: f64,
    /// What it costs.
    pub price: Price,
}

/// One machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) state: SeenState,
    pub(crate) since: Millis,
    pub(crate) doomed: Option<Doom>,
}

/// What happens to a machine by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Runs,
    Gone,
    Interrupted,
}

/// The cloud in memory.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    model: CloudModel,
    random: Random,
    machines: BTreeMap<InstanceId, Machine>,
    made: u64,
    /// Machines that are not being deleted.
    alive: u32,
    billed: Billed,
    /// The next calls are refused with these words.
    refusals: Vec<String>,
    /// So many of the next machines cannot be made ready.
    bad: u32,
}

/// What was used and is to be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Billed {
    /// Instances that there were.
    pub(crate) instances: u64,
    /// Time that they existed, in milliseconds.
    pub(crate) alive: u64,
    /// Time that is billed for it.
    pub(crate) billed: u64,
}

// === impl Span ===

impl Span {
    pub(crate) fn draw(self, random: &mut Random) -> Duration {
        match self {
            Self::Constant(span) => span,
            Self::Uniform(from, to) => {
                let width = to.saturating_sub(from).as_secs_f64();
                from + seconds(width * random.unit())
            }
            Self::Lognormal(median, sigma) => random.lognormal(median, sigma),
        }
    }

    /// The least that it can take.
    pub(crate) fn least(self) -> Duration {
        match self {
            Self::Constant(span) => span,
            Self::Uniform(from, to) => from.min(to),
            Self::Lognormal(..) => Duration::ZERO,
        }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let span = |part: &str| go_duration::parse(part.trim()).ok();
        let read = || {
            if let Some(rest) = text.strip_prefix("lognormal:") {
                let (median, sigma) = rest.split_once(':')?;
                let sigma: f64 = sigma.trim().parse().ok().filter(|sigma| (0.0..=5.0).contains(sigma))?;
                return Some(Self::Lognormal(span(median)?, sigma));
            }
            if let Some((from, to)) = text.split_once("..") {
                let (from, to) = (span(from)?, span(to)?);
                return (from <= to).then_some(Self::Uniform(from, to));
            }
            span(text).map(Self::Constant)
        };
        read().ok_or_else(|| SpanError { text: text.to_owned() })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = crate::words::span;
        match self {
            Self::Constant(span) => f.write_str(&short(*span)),
            Self::Uniform(from, to) => write!(f, "{}..{}", short(*from), short(*to)),
            Self::Lognormal(median, sigma) => write!(f, "lognormal:{}:{sigma}", short(*median)),
        }
    }
}

// === impl Price ===

impl Price {
    /// A price as people write it, `0.0336`, in millionths.
    #[must_use]
    pub fn parse_micros(text: &str) -> Option<u64> {
        let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return None;
        }
        let part: u64 = format!("{part:0<6}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(part)
    }

    /// The price without this share of it, as spot instances have it.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a price far below 2^53 millionths, and a share"
    )]
    pub fn reduced_by(self, share: f64) -> Self {
        let rest = (self.micros_per_hour as f64 * (1.0 - share.clamp(0.0, 1.0))).round() as u64;
        Self { micros_per_hour: rest, ..self }
    }

    /// What so many billed milliseconds cost, in millionths, rounded to the nearest.
    pub(crate) fn of(self, billed: u64) -> u64 {
        const HOUR: u128 = 3_600_000;
        let exact = u128::from(self.micros_per_hour) * u128::from(billed);
        u64::try_from((exact + HOUR / 2) / HOUR).unwrap_or(u64::MAX)
    }
}

// === impl Billing ===

impl Billing {
    /// What is billed for one instance that existed for so many milliseconds; never less than those.
    pub(crate) fn of(self, alive: u64) -> u64 {
        const HOUR: u64 = 3_600_000;
        match self {
            Self::Hourly => alive.div_ceil(HOUR).max(1) * HOUR,
            Self::PerSecond { minimum } => alive
                .div_ceil(1_000)
                .saturating_mul(1_000)
                .max(u64::try_from(minimum.as_millis()).unwrap_or(0)),
        }
    }
}

// === impl CloudModel ===

impl Default for CloudModel {
    /// An ordinary cloud: instances run after 40 s or so and take jobs 5 s later; 0.10 an hour, billed by the second.
    fn default() -> Self {
        Self {
            boot: Span::Lognormal(Duration::from_secs(40), 0.25),
            ready: Span::Constant(Duration::from_secs(5)),
            delete: Duration::from_secs(30),
            boot_failures: 0.0,
            capacity: 0,
            interruptions_per_hour: 0.0,
            price: Price {
                micros_per_hour: 100_000,
                billing: Billing::PerSecond { minimum: Duration::from_secs(60) },
            },
        }
    }
}

// === impl Cloud ===

impl Cloud {
    pub(crate) fn new(model: CloudModel, seed: u64) -> Self {
        Self {
            model,
            random: Random::stream(seed, 3),
            machines: BTreeMap::new(),
            made: 0,
            alive: 0,
            billed: Billed::default(),
            refusals: Vec::new(),
            bad: 0,
        }
    }

    pub(crate) fn listing(&self) -> Vec<Seen> {
        let line = |(id, machine): (&InstanceId, &Machine)| Seen {
            id: id.clone(),
            state: machine.state,
            doomed: machine.doomed.clone(),
        };
        self.machines.iter().map(line).collect()
    }

    /// Accepts up to `asked` new machines. Returns what will become of them, and when.
    pub(crate) fn increase(
        &mut self,
        asked: u32,
        now: Millis,
    ) -> (u32, Option<Failure>, Vec<(Millis, InstanceId, Fate)>) {
        if !self.refusals.is_empty() {
            let words = self.refusals.remove(0);
            return (0, Some(Failure::new(FailureKind::NoCapacity, words)), Vec::new());
        }
        let room = match self.model.capacity {
            0 => u32::MAX,
            most => most.saturating_sub(self.alive),
        };
        let granted = asked.min(room);
        let mut fates = Vec::new();
        for _ in 0..granted {
            let id = self.make(SeenState::Creating, now);
            let boot = crate::world::millis(self.model.boot.draw(&mut self.random));
            fates.push((now + boot, id.clone(), Fate::Runs));
            if self.model.interruptions_per_hour > 0.0 {
                let life = seconds(self.random.exponential(3_600.0 / self.model.interruptions_per_hour));
                fates.push((now + boot + crate::world::millis(life), id, Fate::Interrupted));
            }
        }
        let failure = (granted < asked).then(|| {
            let words = format!("the cloud has no more than {} instances", self.model.capacity);
            Failure::new(FailureKind::NoCapacity, words)
        });
        (granted, failure, fates)
    }

    /// A machine that is there, whoever made it.
    pub(crate) fn make(&mut self, state: SeenState, now: Millis) -> InstanceId {
        self.made += 1;
        self.alive += 1;
        let id = InstanceId::from(format!("i-{}", self.made));
        self.machines.insert(id.clone(), Machine { state, since: now, doomed: None });
        id
    }

    /// Begins to delete a machine. Returns when it is gone, unless it is going already.
    pub(crate) fn delete(&mut self, id: &InstanceId, now: Millis) -> Option<Millis> {
        let machine = self.machines.get_mut(id)?;
        if machine.state == SeenState::Deleting {
            return None;
        }
        machine.state = SeenState::Deleting;
        let since = machine.since;
        self.bill(since, now);
        Some(now + crate::world::millis(self.model.delete))
    }

    /// Something happens to a machine by itself. False if it has no effect.
    pub(crate) fn befall(&mut self, id: &InstanceId, fate: Fate, now: Millis) -> bool {
        let Some(machine) = self.machines.get_mut(id) else { return false };
        match (fate, machine.state) {
            (Fate::Runs, SeenState::Creating) => machine.state = SeenState::Running,
            (Fate::Runs, _) => return false,
            (Fate::Gone, SeenState::Deleting) => drop(self.machines.remove(id)),
            (Fate::Gone, _) => return false,
            (Fate::Interrupted, SeenState::Deleting) => return false,
            (Fate::Interrupted, _) => {
                let since = machine.since;
                self.machines.remove(id);
                self.bill(since, now);
            }
        }
        true
    }

    /// How the first look at a running machine ends, and how long it takes.
    pub(crate) fn ready_up(&mut self) -> (Millis, Result<(), String>) {
        let took = crate::world::millis(self.model.ready.draw(&mut self.random));
        let scripted = self.bad > 0;
        self.bad = self.bad.saturating_sub(1);
        let failed = scripted || self.random.chance(self.model.boot_failures);
        (took, if failed { Err("exit status 1".to_owned()) } else { Ok(()) })
    }

    pub(crate) fn doom(&mut self, id: &InstanceId, why: String) -> bool {
        let doom = Doom::new(DoomKind::Interruption, why);
        self.machines.get_mut(id).map(|machine| machine.doomed = Some(doom)).is_some()
    }

    pub(crate) fn refuse(&mut self, words: String) {
        self.refusals.push(words);
    }

    pub(crate) fn spoil(&mut self, count: u32) {
        self.bad += count;
    }

    /// Everything until `now`, with the machines that still exist.
    pub(crate) fn billed(&self, now: Millis) -> Billed {
        let mut sum = self.billed;
        for machine in self.machines.values().filter(|machine| machine.state != SeenState::Deleting) {
            sum.add(machine.since, now, self.model.price.billing);
        }
        sum
    }

    fn bill(&mut self, since: Millis, now: Millis) {
        self.alive = self.alive.saturating_sub(1);
        self.billed.add(since, now, self.model.price.billing);
    }
}

// === impl Billed ===

impl Billed {
    fn add(&mut self, since: Millis, now: Millis, billing: Billing) {
        let alive = now.saturating_sub(since);
        self.instances += 1;
        self.alive += alive;
        self.billed += billing.of(alive);
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("40s" => Ok("40s".to_owned()))]
    #[test_case("30s..1m30s" => Ok("30s..1m30s".to_owned()))]
    #[test_case("lognormal:45s:0.4" => Ok("lognormal:45s:0.4".to_owned()))]
    #[test_case("90s..30s" => Err("`90s..30s` is not a span: expected 40s, 30s..90s, or lognormal:45s:0.4 (median and spread)".to_owned()))]
    #[test_case("lognormal:45s" => Err("`lognormal:45s` is not a span: expected 40s, 30s..90s, or lognormal:45s:0.4 (median and spread)".to_owned()))]
    fn spans(text: &str) -> Result<String, String> {
        text.parse::<Span>().map(|span| span.to_string()).map_err(|error| error.to_string())
    }

    #[test_case(Billing::Hourly, 1 => 3_600_000; "a begun hour is an hour")]
    #[test_case(Billing::Hourly, 3_600_001 => 7_200_000; "two hours")]
    #[test_case(Billing::PerSecond { minimum: Duration::from_secs(60) }, 5_000 => 60_000; "the minimum")]
    #[test_case(Billing::PerSecond { minimum: Duration::from_secs(60) }, 61_001 => 62_000; "a begun second is a second")]
    fn billing(billing: Billing, alive: u64) -> u64 {
        billing.of(alive)
    }

    #[test]
    fn what_exists_no_longer_is_billed_once() {
        let mut cloud =
            Cloud::new(CloudModel { delete: Duration::from_secs(30), ..CloudModel::default() }, 1);
        let (granted, failure, fates) = cloud.increase(2, 0);
        assert_eq!((granted, failure, fates.len()), (2, None, 2));
        let (at, id, _) = fates[0].clone();
        assert!(cloud.befall(&id, Fate::Runs, at));
        assert_eq!(cloud.delete(&id, 100_000), Some(130_000));
        assert_eq!(cloud.delete(&id, 110_000), None);
        assert!(cloud.befall(&id, Fate::Gone, 130_000));
        let billed = cloud.billed(200_000);
        assert_eq!(billed, Billed { instances: 2, alive: 300_000, billed: 300_000 });
    }

    #[test]
    fn a_full_cloud_grants_what_it_has_and_says_why_not_more() {
        let mut cloud = Cloud::new(CloudModel { capacity: 3, ..CloudModel::default() }, 1);
        let (granted, failure, _) = cloud.increase(5, 0);
        assert_eq!(granted, 3);
        assert_eq!(failure.unwrap().message, "the cloud has no more than 3 instances");
    }
}
