//! Time zones: what clocks show where the people are.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tz::TimeZoneRef;

/// A place on earth, as far as clocks are concerned. The host's local zone is resolved by the caller: reading it is I/O.
///
/// ```
/// use drover_taskscaler_core::Zone;
///
/// let berlin: Zone = "Europe/Berlin".parse()?;
/// let summer = "2026-08-03T06:00:00Z".parse()?;
/// assert_eq!(berlin.local(summer).to_string(), "2026-08-03 08:00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// A zone of the embedded IANA database.
    Named(NamedZone),
    /// A constant offset from UTC.
    Fixed(FixedOffset),
}

/// A zone of the embedded IANA database, by its exact name.
///
/// The database is read where it lies in the program: tables with pointers in them would be copied at every start, some 0.9 MiB.
#[derive(Clone, Copy)]
pub struct NamedZone {
    name: &'static str,
    rules: &'static TimeZoneRef<'static>,
}

/// An unknown time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone `{name}`, expected an IANA name such as `Europe/Berlin`")]
pub struct ZoneError {
    /// The offending name.
    pub name: String,
}

/// So long before or after a change of clocks even the largest one there was, of a whole day, is not in sight.
const FAR_FROM_A_CHANGE: TimeDelta = TimeDelta::days(2);

// === impl Zone ===

impl Zone {
    /// What clocks show there.
    #[must_use]
    pub fn local(self, at: DateTime<Utc>) -> NaiveDateTime {
        at.with_timezone(&self.offset(at)).naive_local()
    }

    /// When clocks show this there for the first time. None while they leap over it.
    ///
    /// ```
    /// use drover_taskscaler_core::Zone;
    ///
    /// let berlin: Zone = "Europe/Berlin".parse()?;
    /// let first = |local: &str| Ok::<_, chrono::ParseError>(berlin.first(local.parse()?).map(|at| at.to_string()));
    /// assert_eq!(first("2026-10-25T02:30:00")?.as_deref(), Some("2026-10-25 00:30:00 UTC"));
    /// assert_eq!(first("2026-03-29T02:30:00")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn first(self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        // The offset is the one before a change that may be near, or the one after it.
        let candidates = [local.and_utc() - FAR_FROM_A_CHANGE, local.and_utc() + FAR_FROM_A_CHANGE]
            .map(|near| local.and_utc() - TimeDelta::seconds(self.offset(near).local_minus_utc().into()));
        candidates.into_iter().filter(|at| self.local(*at) == local).min()
    }

    fn offset(self, at: DateTime<Utc>) -> FixedOffset {
        match self {
            Self::Named(zone) => zone.offset(at),
            Self::Fixed(offset) => offset,
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::Named(NamedZone { name: "UTC", rules: &tzdb_data::time_zone::UTC })
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        NamedZone::find(name)
            .map(Self::Named)
            .or_else(|| name.parse().map(Self::Fixed).ok())
            .ok_or_else(|| ZoneError { name: name.to_owned() })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(zone) => f.write_str(zone.name),
            Self::Fixed(offset) => offset.fmt(f),
        }
    }
}

impl Serialize for Zone {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

// === impl NamedZone ===

impl NamedZone {
    fn find(name: &str) -> Option<Self> {
        // The search by name does not tell upper case from lower case; what is shown is what was written.
        let name = tzdb_data::TZ_NAMES.iter().find(|known| **known == name)?;
        Some(Self { name, rules: tzdb_data::find_tz(name.as_bytes())? })
    }

    fn offset(self, at: DateTime<Utc>) -> FixedOffset {
        // Fails only for years that no `DateTime` has.
        let seconds = self.rules.find_local_time_type(at.timestamp()).map_or(0, tz::LocalTimeType::ut_offset);
        FixedOffset::east_opt(seconds).unwrap_or(Utc.fix())
    }
}

impl PartialEq for NamedZone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for NamedZone {}

impl fmt::Debug for NamedZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn zones_are_named_or_offsets() {
        for name in ["Asia/Tokyo", "America/Argentina/Buenos_Aires", "UTC", "EST5EDT", "+05:45"] {
            assert_eq!(name.parse::<Zone>().unwrap().to_string(), name);
        }
        assert_eq!("UTC".parse(), Ok(Zone::default()));
        for name in ["Mars/Olympus", "europe/berlin", ""] {
            let error = name.parse::<Zone>().unwrap_err().to_string();
            let expected =
                format!("unknown time zone `{name}`, expected an IANA name such as `Europe/Berlin`");
            assert_eq!(error, expected);
        }
    }

    #[test_case("Europe/Berlin", "2026-03-29T00:59:59Z" => "2026-03-29 01:59:59"; "before clocks go forward")]
    #[test_case("Europe/Berlin", "2026-03-29T01:00:00Z" => "2026-03-29 03:00:00"; "and after")]
    #[test_case("Europe/Berlin", "2060-07-01T00:00:00Z" => "2060-07-01 02:00:00"; "the rules go on")]
    #[test_case("America/Sao_Paulo", "2018-12-01T00:00:00Z" => "2018-11-30 22:00:00"; "summer time of the past")]
    #[test_case("America/Sao_Paulo", "2026-12-01T00:00:00Z" => "2026-11-30 21:00:00"; "which is no more")]
    #[test_case("Asia/Kathmandu", "2026-08-03T00:00:00Z" => "2026-08-03 05:45:00"; "quarters of hours")]
    #[test_case("Australia/Lord_Howe", "2026-01-01T00:00:00Z" => "2026-01-01 11:00:00"; "summer of the south")]
    #[test_case("Australia/Lord_Howe", "2026-07-01T00:00:00Z" => "2026-07-01 10:30:00"; "half an hour less in winter")]
    #[test_case("Africa/Casablanca", "2026-03-01T12:00:00Z" => "2026-03-01 12:00:00"; "Ramadan")]
    #[test_case("Africa/Casablanca", "2026-06-01T12:00:00Z" => "2026-06-01 13:00:00"; "after Ramadan")]
    #[test_case("-03:00", "2026-08-03T00:00:00Z" => "2026-08-02 21:00:00"; "an offset")]
    fn local(zone: &str, at: &str) -> String {
        zone.parse::<Zone>().unwrap().local(at.parse().unwrap()).to_string()
    }

    // Clocks in Apia went from the end of 29 December 2011 to the begin of the 31st.
    #[test_case("Pacific/Apia", "2011-12-30T12:00:00" => None; "a day that never was")]
    #[test_case("Pacific/Apia", "2011-12-29T23:59:59" => Some("2011-12-30 09:59:59 UTC".to_owned()); "the last second before it")]
    #[test_case("Pacific/Apia", "2011-12-31T00:00:00" => Some("2011-12-30 10:00:00 UTC".to_owned()); "the first one after it")]
    #[test_case("Asia/Beirut", "2023-03-26T00:30:00" => None; "an hour that never was")]
    #[test_case("America/New_York", "2026-11-01T01:30:00" => Some("2026-11-01 05:30:00 UTC".to_owned()); "of two, the first")]
    #[test_case("+05:45", "2026-08-03T05:45:00" => Some("2026-08-03 00:00:00 UTC".to_owned()); "an offset")]
    fn first(zone: &str, local: &str) -> Option<String> {
        zone.parse::<Zone>().unwrap().first(local.parse().unwrap()).map(|at| at.to_string())
    }

    #[test]
    fn every_name_of_the_database_has_rules_for_this_century() {
        for name in tzdb_data::TZ_NAMES {
            let zone = name.parse::<Zone>().unwrap();
            for at in [0, 1_800_000_000, 4_102_444_800] {
                let at = DateTime::from_timestamp(at, 0).unwrap();
                let Zone::Named(named) = zone else { panic!("{name} has no rules") };
                assert!(named.rules.find_local_time_type(at.timestamp()).is_ok(), "{name} at {at}");
                assert_eq!(zone.first(zone.local(at)), Some(at), "{name} at {at}");
            }
        }
    }
}
