//! Policies: how much idle capacity to keep, and when which of them applies.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::period::Period;
use crate::zone::Zone;

/// One `[[runners.autoscaler.policy]]`. It steers idle capacity only; running and waiting jobs never depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// When it applies: inside any of these. Empty means never.
    pub periods: Vec<Period>,
    /// Where the periods are read.
    pub zone: Zone,
    /// Idle capacity to keep, in jobs.
    pub idle_count: u32,
    /// How long an instance stays idle before it may be removed.
    pub idle_time: Duration,
    /// Idle capacity as a factor of the capacity in use; zero turns it off. `idle_count` is then the minimum.
    pub scale_factor: ScaleFactor,
    /// The most that the factor may yield, in jobs; `0` for no limit.
    pub scale_factor_limit: u32,
    /// Take jobs only when a ready slot exists. Unset: on if `idle_count` is above 0.
    pub preemptive_mode: Option<bool>,
}

/// A non-negative decimal factor, kept in millionths so that `1.1 x 20` is 22 and not a little more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ScaleFactor {
    millionths: u64,
    /// Parts of a slot do not count, as in docker+machine. Otherwise they count as one.
    down: bool,
}

/// How a factor is stored: a number, or `{ "down": number }`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Up(f64),
    Down { down: f64 },
}

/// Why a number is not a scale factor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid scale factor `{text}`: expected a number between 0 and 1000000")]
pub struct ScaleFactorError {
    /// The offending number.
    pub text: String,
}

/// When another policy takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// From this minute on.
    pub at: DateTime<Utc>,
    /// The position of the policy in the list; `None` if none matches and the defaults apply.
    pub policy: Option<usize>,
}

/// Which policy applies at a moment, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) policy: Option<usize>,
    pub(crate) until: Option<DateTime<Utc>>,
}

/// The last answer, good until the next switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScheduleCache {
    known: Option<(DateTime<Utc>, DateTime<Utc>, Active)>,
}

/// How far ahead the next switch is searched.
const HORIZON: TimeDelta = TimeDelta::days(8);

/// The most that a scale factor may be.
const MOST: f64 = 1_000_000.0;

// === impl Policy ===

impl Default for Policy {
    /// What applies when nothing is configured: no idle capacity, five minutes of idle time, preemptive mode off.
    fn default() -> Self {
        Self {
            periods: vec![Period::always()],
            zone: Zone::default(),
            idle_count: 0,
            idle_time: Duration::from_secs(300),
            scale_factor: ScaleFactor::default(),
            scale_factor_limit: 0,
            preemptive_mode: None,
        }
    }
}

impl Policy {
    /// True if jobs are taken only when a ready slot exists.
    #[must_use]
    pub fn preemptive(&self) -> bool {
        self.preemptive_mode.unwrap_or(self.idle_count > 0)
    }

    /// True if it applies at this moment.
    #[must_use]
    pub fn applies(&self, at: DateTime<Utc>) -> bool {
        let local = self.zone.local(at);
        self.periods.iter().any(|period| period.contains(local))
    }

    fn is_always(&self) -> bool {
        self.periods.iter().any(Period::is_always)
    }

    fn switches_on_quarters(&self) -> bool {
        self.periods.iter().all(Period::whole_hours)
            && match self.zone {
                // Every zone of the database has kept offsets and changes on quarters of an hour since 1972.
                Zone::Named(_) => true,
                Zone::Fixed(offset) => offset.local_minus_utc() % 900 == 0,
            }
    }
}

/// The policy that applies at `at`: the last one that matches (GitLab Runner's rule).
#[must_use]
pub fn active_policy(policies: &[Policy], at: DateTime<Utc>) -> Option<usize> {
    policies.iter().rposition(|policy| policy.applies(at))
}

/// Every change of the active policy after `from`, up to `span` later, in order.
///
/// ```
/// use drover_taskscaler_core::{Policy, policy_switches};
/// use std::time::Duration;
///
/// let policies = [
///     Policy::default(),
///     Policy { periods: vec!["* 8-15 * * mon-fri".parse()?], idle_count: 5, ..Policy::default() },
/// ];
/// let monday = "2026-08-03T00:00:00Z".parse()?;
/// let switches = policy_switches(&policies, monday, Duration::from_secs(86_400));
/// assert_eq!(switches[0].at.to_string(), "2026-08-03 08:00:00 UTC");
/// assert_eq!(switches[0].policy, Some(1));
/// assert_eq!(switches[1].policy, Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn policy_switches(policies: &[Policy], from: DateTime<Utc>, span: Duration) -> Vec<Switch> {
    let end = from + TimeDelta::from_std(span).unwrap_or(HORIZON);
    let mut switches = Vec::new();
    let mut policy = active_policy(policies, from);
    let mut at = from;
    while let Some(next) = next_switch(policies, policy, at, end) {
        policy = next.policy;
        at = next.at;
        switches.push(next);
    }
    switches
}

fn next_switch(
    policies: &[Policy],
    policy: Option<usize>,
    from: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Option<Switch> {
    // Policies before the last one that always matches can never apply.
    let first = policies.iter().rposition(Policy::is_always).unwrap_or(0);
    let considered = policies.get(first..).unwrap_or_default();
    if considered.is_empty() || (considered.len() == 1 && considered.iter().all(Policy::is_always)) {
        return None;
    }
    let step = if considered.iter().all(Policy::switches_on_quarters) { 900 } else { 60 };
    let mut seconds = from.timestamp().div_euclid(step) * step + step;
    while seconds <= end.timestamp() {
        let at = DateTime::from_timestamp(seconds, 0)?;
        let next = active_policy(considered, at).map(|index| index + first);
        if next != policy {
            return Some(Switch { at, policy: next });
        }
        seconds += step;
    }
    None
}

// === impl ScheduleCache ===

impl ScheduleCache {
    /// Which policy applies. Searches only when the last answer has run out or the wall clock went back.
    pub(crate) fn active(&mut self, policies: &[Policy], at: DateTime<Utc>) -> Active {
        if let Some((from, to, active)) = self.known
            && from <= at
            && at < to
        {
            return active;
        }
        let minute = at.with_second(0).and_then(|at| at.with_nanosecond(0)).unwrap_or(at);
        let policy = active_policy(policies, minute);
        let until = next_switch(policies, policy, minute, minute + HORIZON).map(|switch| switch.at);
        let active = Active { policy, until };
        self.known = Some((minute, until.unwrap_or(minute + HORIZON / 2), active));
        active
    }

    pub(crate) fn forget(&mut self) {
        self.known = None;
    }
}

// === impl ScaleFactor ===

impl ScaleFactor {
    /// `factor x slots`, rounded up, or down if that was chosen.
    #[must_use]
    pub fn of(self, slots: u32) -> u32 {
        let exact = u128::from(self.millionths) * u128::from(slots);
        let whole = if self.down { exact / 1_000_000 } else { exact.div_ceil(1_000_000) };
        u32::try_from(whole).unwrap_or(u32::MAX)
    }

    /// The same factor, of which parts of a slot do not count.
    #[must_use]
    pub fn rounded_down(self) -> Self {
        Self { down: true, ..self }
    }

    /// True if the factor is in use.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.millionths > 0
    }

    /// The factor as a number, for display and metrics.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 10^12, exact in a double")]
    pub fn as_f64(self) -> f64 {
        self.millionths as f64 / 1e6
    }
}

impl TryFrom<f64> for ScaleFactor {
    type Error = ScaleFactorError;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    fn try_from(factor: f64) -> Result<Self, ScaleFactorError> {
        if !(0.0..=MOST).contains(&factor) {
            return Err(ScaleFactorError { text: factor.to_string() });
        }
        Ok(Self { millionths: (factor * 1e6).round() as u64, down: false })
    }
}

impl FromStr for ScaleFactor {
    type Err = ScaleFactorError;

    fn from_str(text: &str) -> Result<Self, ScaleFactorError> {
        let factor: f64 = text.trim().parse().map_err(|_| ScaleFactorError { text: text.to_owned() })?;
        Self::try_from(factor).map_err(|_| ScaleFactorError { text: text.to_owned() })
    }
}

impl TryFrom<Written> for ScaleFactor {
    type Error = ScaleFactorError;

    fn try_from(written: Written) -> Result<Self, ScaleFactorError> {
        match written {
            Written::Up(factor) => Self::try_from(factor),
            Written::Down { down } => Self::try_from(down).map(Self::rounded_down),
        }
    }
}

impl From<ScaleFactor> for Written {
    fn from(factor: ScaleFactor) -> Self {
        let number = factor.as_f64();
        if factor.down { Self::Down { down: number } } else { Self::Up(number) }
    }
}

impl From<ScaleFactor> for f64 {
    fn from(factor: ScaleFactor) -> Self {
        factor.as_f64()
    }
}

impl fmt::Display for ScaleFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_f64().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("2026-08-03T12:00:00Z" => Some(1); "the last that matches wins")]
    #[test_case("2026-08-08T12:00:00Z" => Some(0); "the general one otherwise")]
    fn selection(now: &str) -> Option<usize> {
        active_policy(&[policy("* * * * *", "UTC"), policy("* 8-15 * * mon-fri", "UTC")], at(now))
    }

    #[test]
    fn a_general_policy_listed_last_hides_the_others() {
        let policies = [policy("* 8-15 * * mon-fri", "UTC"), policy("* * * * *", "UTC")];
        assert_eq!(active_policy(&policies, at("2026-08-03T12:00:00Z")), Some(1));
        assert_eq!(policy_switches(&policies, at("2026-08-03T00:00:00Z"), WEEK), []);
    }

    #[test]
    fn without_a_match_no_policy_applies() {
        let policies = [policy("* 8-15 * * mon-fri", "UTC")];
        assert_eq!(active_policy(&policies, at("2026-08-08T12:00:00Z")), None);
        assert_eq!(active_policy(&[], at("2026-08-08T12:00:00Z")), None);
        let monday = Switch { at: at("2026-08-10T08:00:00Z"), policy: Some(0) };
        assert_eq!(next_switch(&policies, None, at("2026-08-08T12:00:00Z"), FAR), Some(monday));
    }

    // Berlin springs forward on 2026-03-29 at 01:00 UTC and falls back on 2026-10-25 at 01:00 UTC.
    #[test_case("* 8 * * *", "2026-03-28T07:30:00Z" => true; "winter morning")]
    #[test_case("* 8 * * *", "2026-03-29T06:30:00Z" => true; "summer morning is an hour earlier in utc")]
    #[test_case("* 8 * * *", "2026-03-29T07:30:00Z" => false; "summer morning is over")]
    #[test_case("* 2 * * *", "2026-03-29T01:30:00Z" => false; "the skipped hour never comes")]
    #[test_case("* 2 * * *", "2026-10-25T00:30:00Z" => true; "the repeated hour comes")]
    #[test_case("* 2 * * *", "2026-10-25T01:30:00Z" => true; "and comes again")]
    fn daylight_saving_follows_the_wall_clock(period: &str, now: &str) -> bool {
        policy(period, "Europe/Berlin").applies(at(now))
    }

    #[test]
    fn switches_follow_the_wall_clock_over_a_change_of_time() {
        let policies = [policy("* * * * *", "UTC"), policy("* 1-3 * * *", "Europe/Berlin")];
        let switches = policy_switches(&policies, at("2026-10-24T12:00:00Z"), WEEK);
        let times: Vec<String> = switches.iter().take(4).map(|switch| switch.at.to_rfc3339()).collect();
        let expected =
            ["2026-10-24T23:00:00", "2026-10-25T03:00:00", "2026-10-26T00:00:00", "2026-10-26T03:00:00"];
        assert_eq!(times, expected.map(|time| format!("{time}+00:00")));
    }

    #[test]
    fn minutes_and_odd_zones_are_searched_exactly() {
        let odd = [policy("* * * * *", "UTC"), policy("7-8 * * * *", "Asia/Kathmandu")];
        let switches = policy_switches(&odd, at("2026-08-03T00:00:00Z"), Duration::from_secs(3_600));
        let times: Vec<String> = switches.iter().map(|switch| switch.at.time().to_string()).collect();
        assert_eq!(times, ["00:22:00", "00:24:00"]);
    }

    #[test]
    fn the_cache_answers_like_the_schedule_whatever_the_clock_does() {
        let policies = [policy("* * * * *", "UTC"), policy("* 8-15 * * mon-fri", "Europe/Berlin")];
        let mut cache = ScheduleCache::default();
        let start = at("2026-08-03T00:00:00Z");
        for minutes in [0, 359, 360, 361, 840, 839, 20_000, 5, 10_080, 100_000] {
            let now = start + TimeDelta::minutes(minutes) + TimeDelta::seconds(59);
            assert_eq!(cache.active(&policies, now).policy, active_policy(&policies, now), "{now}");
        }
    }

    #[test]
    fn the_active_policy_lasts_until_the_next_switch() {
        let policies = [policy("* * * * *", "UTC"), policy("* 8-15 * * mon-fri", "UTC")];
        let friday = ScheduleCache::default().active(&policies, at("2026-08-07T16:00:00Z"));
        assert_eq!(friday, Active { policy: Some(0), until: Some(at("2026-08-10T08:00:00Z")) });
    }

    #[test_case("0.5", 10 => 5)]
    #[test_case("1.1", 20 => 22; "no float noise")]
    #[test_case("1.5", 10 => 15)]
    #[test_case("1.1", 1 => 2; "rounded up")]
    #[test_case("0", 100 => 0)]
    #[test_case("1000000", 4_000_000_000 => u32::MAX; "cut off at the top")]
    fn factor(factor: &str, slots: u32) -> u32 {
        factor.parse::<ScaleFactor>().unwrap().of(slots)
    }

    #[test]
    fn a_factor_is_stored_with_its_rounding() {
        let up = ScaleFactor::try_from(0.5).unwrap();
        for (factor, text) in [(up, "0.5"), (up.rounded_down(), r#"{"down":0.5}"#)] {
            assert_eq!(serde_json::to_string(&factor).unwrap(), text);
            assert_eq!(serde_json::from_str::<ScaleFactor>(text).unwrap(), factor);
        }
        assert_eq!((up.of(9), up.rounded_down().of(9)), (5, 4));
    }

    #[test_case("-1")]
    #[test_case("nan")]
    #[test_case("inf")]
    #[test_case("x")]
    fn bad_factor(text: &str) {
        let error = text.parse::<ScaleFactor>().unwrap_err();
        let expected = format!("invalid scale factor `{text}`: expected a number between 0 and 1000000");
        assert_eq!(error.to_string(), expected);
    }

    #[test_case(0, None => false; "off without idle capacity")]
    #[test_case(1, None => true; "on with idle capacity")]
    #[test_case(0, Some(true) => true; "set on")]
    #[test_case(1, Some(false) => false; "set off")]
    fn preemptive_mode(idle_count: u32, preemptive_mode: Option<bool>) -> bool {
        Policy { idle_count, preemptive_mode, ..Policy::default() }.preemptive()
    }

    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    const FAR: DateTime<Utc> = DateTime::<Utc>::MAX_UTC;

    fn policy(period: &str, zone: &str) -> Policy {
        let periods = vec![period.parse().unwrap()];
        Policy { periods, zone: zone.parse().unwrap(), ..Policy::default() }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }
}
