//! The time zone of the host, for periods that name none.

use std::path::Path;

use taskscaler_core::Zone;

/// The zone of the host, by name where it has one, so that daylight-saving changes are followed.
///
/// Reads the variable `TZ`, `/etc/localtime` and `/etc/timezone`; a host that says nothing there is taken at its present
/// offset from UTC.
#[must_use]
pub fn local_zone() -> Zone {
    let variable = std::env::var("TZ").ok();
    let link = std::fs::read_link("/etc/localtime").ok();
    let name = std::fs::read_to_string("/etc/timezone").ok();
    resolve_zone(variable.as_deref(), link.as_deref(), name.as_deref())
        .unwrap_or_else(|| Zone::Fixed(*chrono::Local::now().offset()))
}

/// The same, as a function of what the host says: the variable `TZ`, where `/etc/localtime` leads to, and the content of
/// `/etc/timezone`. The first that names a zone counts.
fn resolve_zone(variable: Option<&str>, link: Option<&Path>, name: Option<&str>) -> Option<Zone> {
    let named = |name: &str| name.trim().trim_start_matches(':').parse::<Zone>().ok();
    // By the rules of the C library an empty `TZ` is UTC.
    let from_variable =
        variable.and_then(|name| if name.is_empty() { Some(Zone::default()) } else { named(name) });
    let from_link = || {
        let target = link?.to_str()?;
        target.split_once("zoneinfo/").and_then(|(_, name)| named(name))
    };
    from_variable.or_else(from_link).or_else(|| name.and_then(named))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(Some("Europe/Berlin"), Some("/usr/share/zoneinfo/Asia/Tokyo"), None, Some("Europe/Berlin"); "the variable")]
    #[test_case(Some(":Europe/Berlin"), None, None, Some("Europe/Berlin"); "the variable with a colon")]
    #[test_case(Some(""), None, Some("Asia/Tokyo"), Some("UTC"); "an empty variable")]
    #[test_case(None, Some("../usr/share/zoneinfo/Asia/Tokyo"), Some("UTC"), Some("Asia/Tokyo"); "the link")]
    #[test_case(None, None, Some("Asia/Tokyo\n"), Some("Asia/Tokyo"); "the file")]
    #[test_case(Some("nonsense"), Some("/etc/other"), None, None; "nothing")]
    fn the_host_is_asked_in_order(
        variable: Option<&str>,
        link: Option<&str>,
        name: Option<&str>,
        zone: Option<&str>,
    ) {
        let found = resolve_zone(variable, link.map(Path::new), name);
        assert_eq!(found.map(|zone| zone.to_string()).as_deref(), zone);
    }
}
