//! Periods of a policy: a unix cron pattern read as a range of time, not as firing moments.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDateTime, Timelike};
use serde::{Deserialize, Serialize};

/// A set of local minutes, written as `minute hour day-of-month month day-of-week`.
///
/// A moment is inside when every field of its local minute matches. When both day fields are restricted, either may
/// match (the classic cron rule). Names of months and days are case-insensitive; `0` and `7` are both Sunday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day field that starts with `*` (also `*/2`) is unrestricted in the sense of the either-day rule.
    any_day: bool,
    any_weekday: bool,
}

/// Why a text is not a period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not five fields.
    #[error(
        "invalid period `{period}`: expected 5 fields (minute hour day-of-month month day-of-week), found {found}"
    )]
    FieldCount {
        /// The whole text.
        period: String,
        /// How many there are.
        found: usize,
    },
    /// One field does not parse.
    #[error("invalid period `{period}`: {field} field `{text}`: {problem}")]
    Field {
        /// The whole text.
        period: String,
        /// Which field.
        field: &'static str,
        /// Its text.
        text: String,
        /// What is wrong.
        problem: String,
    },
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    first_name: u32,
}

const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[], first_name: 0 };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[], first_name: 0 };
const DAY: Field = Field { name: "day-of-month", low: 1, high: 31, names: &[], first_name: 0 };
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    first_name: 1,
};
const WEEKDAY: Field = Field {
    name: "day-of-week",
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    first_name: 0,
};

// === impl Period ===

impl Period {
    /// `* * * * *`: every minute.
    #[must_use]
    pub fn always() -> Self {
        Self {
            text: "* * * * *".to_owned(),
            minutes: mask(0, 59, 1),
            hours: mask(0, 23, 1),
            days: mask(1, 31, 1),
            months: mask(1, 12, 1),
            weekdays: mask(0, 6, 1),
            any_day: true,
            any_weekday: true,
        }
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if the minute of this local time is inside.
    #[must_use]
    pub fn contains(&self, local: NaiveDateTime) -> bool {
        let has = |set: u64, bit: u32| set & (1 << bit) != 0;
        let day = has(self.days, local.day());
        let weekday = has(self.weekdays, local.weekday().num_days_from_sunday());
        let either = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        either
            && has(self.minutes, local.minute())
            && has(self.hours, local.hour())
            && has(self.months, local.month())
    }

    /// True if no minute is outside.
    pub(crate) fn is_always(&self) -> bool {
        let all = Self::always();
        (self.minutes, self.hours, self.days, self.months, self.weekdays)
            == (all.minutes, all.hours, all.days, all.months, all.weekdays)
    }

    /// True if the period only ever begins and ends on the full hour.
    pub(crate) fn whole_hours(&self) -> bool {
        self.minutes == mask(0, 59, 1)
    }
}

impl Default for Period {
    fn default() -> Self {
        Self::always()
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(PeriodError::FieldCount { period: text.to_owned(), found: fields.len() });
        };
        let read = |field: &Field, part: &str| {
            field.read(part).map_err(|problem| PeriodError::Field {
                period: text.to_owned(),
                field: field.name,
                text: part.to_owned(),
                problem,
            })
        };
        let weekdays = read(&WEEKDAY, weekday)?;
        Ok(Self {
            text: text.to_owned(),
            minutes: read(&MINUTE, minute)?,
            hours: read(&HOUR, hour)?,
            days: read(&DAY, day)?,
            months: read(&MONTH, month)?,
            weekdays: (weekdays | (weekdays >> 7)) & 0x7f,
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        })
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.text
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Field ===

impl Field {
    fn read(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.read_part(part)?))
    }

    fn read_part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let n = step.parse().ok().filter(|n| *n > 0 && step.bytes().all(|b| b.is_ascii_digit()));
                (range, Some(n.ok_or_else(|| format!("step `{step}` is not a positive number"))?))
            }
        };
        if range == "*" {
            let high = if self.name == WEEKDAY.name { 6 } else { self.high };
            return Ok(mask(self.low, high, step.unwrap_or(1)));
        }
        let Some((from, to)) = range.split_once('-') else {
            if step.is_some() {
                return Err(format!("a step needs a range or `*` before it, not `{range}`"));
            }
            let value = self.value(range)?;
            return Ok(mask(value, value, 1));
        };
        let from = self.value(from)?;
        let mut to = self.value(to)?;
        // `sat-sun`: Sunday ends the week when a range closes with it.
        if self.name == WEEKDAY.name && to == 0 && from > 0 {
            to = 7;
        }
        if from > to {
            return Err(format!("range `{range}` runs backwards"));
        }
        Ok(mask(from, to, step.unwrap_or(1)))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .filter(|n| (self.low..=self.high).contains(n))
                .ok_or_else(|| format!("`{text}` is not in {}-{}", self.low, self.high));
        }
        let lower = text.to_ascii_lowercase();
        (self.first_name..)
            .zip(self.names)
            .find_map(|(number, name)| (*name == lower).then_some(number))
            .ok_or_else(|| format!("`{text}` is not a value"))
    }
}

fn mask(from: u32, to: u32, step: u32) -> u64 {
    (from..=to).step_by(step as usize).fold(0, |set, bit| set | (1 << bit))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    // 2026-08-03 is a Monday.
    #[test_case("* 8-15 * * mon-fri", "2026-08-03T08:00:00", true; "office hours begin")]
    #[test_case("* 8-15 * * mon-fri", "2026-08-07T15:59:59", true; "office hours last to the last second")]
    #[test_case("* 8-15 * * mon-fri", "2026-08-07T16:00:00", false; "office hours are over")]
    #[test_case("* 8-15 * * mon-fri", "2026-08-03T07:59:59", false; "office hours have not begun")]
    #[test_case("* 8-15 * * mon-fri", "2026-08-08T10:00:00", false; "saturday is no office day")]
    #[test_case("* 8-15 * * MON-Fri", "2026-08-03T10:00:00", true; "names are case insensitive")]
    #[test_case("* 0-12 * * *", "2026-08-03T12:59:59", true; "the thirteenth hour is inside")]
    #[test_case("* 0-12 * * *", "2026-08-03T13:00:00", false; "after the thirteenth hour")]
    #[test_case("0-30 13,16 * * SUN", "2026-08-09T13:30:59", true; "both end minutes are inclusive")]
    #[test_case("0-30 13,16 * * SUN", "2026-08-09T13:31:00", false; "minute 31 is outside")]
    #[test_case("0-30 13,16 * * SUN", "2026-08-09T16:00:00", true; "second hour of the list")]
    #[test_case("0-30 13,16 * * SUN", "2026-08-09T14:10:00", false; "between the hours of the list")]
    #[test_case("1 * * * *", "2026-08-03T05:01:59", true; "one minute of each hour")]
    #[test_case("1 * * * *", "2026-08-03T05:02:00", false; "the next minute is outside")]
    #[test_case("* * * * 1", "2026-08-03T23:59:59", true; "all monday")]
    #[test_case("* * * * 1", "2026-08-04T00:00:00", false; "tuesday")]
    #[test_case("* * * * 0", "2026-08-09T12:00:00", true; "zero is sunday")]
    #[test_case("* * * * 7", "2026-08-09T12:00:00", true; "seven is sunday")]
    #[test_case("* * * * sat-sun", "2026-08-09T12:00:00", true; "the week may end on sunday")]
    #[test_case("* * * * 5-7", "2026-08-09T12:00:00", true; "range to seven")]
    #[test_case("* * * * sun-tue", "2026-08-04T12:00:00", true; "the week may begin on sunday")]
    #[test_case("* 0-12/2 * * *", "2026-08-03T12:30:00", true; "step over a range includes its end")]
    #[test_case("* 0-12/2 * * *", "2026-08-03T11:30:00", false; "step skips odd hours")]
    #[test_case("*/15 * * * *", "2026-08-03T11:45:10", true; "step over a star")]
    #[test_case("*/15 * * * *", "2026-08-03T11:46:10", false; "between the steps")]
    #[test_case("1,2,6-9 * * * *", "2026-08-03T11:08:00", true; "range within a list")]
    #[test_case("1,2,6-9 * * * *", "2026-08-03T11:05:00", false; "gap within a list")]
    #[test_case("* * 1 * mon", "2026-08-03T10:00:00", true; "either day field matches by weekday")]
    #[test_case("* * 1 * mon", "2026-08-01T10:00:00", true; "either day field matches by date")]
    #[test_case("* * 1 * mon", "2026-08-04T10:00:00", false; "neither day field matches")]
    #[test_case("* * */2 * mon", "2026-08-03T10:00:00", true; "a stepped star stays a restriction of both")]
    #[test_case("* * */2 * mon", "2026-08-10T10:00:00", false; "a stepped star and the weekday must both match")]
    #[test_case("* * * aug *", "2026-08-31T10:00:00", true; "month by name")]
    #[test_case("* * * 9 *", "2026-08-31T10:00:00", false; "other month")]
    #[test_case("* * 29 2 *", "2028-02-29T10:00:00", true; "leap day")]
    fn period(pattern: &str, local: &str, inside: bool) {
        let period: Period = pattern.parse().unwrap();
        assert_eq!(period.contains(local.parse().unwrap()), inside);
    }

    #[test_case(
        "* * * *",
        "invalid period `* * * *`: expected 5 fields (minute hour day-of-month month day-of-week), found 4"
    )]
    #[test_case(
        "1 * * * * *",
        "invalid period `1 * * * * *`: expected 5 fields (minute hour day-of-month month day-of-week), found 6"
    )]
    #[test_case(
        "",
        "invalid period ``: expected 5 fields (minute hour day-of-month month day-of-week), found 0"
    )]
    #[test_case("60 * * * *", "invalid period `60 * * * *`: minute field `60`: `60` is not in 0-59")]
    #[test_case("* 24 * * *", "invalid period `* 24 * * *`: hour field `24`: `24` is not in 0-23")]
    #[test_case("* * 0 * *", "invalid period `* * 0 * *`: day-of-month field `0`: `0` is not in 1-31")]
    #[test_case("* * * 13 *", "invalid period `* * * 13 *`: month field `13`: `13` is not in 1-12")]
    #[test_case("* * * * 8", "invalid period `* * * * 8`: day-of-week field `8`: `8` is not in 0-7")]
    #[test_case(
        "* * * * moon",
        "invalid period `* * * * moon`: day-of-week field `moon`: `moon` is not a value"
    )]
    #[test_case(
        "* 17-9 * * *",
        "invalid period `* 17-9 * * *`: hour field `17-9`: range `17-9` runs backwards"
    )]
    #[test_case(
        "5/10 * * * *",
        "invalid period `5/10 * * * *`: minute field `5/10`: a step needs a range or `*` before it, not `5`"
    )]
    #[test_case(
        "*/0 * * * *",
        "invalid period `*/0 * * * *`: minute field `*/0`: step `0` is not a positive number"
    )]
    #[test_case("1,,2 * * * *", "invalid period `1,,2 * * * *`: minute field `1,,2`: `` is not a value")]
    fn refuses(pattern: &str, message: &str) {
        assert_eq!(pattern.parse::<Period>().unwrap_err().to_string(), message);
    }

    #[test]
    fn only_full_patterns_are_always() {
        assert!(Period::always().is_always());
        assert!("0-59 * * * 0-6".parse::<Period>().unwrap().is_always());
        assert!(!"* * * * 1-6".parse::<Period>().unwrap().is_always());
    }
}
