//! Durations as Go writes them.

use std::time::Duration;

/// Reads `1h30m`, `1.5s`, `100ms` or `0`.
///
/// # Errors
/// The text for the user.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration such as `1h30m` or `10s`");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("1h30m", 5_400_000)]
    #[test_case("1.5s", 1500)]
    #[test_case("100ms", 100)]
    #[test_case("0", 0)]
    #[test_case("10m0s", 600_000; "as Go prints it")]
    fn durations(text: &str, ms: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(ms)));
    }

    #[test_case(""; "empty")]
    #[test_case("5"; "without a unit")]
    #[test_case("s"; "without a number")]
    #[test_case("-1s"; "negative")]
    #[test_case("1d"; "unit that Go does not know")]
    #[test_case("1.2.3s"; "two points")]
    fn no_durations(text: &str) {
        assert!(parse(text).is_err());
    }
}
