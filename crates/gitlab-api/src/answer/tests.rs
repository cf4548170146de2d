//! Answers as GitLab gives them.

use http::{HeaderName, HeaderValue, Method};
use test_case::test_case;

use super::*;
use crate::ClientError;

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
    Answer {
        call: Call::new(Method::POST, "https://gitlab.test/api/v4/x".parse().unwrap()),
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect(),
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn patched(status: u16, headers: &[(&'static str, &'static str)]) -> PatchReply {
    patch(&answer(status, headers, ""), 100)
}

fn updated(status: u16, headers: &[(&'static str, &'static str)]) -> UpdateReply {
    update(&answer(status, headers, ""))
}

#[test]
fn patches_follow_the_table() {
    assert!(matches!(patched(202, &[]).outcome, PatchOutcome::Accepted { end: 100 }));
    assert!(matches!(patched(403, &[]).outcome, PatchOutcome::Abort));
    assert!(matches!(patched(404, &[]).outcome, PatchOutcome::NotFound));
    for status in [200, 400, 500, 503] {
        assert!(matches!(patched(status, &[]).outcome, PatchOutcome::Failed(_)), "{status}");
    }
}

#[test_case("0-17", 17; "the number of bytes held")]
#[test_case("0-0", 0; "nothing held")]
#[test_case("nonsense", 0; "unreadable")]
fn a_range_mismatch_says_where_to_go_on(range: &'static str, wanted: u64) {
    let reply = patched(416, &[("range", range)]);
    assert!(matches!(reply.outcome, PatchOutcome::RangeMismatch { offset } if offset == wanted));
}

#[test]
fn a_range_mismatch_without_range_starts_over() {
    assert!(matches!(patched(416, &[]).outcome, PatchOutcome::RangeMismatch { offset: 0 }));
}

#[test]
fn updates_follow_the_table() {
    assert!(matches!(updated(200, &[]).outcome, UpdateOutcome::Done));
    assert!(matches!(updated(202, &[]).outcome, UpdateOutcome::NotYet));
    assert!(matches!(updated(403, &[]).outcome, UpdateOutcome::Abort));
    assert!(matches!(updated(404, &[]).outcome, UpdateOutcome::NotFound));
    assert!(matches!(updated(412, &[]).outcome, UpdateOutcome::TraceMismatch));
    assert!(matches!(updated(500, &[]).outcome, UpdateOutcome::Failed(_)));
}

#[test_case("canceled")]
#[test_case("failed")]
fn a_job_that_is_over_aborts_whatever_the_status(state: &'static str) {
    for status in [200, 202, 404, 412, 416, 500] {
        let headers = [("job-status", state)];
        assert!(matches!(patched(status, &headers).outcome, PatchOutcome::Abort), "{status}");
        assert!(matches!(updated(status, &headers).outcome, UpdateOutcome::Abort), "{status}");
    }
}

#[test]
fn a_wish_to_cancel_comes_beside_the_outcome() {
    let reply = patched(202, &[("job-status", "canceling")]);
    assert!(reply.remote.wants_cancel());
    assert!(matches!(reply.outcome, PatchOutcome::Accepted { .. }));
    assert_eq!(updated(200, &[("job-status", "paused")]).remote, RemoteState::Unknown("paused".into()));
    assert_eq!(updated(200, &[("job-status", "running")]).remote, RemoteState::Running);
    assert_eq!(updated(200, &[]).remote, RemoteState::Absent);
}

#[test_case("3", Some(3))]
#[test_case("86400", Some(900); "capped at 15 minutes")]
#[test_case("0", None; "zero is ignored")]
#[test_case("-4", None; "negative is ignored")]
#[test_case("soon", None; "unreadable")]
fn update_intervals(text: &'static str, seconds: Option<u64>) {
    let reply = patched(202, &[("x-gitlab-trace-update-interval", text)]);
    assert_eq!(reply.interval, seconds.map(Duration::from_secs));
}

#[test]
fn job_requests_follow_the_table() {
    let outcome = |status| job(answer(status, &[], ""), "c", TlsMaterial::default);
    assert!(matches!(outcome(204), JobRequestOutcome::None));
    assert!(matches!(outcome(403), JobRequestOutcome::Forbidden));
    assert!(matches!(outcome(503), JobRequestOutcome::Unavailable));
    for status in [200, 409, 422, 500] {
        assert!(matches!(outcome(status), JobRequestOutcome::Failed(_)), "{status}");
    }
}

#[test]
fn only_refusals_and_client_errors_are_unhealthy() {
    let outcome = |status| job(answer(status, &[], ""), "c", TlsMaterial::default);
    assert!(!outcome(403).is_healthy());
    assert!(!JobRequestOutcome::Failed(ClientError::Scheme("ftp".into()).into()).is_healthy());
    for status in [201, 204, 409, 422, 500, 503] {
        assert!(outcome(status).is_healthy(), "{status}");
    }
}

#[test]
fn a_job_that_breaks_off_can_still_be_failed() {
    let body = r#"{"id": 7, "token": "glcbt-x", "steps": [{"name": "scr"#;
    let outcome = job(answer(201, &[], body), "c", TlsMaterial::default);
    let JobRequestOutcome::Undecodable { id, token, error } = outcome else { panic!("{outcome:?}") };
    assert_eq!((id, token.expose()), (7, "glcbt-x"));
    assert!(error.report().contains("the job is not JSON"), "{}", error.report());
    let hopeless = job(answer(201, &[], "<html>"), "c", TlsMaterial::default);
    assert!(matches!(hopeless, JobRequestOutcome::Failed(ApiError::Decode { .. })));
}

#[test]
fn a_received_job_prints_no_secret() {
    let body = r#"{"id": 7, "token": "sesame", "variables": [{"key": "K", "value": "sesame"}]}"#;
    let received = job(answer(201, &[], body), "c", TlsMaterial::default);
    assert!(matches!(received, JobRequestOutcome::Job(_)));
    assert!(!format!("{received:?}").contains("sesame"));
}

#[test_case("application/json", r#"{"message": "no"}"#, Some("no"); "text")]
#[test_case("application/json", r#"{"message": {"name": ["short", "odd"], "tags": ["many"]}}"#, Some("name: short; odd, tags: many"); "object of lists")]
#[test_case("application/json", r#"{"error": "tags is missing"}"#, Some("tags is missing"); "error member")]
#[test_case("application/xml", "<Error><Code>AccessDenied</Code><Message>Denied</Message></Error>", Some("AccessDenied: Denied"); "storage error")]
#[test_case("text/html", "<html>proxy</html>", None; "a page")]
#[test_case("application/json", r#"{"message": "a\nb"}"#, Some("a b"); "one line")]
fn words_of_an_error(kind: &'static str, body: &'static str, wanted: Option<&str>) {
    let error = failure(&answer(409, &[("content-type", kind)], body));
    let text = match wanted {
        Some(words) => format!("POST https://gitlab.test/api/v4/x: 409 Conflict ({words})"),
        None => "POST https://gitlab.test/api/v4/x: 409 Conflict".to_owned(),
    };
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_redirect_names_the_place_without_its_secrets() {
    let error = failure(&answer(302, &[("location", "https://u:p@other.test/y?sig=s")], ""));
    assert_eq!(
        error.to_string(),
        "POST https://gitlab.test/api/v4/x: redirected to https://other.test/y; set `url` to the address that GitLab itself uses"
    );
}

#[test]
fn registration_and_verification_follow_the_table() {
    let record = r#"{"id": 3, "token": "glrt-n", "token_expires_at": "2030-01-01T00:00:00.000Z"}"#;
    let runner = registered(&answer(201, &[], record)).unwrap();
    assert_eq!((runner.id, runner.token.expose()), (3, "glrt-n"));
    assert_eq!(runner.token_expires_at, Some("2030-01-01T00:00:00Z".parse().unwrap()));
    assert!(matches!(registered(&answer(403, &[], "")), Err(RunnerCallError::Forbidden(_))));
    assert!(matches!(registered(&answer(410, &[], "")), Err(RunnerCallError::Failed(_))));
    assert!(matches!(verified(&answer(200, &[], record)), Verification::Valid(r) if r.id == 3));
    assert!(matches!(verified(&answer(200, &[], "200")), Verification::Valid(r) if r.id == 0));
    assert!(matches!(verified(&answer(403, &[], "")), Verification::Invalid));
    assert!(matches!(verified(&answer(500, &[], "")), Verification::Unknown(_)));
    assert!(removed(&answer(204, &[], "")).is_ok());
    assert!(matches!(removed(&answer(403, &[], "")), Err(RunnerCallError::Forbidden(_))));
    assert!(matches!(removed(&answer(404, &[], "")), Err(RunnerCallError::Failed(_))));
}

#[test_case(r#"{"token": "t", "token_expires_at": null}"#; "null")]
#[test_case(r#"{"token": "t"}"#; "missing")]
#[test_case(r#"{"token": "t", "token_expires_at": "0001-01-01T00:00:00Z"}"#; "zero time")]
fn tokens_without_end(body: &'static str) {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let token = reset(&answer(201, &[], body), now).unwrap();
    assert_eq!((token.expires_at, token.obtained_at), (None, now));
}

#[test]
fn a_reset_without_a_token_is_a_failure() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    assert!(matches!(reset(&answer(201, &[], "{}"), now), Err(RunnerCallError::Failed(_))));
    assert!(matches!(reset(&answer(403, &[], "{}"), now), Err(RunnerCallError::Forbidden(_))));
}

#[test]
fn a_router_is_found_or_not_there() {
    let found = discovered(&answer(200, &[], r#"{"server_url": "grpcs://kas.test"}"#)).unwrap();
    assert_eq!(found.as_deref(), Some("grpcs://kas.test"));
    assert_eq!(discovered(&answer(501, &[], "")).unwrap(), None);
    assert!(discovered(&answer(403, &[], "")).is_err());
}
