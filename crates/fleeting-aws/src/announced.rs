//! What AWS tells an instance about its end: documents of the metadata service, and the same from EC2's calls.
//!
//! A document comes from a machine that runs jobs, so it is read strictly, and nothing of it is shown but words that are known
//! here to be harmless.

use std::time::{Duration, SystemTime};

use aws_sdk_ec2::types::{InstanceStatusEvent, SpotInstanceStatus};
use chrono::{DateTime, Utc};
use fleeting::{Doom, DoomKind};
use serde_json::Value;

/// Scheduled events that stop what runs on an instance.
pub(crate) const EVENTS: [&str; 5] =
    ["instance-retirement", "instance-stop", "instance-reboot", "system-reboot", "system-maintenance"];

/// Spot requests in these states lose their instance within two minutes.
pub(crate) const SPOT_MARKS: [&str; 5] = [
    "marked-for-termination",
    "marked-for-stop",
    "marked-for-termination-by-experiment",
    "marked-for-stop-by-experiment",
    "request-canceled-and-instance-running-marked-for-termination",
];

/// From the mark of a spot request to the end of its instance.
const SPOT_NOTICE: Duration = Duration::from_secs(120);
/// Longest word that is shown.
const LONGEST_WORD: usize = 40;

/// A document is not what AWS documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document `{0}` is not what AWS documents")]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// `spot/instance-action`: `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`.
pub(crate) fn instance_action(document: &[u8]) -> Result<Doom, Unreadable> {
    let read = || {
        let document: Value = serde_json::from_slice(document).ok()?;
        let action = word(&document, "action")?;
        let at = DateTime::parse_from_rfc3339(document.get("time")?.as_str()?).ok()?;
        Some(spot(&action).at(SystemTime::from(at)))
    };
    read().ok_or(Unreadable("spot/instance-action"))
}

/// `events/recommendations/rebalance`: `{"noticeTime": "2020-10-26T09:22:45Z"}`. The moment is that of the recommendation.
pub(crate) fn rebalance(document: &[u8]) -> Result<Doom, Unreadable> {
    let read = || {
        let document: Value = serde_json::from_slice(document).ok()?;
        DateTime::parse_from_rfc3339(document.get("noticeTime")?.as_str()?).ok()?;
        Some(Doom::new(DoomKind::Rebalance, "rebalance recommendation"))
    };
    read().ok_or(Unreadable("events/recommendations/rebalance"))
}

/// `events/maintenance/scheduled`: a list of `{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "State":
/// "active", ..}`. The first one that stops jobs.
pub(crate) fn scheduled(document: &[u8]) -> Result<Option<Doom>, Unreadable> {
    let one = |event: &Value| {
        let code = word(event, "Code")?;
        let at = DateTime::parse_from_rfc2822(event.get("NotBefore")?.as_str()?).ok()?.with_timezone(&Utc);
        let open = word(event, "State")? == "active" && EVENTS.contains(&code.as_str());
        Some(open.then_some((at, code)))
    };
    let read = || {
        let document: Value = serde_json::from_slice(document).ok()?;
        document.as_array()?.iter().map(one).collect::<Option<Vec<_>>>()
    };
    let events = read().ok_or(Unreadable("events/maintenance/scheduled"))?;
    Ok(events.into_iter().flatten().min().map(|(at, code)| maintenance(&code).at(SystemTime::from(at))))
}

/// A scheduled event as EC2 tells it.
pub(crate) fn of_event(event: &InstanceStatusEvent) -> Doom {
    let doom = maintenance(event.code().map_or("maintenance", |code| code.as_str()));
    match event.not_before().and_then(|at| SystemTime::try_from(*at).ok()) {
        Some(at) => doom.at(at),
        None => doom,
    }
}

/// The status of a spot request that loses its instance. The moment is not part of it, but two minutes after the mark.
pub(crate) fn of_request(status: Option<&SpotInstanceStatus>) -> Doom {
    let code = status.and_then(|status| status.code()).unwrap_or("marked");
    let doom = spot(code);
    // A request that its owner has cancelled has no such notice.
    let marked = status.filter(|_| code.starts_with("marked-for-")).and_then(|status| status.update_time());
    match marked.and_then(|at| SystemTime::try_from(*at).ok()) {
        Some(marked) => doom.at(marked + SPOT_NOTICE),
        None => doom,
    }
}

fn spot(what: &str) -> Doom {
    Doom::new(DoomKind::Interruption, format!("spot interruption notice ({what})"))
}

fn maintenance(code: &str) -> Doom {
    Doom::new(DoomKind::Maintenance, format!("AWS has scheduled {code}"))
}

/// A short word of lower-case letters and dashes.
fn word(of: &Value, key: &str) -> Option<String> {
    let word = of.get(key)?.as_str()?;
    let plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (plain && !word.is_empty() && word.len() <= LONGEST_WORD).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::primitives::DateTime as AwsTime;
    use test_case::test_case;

    use super::*;

    fn at(text: &str) -> SystemTime {
        SystemTime::from(DateTime::parse_from_rfc3339(text).unwrap())
    }

    #[test_case("terminate"; "terminate")]
    #[test_case("stop"; "stop")]
    #[test_case("hibernate"; "hibernate")]
    fn an_instance_action_has_a_moment(action: &str) {
        let document = format!(r#"{{"action": "{action}", "time": "2017-09-18T08:22:00Z"}}"#);
        let doom = instance_action(document.as_bytes()).unwrap();
        assert_eq!(doom.kind, DoomKind::Interruption);
        assert_eq!(doom.why, format!("spot interruption notice ({action})"));
        assert_eq!(doom.at, Some(at("2017-09-18T08:22:00Z")));
    }

    #[test_case(b"" ; "nothing")]
    #[test_case(b"<html></html>" ; "another document")]
    #[test_case(br#"{"action": "terminate"}"# ; "no moment")]
    #[test_case(br#"{"action": "terminate", "time": "soon"}"# ; "no moment that can be read")]
    #[test_case(br#"{"action": "terminate", "time": 1800000000}"# ; "a number")]
    #[test_case(b"{\"action\": \"\\u001b[31m\", \"time\": \"2017-09-18T08:22:00Z\"}" ; "control characters")]
    #[test_case(br#"{"action": "Job succeeded", "time": "2017-09-18T08:22:00Z"}"# ; "a sentence")]
    #[test_case(b"\xff\xfe" ; "no text")]
    fn anything_else_is_no_instance_action(document: &[u8]) {
        assert_eq!(instance_action(document), Err(Unreadable("spot/instance-action")));
    }

    #[test]
    fn a_recommendation_has_no_moment() {
        let doom = rebalance(br#"{"noticeTime": "2020-10-26T09:22:45Z"}"#).unwrap();
        assert_eq!((doom.kind, doom.at), (DoomKind::Rebalance, None));
        assert!(rebalance(b"{}").is_err());
    }

    #[test]
    fn the_first_open_event_counts() {
        let event = |code: &str, at: &str, state: &str| {
            format!(
                r#"{{"NotBefore": "{at}", "Code": "{code}", "Description": "x", "EventId": "y", "State": "{state}"}}"#
            )
        };
        let document = format!(
            "[{}, {}, {}, {}]",
            event("system-reboot", "21 Jan 2019 09:00:43 GMT", "active"),
            event("instance-stop", "2 Jan 2019 09:00:43 GMT", "active"),
            event("instance-stop", "1 Jan 2019 09:00:43 GMT", "completed"),
            event("some-new-thing", "1 Jan 2019 09:00:43 GMT", "active"),
        );
        let doom = scheduled(document.as_bytes()).unwrap().unwrap();
        assert_eq!(
            (doom.kind, doom.why.as_str()),
            (DoomKind::Maintenance, "AWS has scheduled instance-stop")
        );
        assert_eq!(doom.at, Some(at("2019-01-02T09:00:43Z")));
        assert_eq!(scheduled(b"[]"), Ok(None));
        for bad in [&b"{}"[..], br#"[{"Code": "system-reboot", "State": "active"}]"#, b"[1]"] {
            assert!(scheduled(bad).is_err());
        }
    }

    #[test]
    fn a_mark_of_a_spot_request_is_two_minutes_before_the_end() {
        let status = |code: &str| {
            SpotInstanceStatus::builder().code(code).update_time(AwsTime::from_secs(1_800_000_000)).build()
        };
        let marked = of_request(Some(&status("marked-for-termination")));
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_120);
        assert_eq!((marked.kind, marked.at), (DoomKind::Interruption, Some(end)));
        assert_eq!(marked.why, "spot interruption notice (marked-for-termination)");
        let canceled = "request-canceled-and-instance-running-marked-for-termination";
        assert_eq!(of_request(Some(&status(canceled))).at, None);
        assert_eq!(of_request(None).at, None);
    }
}
