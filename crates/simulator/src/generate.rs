//! Made-up jobs, for those who have no trace yet.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDateTime, TimeDelta, Timelike as _, Utc, Weekday};
use taskscaler_core::Zone;

use crate::random::{Random, seconds};
use crate::trace::{Job, Trace};

/// How jobs are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Working hours of people: a morning and an afternoon, a lunch, few jobs in the evening, builds at two in the night.
    Office,
    /// Pipelines of 5 to 200 jobs at once, at random times.
    Bursts,
    /// One job independent of the other, at the same rate by day and by night.
    Poisson,
}

/// What to make up.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// How jobs are spread.
    pub shape: Shape,
    /// Where the people are.
    pub zone: Zone,
    /// The first day, from midnight there.
    pub start: chrono::NaiveDate,
    /// How many days.
    pub days: u32,
    /// How many jobs.
    pub jobs: usize,
    /// Half of the jobs are shorter.
    pub median: Duration,
    /// Decides everything else.
    pub seed: u64,
}

/// Load of an office in each hour of a working day, relative.
const HOURS: [u32; 24] =
    [2, 2, 20, 4, 2, 2, 6, 25, 70, 110, 125, 120, 70, 95, 125, 125, 110, 80, 40, 20, 12, 8, 5, 3];
/// What is left of it on a Saturday or Sunday, in percent.
const WEEKEND: u32 = 12;

// === impl Recipe ===

impl Default for Recipe {
    /// An office week of 5,000 jobs that begins on Monday, 3 August 2026.
    fn default() -> Self {
        Self {
            shape: Shape::Office,
            zone: Zone::default(),
            start: chrono::NaiveDate::from_ymd_opt(2026, 8, 3).unwrap_or_default(),
            days: 7,
            jobs: 5_000,
            median: Duration::from_secs(150),
            seed: 1,
        }
    }
}

impl Recipe {
    /// Makes the jobs. The same recipe makes the same jobs.
    #[must_use]
    pub fn make(&self) -> Trace {
        let mut times = Random::stream(self.seed, 1);
        let mut lengths = Random::stream(self.seed, 2);
        let hours = self.hours();
        let mut jobs = Vec::with_capacity(self.jobs);
        while jobs.len() < self.jobs && !hours.is_empty() {
            let Some(at) = pick(&hours, &mut times) else { break };
            let size = self.size(&mut times).min(self.jobs - jobs.len());
            for index in 0..size {
                // Jobs of one pipeline appear within a few seconds.
                let late = if index == 0 { Duration::ZERO } else { seconds(times.exponential(2.0)) };
                let created = at + TimeDelta::from_std(late).unwrap_or_default();
                let duration = lengths.lognormal(self.median, 1.0).max(Duration::from_secs(1));
                jobs.push(Job { created, duration: duration.min(Duration::from_secs(6 * 3_600)) });
            }
        }
        Trace::new(jobs)
    }

    /// How many jobs come together.
    fn size(&self, random: &mut Random) -> usize {
        let below = |random: &mut Random, n: u64| usize::try_from(random.next() % n).unwrap_or(0);
        match self.shape {
            Shape::Office => 1 + below(random, 8),
            Shape::Bursts => 5 + below(random, 196),
            Shape::Poisson => 1,
        }
    }

    /// Each hour of the span with the sum of the weights up to its end.
    fn hours(&self) -> Vec<(DateTime<Utc>, u64)> {
        let first = self.start.and_time(chrono::NaiveTime::MIN);
        let mut sum = 0;
        let mut hours = Vec::new();
        let (mut at, end) = (self.midnight(first), self.midnight(first + TimeDelta::days(self.days.into())));
        while at < end {
            sum += u64::from(self.weight(at));
            hours.push((at, sum));
            at += TimeDelta::hours(1);
        }
        hours
    }

    fn midnight(&self, local: NaiveDateTime) -> DateTime<Utc> {
        // Where clocks leap over midnight the day begins an hour later.
        (0..4)
            .find_map(|hour| self.zone.first(local + TimeDelta::hours(hour)))
            .unwrap_or_else(|| local.and_utc())
    }

    fn weight(&self, at: DateTime<Utc>) -> u32 {
        match self.shape {
            Shape::Poisson | Shape::Bursts => 100,
            Shape::Office => {
                let local = self.zone.local(at);
                let weight = HOURS.get(local.hour() as usize).copied().unwrap_or(0) * 100;
                match local.weekday() {
                    Weekday::Sat | Weekday::Sun => weight * WEEKEND / 100,
                    Weekday::Mon | Weekday::Tue | Weekday::Wed | Weekday::Thu | Weekday::Fri => weight,
                }
            }
        }
    }
}

fn pick(hours: &[(DateTime<Utc>, u64)], random: &mut Random) -> Option<DateTime<Utc>> {
    let total = hours.last()?.1.max(1);
    let drawn = random.next() % total;
    let (hour, _) = hours.get(hours.partition_point(|(_, sum)| *sum <= drawn))?;
    let within = i64::try_from(random.next() % 3_600_000).unwrap_or(0);
    Some(*hour + TimeDelta::milliseconds(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_makes_its_number_of_jobs_within_its_days_and_the_same_ones_again() {
        for shape in [Shape::Office, Shape::Bursts, Shape::Poisson] {
            let recipe = Recipe { shape, jobs: 2_000, days: 3, seed: 9, ..Recipe::default() };
            let trace = recipe.make();
            assert_eq!(trace.jobs().len(), 2_000);
            assert_eq!(trace, recipe.make());
            assert_ne!(trace, Recipe { seed: 10, ..recipe }.make());
            let span = trace.jobs()[1_999].created - trace.jobs()[0].created;
            assert!(span <= TimeDelta::days(3) + TimeDelta::minutes(5), "{span}");
        }
    }

    #[test]
    fn an_office_is_busy_by_its_own_clock() {
        let zone: Zone = "Asia/Tokyo".parse().unwrap();
        let recipe = Recipe { zone, jobs: 20_000, ..Recipe::default() };
        let trace = recipe.make();
        let within = |from: u32, to: u32| {
            let local = |job: &Job| zone.local(job.created);
            trace.jobs().iter().filter(|job| (from..to).contains(&local(job).hour())).count()
        };
        assert!(within(9, 12) > 5 * within(20, 23), "{} {}", within(9, 12), within(20, 23));
    }

    #[test]
    fn a_day_without_midnight_still_begins() {
        // Clocks in Beirut went from 23:59 to 01:00 on 26 March 2023.
        let start = chrono::NaiveDate::from_ymd_opt(2023, 3, 26).unwrap();
        let zone = "Asia/Beirut".parse().unwrap();
        let recipe = Recipe { zone, start, days: 1, jobs: 50, ..Recipe::default() };
        assert_eq!(recipe.make().jobs().len(), 50);
    }
}
