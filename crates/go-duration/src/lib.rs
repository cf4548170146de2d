//! Durations as Go writes them: `20m0s`, `1.5h`, `24h`, `0`. GitLab, its configuration and its messages know no other form.
//!
//! ```
//! use std::time::Duration;
//! use drover_go_duration as go_duration;
//!
//! assert_eq!(go_duration::parse("1h30m")?, Duration::from_secs(5400));
//! assert_eq!(go_duration::format(Duration::from_secs(1200)), "20m0s");
//! assert_eq!(go_duration::parse("5").unwrap_err().to_string(), "invalid duration `5`: missing unit, write for example `5s`");
//! # Ok::<(), go_duration::DurationError>(())
//! ```

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration `{text}`: {problem}")]
pub struct DurationError {
    /// The offending text.
    pub text: String,
    /// What is wrong with it.
    pub problem: DurationProblem,
}

/// What is wrong with a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationProblem {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Settings measure waiting; less than nothing is a mistake.
    #[error("it is negative")]
    Negative,
    /// A number without a unit. Go reads it as nanoseconds, which nobody means.
    #[error("missing unit, write for example `{number}s`")]
    MissingUnit {
        /// The bare number.
        number: String,
    },
    /// Not one of Go's units.
    #[error("unknown unit `{unit}`, known are ns, us, ms, s, m and h (days are written as 24h)")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
    },
    /// No digits where a number must stand.
    #[error("expected a number at `{rest}`")]
    ExpectedNumber {
        /// What stands there.
        rest: String,
    },
    /// More than Go's 292 years.
    #[error("it is too long")]
    TooLong,
}

/// Reads Go's duration syntax: decimal numbers with units `ns`, `us` (`µs`), `ms`, `s`, `m`, `h`, added up. `0` needs no
/// unit. A leading `+` is accepted.
///
/// # Errors
/// [`DurationError`] names the text and the fault; negative durations are refused.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_nanos(text)
        .map(Duration::from_nanos)
        .map_err(|problem| DurationError { text: text.to_owned(), problem })
}

/// Writes a duration as Go prints it: `20m0s`, `1.5s`, `250ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return decimal(nanos, 1_000, "µs");
    }
    if nanos < 1_000_000_000 {
        return decimal(nanos, 1_000_000, "ms");
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000, "s");
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn decimal(nanos: u128, unit: u128, name: &str) -> String {
    let whole = nanos / unit;
    let fraction = nanos % unit;
    if fraction == 0 {
        return format!("{whole}{name}");
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}{name}", digits.trim_end_matches('0'))
}

fn parse_nanos(text: &str) -> Result<u64, DurationProblem> {
    if text.is_empty() {
        return Err(DurationProblem::Empty);
    }
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(DurationProblem::ExpectedNumber { rest: text.to_owned() });
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(DurationProblem::ExpectedNumber { rest: rest.to_owned() });
        }
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let scale: u128 = match unit {
            "" => return Err(DurationProblem::MissingUnit { number: number.to_owned() }),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(DurationProblem::UnknownUnit { unit: other.to_owned() }),
        };
        let whole: u128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationProblem::TooLong)? };
        total = whole
            .checked_mul(scale)
            .and_then(|n| n.checked_add(total))
            .and_then(|n| n.checked_add(fraction_of(fraction, scale)))
            .filter(|n| *n <= i64::MAX as u128)
            .ok_or(DurationProblem::TooLong)?;
        rest = next;
    }
    if negative && total > 0 {
        return Err(DurationProblem::Negative);
    }
    u64::try_from(total).map_err(|_| DurationProblem::TooLong)
}

/// `0.digits x scale`, cut to whole nanoseconds. Digits beyond the eighteenth cannot matter.
fn fraction_of(digits: &str, scale: u128) -> u128 {
    let mut value = 0;
    let mut divisor: u128 = 1;
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    value * scale / divisor
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("0", 0; "zero needs no unit")]
    #[test_case("0s", 0; "zero seconds")]
    #[test_case("20m0s", 1_200_000; "minutes and seconds")]
    #[test_case("1.5h", 5_400_000; "fraction of an hour")]
    #[test_case("24h", 86_400_000; "a day")]
    #[test_case("10m", 600_000; "ten minutes")]
    #[test_case("1h30m10s", 5_410_000; "three parts")]
    #[test_case("500ms", 500; "milliseconds")]
    #[test_case("1500us", 1; "microseconds cut to milliseconds here")]
    #[test_case(".5s", 500; "no digit before the point")]
    #[test_case("1.s", 1000; "no digit after the point")]
    #[test_case("+5s", 5000; "plus sign")]
    #[test_case("2000us", 2; "microseconds")]
    #[test_case("-0s", 0; "negative nothing is nothing")]
    fn reads(text: &str, millis: u128) {
        assert_eq!(parse(text).unwrap().as_millis(), millis);
    }

    #[test]
    fn both_micro_signs_are_read() {
        assert_eq!(parse("3µs").unwrap(), Duration::from_micros(3));
        assert_eq!(parse("3μs").unwrap(), Duration::from_micros(3));
    }

    #[test_case("", "invalid duration ``: it is empty")]
    #[test_case("30", "invalid duration `30`: missing unit, write for example `30s`")]
    #[test_case("1h30", "invalid duration `1h30`: missing unit, write for example `30s`")]
    #[test_case(
        "1d",
        "invalid duration `1d`: unknown unit `d`, known are ns, us, ms, s, m and h (days are written as 24h)"
    )]
    #[test_case(
        "5 m",
        "invalid duration `5 m`: unknown unit ` m`, known are ns, us, ms, s, m and h (days are written as 24h)"
    )]
    #[test_case("-5s", "invalid duration `-5s`: it is negative")]
    #[test_case("s", "invalid duration `s`: expected a number at `s`")]
    #[test_case("-", "invalid duration `-`: expected a number at `-`")]
    #[test_case("+", "invalid duration `+`: expected a number at `+`")]
    #[test_case("5s3", "invalid duration `5s3`: missing unit, write for example `3s`")]
    #[test_case("1.2.3s", "invalid duration `1.2.3s`: expected a number at `1.2.3s`")]
    #[test_case("1..5s", "invalid duration `1..5s`: expected a number at `1..5s`")]
    #[test_case(".s", "invalid duration `.s`: expected a number at `.s`")]
    #[test_case("3000000h", "invalid duration `3000000h`: it is too long")]
    #[test_case(
        "99999999999999999999999999999999999999999h",
        "invalid duration `99999999999999999999999999999999999999999h`: it is too long"
    )]
    fn refuses(text: &str, message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }

    #[test_case(0, "0s")]
    #[test_case(15, "15ns")]
    #[test_case(1_500, "1.5\u{b5}s"; "microseconds")]
    #[test_case(250_000_000, "250ms")]
    #[test_case(1_500_000_000, "1.5s")]
    #[test_case(1_200_000_000_000, "20m0s")]
    #[test_case(5_400_000_000_000, "1h30m0s")]
    #[test_case(86_400_000_000_000, "24h0m0s")]
    fn prints_as_go_does(nanos: u64, text: &str) {
        assert_eq!(format(Duration::from_nanos(nanos)), text);
        assert_eq!(parse(text).unwrap(), Duration::from_nanos(nanos));
    }
}
