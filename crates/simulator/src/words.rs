//! Numbers as people read them.

use std::time::Duration;

/// `1h5m`, `2m10s`, `3.2s`, `0s`: two units at most.
pub(crate) fn span(span: Duration) -> String {
    let millis = span.as_millis();
    let seconds = (millis + 500) / 1_000;
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 10_000 {
        return format!("{}s", trimmed(millis.div_ceil(100), 1));
    }
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, 0, rest) => format!("{rest}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, rest) => format!("{minutes}m{rest}s"),
        (hours, 0, _) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

/// Millionths as a sum of money.
pub(crate) fn money(micros: u64) -> String {
    let cents = (micros + 5_000) / 10_000;
    format!("{}.{:02}", thousands(cents / 100), cents % 100)
}

/// Digits in groups of three.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `count` of something, in the plural where it is.
pub(crate) fn count(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", thousands(number))
}

fn trimmed(scaled: u128, places: u32) -> String {
    let unit = 10_u128.pow(places);
    match scaled % unit {
        0 => (scaled / unit).to_string(),
        rest => format!("{}.{rest}", scaled / unit),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(0 => "0s")]
    #[test_case(40 => "0.1s"; "never shown as nothing")]
    #[test_case(3_200 => "3.2s")]
    #[test_case(40_000 => "40s")]
    #[test_case(130_400 => "2m10s")]
    #[test_case(3_900_000 => "1h5m")]
    fn spans(millis: u64) -> String {
        span(Duration::from_millis(millis))
    }

    #[test_case(1_234_565_000 => "1,234.57")]
    #[test_case(0 => "0.00")]
    fn sums(micros: u64) -> String {
        money(micros)
    }
}
