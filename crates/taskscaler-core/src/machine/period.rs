//! Periods of docker+machine: cron patterns of up to seven fields, the first being seconds and the last the year.

use crate::period::{Period, PeriodError};

/// Why a text is not a period that can be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachinePeriodError {
    /// Not five to seven fields.
    #[error(
        "invalid period `{period}`: expected 7 fields (second minute hour day-of-month month day-of-week year), found {found}"
    )]
    FieldCount {
        /// The whole text.
        period: String,
        /// How many there are.
        found: usize,
    },
    /// Certain years only.
    #[error("period `{period}`: the year field `{year}` is not supported, write `*`")]
    Year {
        /// The whole text.
        period: String,
        /// The field.
        year: String,
    },
    /// `L`, `W` or `#`.
    #[error(
        "period `{period}`: `L`, `W` and `#` are not supported in `{field}`, write the days as numbers or names"
    )]
    Special {
        /// The whole text.
        period: String,
        /// The field.
        field: String,
    },
    /// One of the five fields between.
    #[error(transparent)]
    Field(#[from] PeriodError),
}

/// Reads a period of `[[runners.machine.autoscaling]]`.
///
/// Seven fields are seconds, the five of [`Period`], and the year; six have no seconds, five neither seconds nor year;
/// `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` are the minute in which they fire. Seconds are read as `*`
/// whatever they are: GitLab Runner compares the moment with the firing times to one second, so that a pattern without
/// seconds holds for about a second of each minute there, and one with `*` leaves out the last second of its last minute.
///
/// ```
/// use drover_taskscaler_core::machine::machine_period;
///
/// assert_eq!(machine_period("* * 9-17 * * mon-fri *")?.as_str(), "* 9-17 * * mon-fri");
/// assert_eq!(machine_period("* 9-17 * * mon-fri *")?.as_str(), "* 9-17 * * mon-fri");
/// assert!(machine_period("* * * * * * 2027").is_err());
/// # Ok::<(), drover_taskscaler_core::machine::MachinePeriodError>(())
/// ```
///
/// # Errors
/// [`MachinePeriodError`], also for patterns that GitLab Runner knows and this scaler does not: years, `L`, `W`, `#`.
pub fn machine_period(text: &str) -> Result<Period, MachinePeriodError> {
    let text = match text.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    };
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let (five, year) = match fields[..] {
        [_, ref five @ .., year] if five.len() == 5 => (five, year),
        [ref five @ .., year] if five.len() == 5 => (five, year),
        ref five if five.len() == 5 => (five, "*"),
        _ => return Err(MachinePeriodError::FieldCount { period: text.to_owned(), found: fields.len() }),
    };
    if !matches!(year, "*" | "?") {
        return Err(MachinePeriodError::Year { period: text.to_owned(), year: year.to_owned() });
    }
    for (index, field) in five.iter().enumerate() {
        let upper = field.to_ascii_uppercase();
        let days = matches!(index, 2 | 4);
        let names = ["JUL", "WED"];
        let special = upper.contains('#')
            || upper
                .split(',')
                .any(|part| part.contains(['L', 'W']) && !names.iter().any(|name| part.contains(name)));
        if days && special {
            return Err(MachinePeriodError::Special { period: text.to_owned(), field: (*field).to_owned() });
        }
    }
    // `?` is how such patterns write "any day".
    let five: Vec<&str> = five.iter().map(|field| if *field == "?" { "*" } else { field }).collect();
    Ok(five.join(" ").parse()?)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("* * 9-17 * * mon-fri *" => Ok("* 9-17 * * mon-fri".to_owned()); "seven fields")]
    #[test_case("0 0-29 9 ? * sat,sun *" => Ok("0-29 9 * * sat,sun".to_owned()); "seconds are any")]
    #[test_case("* 9-17 * * mon-fri *" => Ok("* 9-17 * * mon-fri".to_owned()); "six fields end with the year")]
    #[test_case("* 9-17 * * wed" => Ok("* 9-17 * * wed".to_owned()); "five fields, and a day with a W")]
    #[test_case("@daily" => Ok("0 0 * * *".to_owned()); "a word")]
    #[test_case("* * * *" => Err("invalid period `* * * *`: expected 7 fields (second minute hour day-of-month month day-of-week year), found 4".to_owned()); "four fields")]
    #[test_case("* * * * * * 2026-2027" => Err("period `* * * * * * 2026-2027`: the year field `2026-2027` is not supported, write `*`".to_owned()); "years")]
    #[test_case("* * * L * * *" => Err("period `* * * L * * *`: `L`, `W` and `#` are not supported in `L`, write the days as numbers or names".to_owned()); "the last day")]
    #[test_case("* * * * * fri#2 *" => Err("period `* * * * * fri#2 *`: `L`, `W` and `#` are not supported in `fri#2`, write the days as numbers or names".to_owned()); "the second friday")]
    #[test_case("* * 25 * * * *" => Err("invalid period `* 25 * * *`: hour field `25`: `25` is not in 0-23".to_owned()); "a bad hour")]
    fn periods(text: &str) -> Result<String, String> {
        machine_period(text).map(|period| period.as_str().to_owned()).map_err(|error| error.to_string())
    }
}
