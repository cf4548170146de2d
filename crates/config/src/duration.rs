//! Durations in Go's notation: numbers with units, such as `1h30m`, `1.5h`, `20m0s`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// A number without a unit.
    #[error("a unit is missing")]
    NoUnit,
    /// A unit that Go does not have.
    #[error("unit `{0}` is not known")]
    Unit(String),
    /// Below zero.
    #[error("it is negative")]
    Negative,
    /// Not a number where one should be.
    #[error("it is not a number with a unit")]
    Syntax,
    /// Longer than Go's 292 years.
    #[error("it is too long")]
    TooLong,
}

/// Parses Go's notation; `0` alone needs no unit.
///
/// # Errors
/// [`DurationError`] says which part is wrong.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(DurationError::Syntax);
        }
        let scale: u128 = match unit {
            "" => return Err(DurationError::NoUnit),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(DurationError::Unit(other.to_owned())),
        };
        let whole: u128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
        // Digits beyond the nanosecond of an hour cannot matter.
        let fraction = fraction.get(..fraction.len().min(18)).unwrap_or(fraction);
        let divisor = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| DurationError::Syntax)?);
        let fraction: u128 =
            if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| DurationError::Syntax)? };
        nanos = whole
            .checked_mul(scale)
            .and_then(|whole| nanos.checked_add(whole))
            .and_then(|sum| sum.checked_add(fraction * scale / divisor))
            .filter(|sum| *sum <= i64::MAX as u128)
            .ok_or(DurationError::TooLong)?;
        rest = tail;
    }
    if negative && nanos > 0 {
        return Err(DurationError::Negative);
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| DurationError::TooLong)
}

// === impl DurationError ===

impl DurationError {
    /// What to write in its place.
    #[must_use]
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoUnit => "add a unit: ms, s, m or h, for example \"30s\"",
            Self::Unit(unit) if unit.starts_with('d') || unit.starts_with('w') => {
                "there are no days or weeks; write hours, for example \"24h\""
            }
            Self::Unit(_) => "the units are ns, us, ms, s, m and h",
            Self::Negative => "times cannot be negative; remove the key for its default",
            Self::Syntax => "write numbers with units, for example \"1h30m\"",
            Self::TooLong => "the longest duration is about 292 years",
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("20m0s", 1_200_000)]
    #[test_case("24h", 86_400_000)]
    #[test_case("1.5h", 5_400_000)]
    #[test_case("0", 0)]
    #[test_case("0s", 0)]
    #[test_case("-0s", 0)]
    #[test_case("1h30m", 5_400_000)]
    #[test_case(".5s", 500)]
    #[test_case("+3ms", 3)]
    fn goes_notation_is_read(text: &str, millis: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(millis)));
    }

    #[test_case("20", &DurationError::NoUnit)]
    #[test_case("1d", &DurationError::Unit("d".into()))]
    #[test_case("-5s", &DurationError::Negative)]
    #[test_case("soon", &DurationError::Syntax)]
    #[test_case("", &DurationError::Syntax)]
    #[test_case("1.2.3s", &DurationError::Syntax)]
    #[test_case("3000000h", &DurationError::TooLong)]
    fn anything_else_is_refused_with_its_reason(text: &str, error: &DurationError) {
        assert_eq!(parse(text).as_ref(), Err(error));
    }
}
