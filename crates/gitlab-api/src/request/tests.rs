//! Requests as GitLab wants them.

use serde_json::{Value, json};

use super::*;
use crate::{Features, InfoFields};

fn info() -> Arc<RunnerInfo> {
    let fields = InfoFields { name: "drover".into(), features: Features::INSTANCE, ..InfoFields::default() };
    Arc::new(RunnerInfo::new(fields).unwrap())
}

fn job() -> JobCredentials {
    JobCredentials { id: 42, token: "glcbt-job".into() }
}

fn body(request: &ApiRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn header<'r>(request: &'r ApiRequest, name: &str) -> Option<&'r str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

fn poll(long_poll: bool) -> JobRequest {
    JobRequest {
        token: "glrt-t".into(),
        system_id: "s_0123456789ab".into(),
        info: info(),
        session: None,
        long_poll,
    }
}

#[test]
fn a_job_request_carries_the_token_twice() {
    let request = job_request(&poll(true), None).unwrap();
    assert_eq!((request.endpoint.method().as_str(), request.path.as_str()), ("POST", "jobs/request"));
    assert_eq!(header(&request, "runner-token"), Some("glrt-t"));
    assert_eq!(header(&request, "content-type"), Some("application/json"));
    assert_eq!(header(&request, "accept"), Some("application/json"));
    let body = body(&request);
    assert_eq!(body["token"], "glrt-t");
    assert_eq!(body["system_id"], "s_0123456789ab");
    assert_eq!(body["info"]["features"]["shared"], true);
    assert_eq!((body.get("last_update"), body.get("session")), (None, None));
}

#[test]
fn the_cursor_is_echoed_only_for_long_polls() {
    assert_eq!(body(&job_request(&poll(true), Some("c1")).unwrap())["last_update"], "c1");
    assert_eq!(body(&job_request(&poll(false), Some("c1")).unwrap()).get("last_update"), None);
    assert_eq!(body(&job_request(&poll(true), Some("")).unwrap()).get("last_update"), None);
}

#[test]
fn a_session_is_sent_but_never_printed() {
    let session =
        Session { url: "https://r:8093".into(), certificate: "PEM".into(), authorization: "s3cret".into() };
    let request = JobRequest { session: Some(session), ..poll(true) };
    let sent = body(&job_request(&request, None).unwrap());
    assert_eq!(
        sent["session"],
        json!({"url": "https://r:8093", "certificate": "PEM", "authorization": "s3cret"})
    );
    assert!(!format!("{request:?}").contains("s3cret"));
}

#[test]
fn a_final_update_says_everything() {
    let update = JobUpdate {
        state: JobState::Failed,
        failure_reason: Some("script_failure".into()),
        checksum: Some("crc32:0000abcd".into()),
        bytesize: Some(7),
        exit_code: Some(2),
        info: info(),
    };
    let request = job_update(&job(), &update).unwrap();
    assert_eq!((request.endpoint.method().as_str(), request.path.as_str()), ("PUT", "jobs/42"));
    assert_eq!((header(&request, "job-token"), header(&request, "accept")), (Some("glcbt-job"), None));
    let mut sent = body(&request);
    sent["info"].take();
    assert_eq!(
        sent,
        json!({"info": null, "token": "glcbt-job", "state": "failed", "failure_reason": "script_failure",
               "checksum": "crc32:0000abcd", "output": {"checksum": "crc32:0000abcd", "bytesize": 7}, "exit_code": 2})
    );
}

#[test]
fn what_says_nothing_is_left_out_but_output_stays() {
    let update = JobUpdate {
        state: JobState::Running,
        failure_reason: None,
        checksum: None,
        bytesize: Some(0),
        exit_code: Some(0),
        info: info(),
    };
    let mut sent = body(&job_update(&job(), &update).unwrap());
    sent["info"].take();
    assert_eq!(sent, json!({"info": null, "token": "glcbt-job", "state": "running", "output": {}}));
}

#[test]
fn a_patch_names_its_first_and_last_byte_and_shares_its_bytes() {
    let bytes = Bytes::from_static(b"hello");
    let request = trace_patch(&job(), 10, bytes.clone(), true).unwrap();
    assert_eq!(request.path, "jobs/42/trace?debug_trace=true");
    assert_eq!(header(&request, "content-range"), Some("10-14"));
    assert_eq!(header(&request, "content-type"), Some("text/plain"));
    assert_eq!(request.body.as_ptr(), bytes.as_ptr());
}

#[test]
fn registration_without_tags_takes_untagged_jobs() {
    let request = register(&"r".into(), &RegisterRequest::default(), &info()).unwrap();
    let mut sent = body(&request);
    sent["info"].take();
    assert_eq!(
        sent,
        json!({"run_untagged": true, "locked": false, "paused": false, "info": null, "token": "r"})
    );
    let tagged = RegisterRequest { tag_list: "a,b".into(), maximum_timeout: 60, ..Default::default() };
    let sent = body(&register(&"r".into(), &tagged, &info()).unwrap());
    assert_eq!(
        (&sent["run_untagged"], &sent["tag_list"], &sent["maximum_timeout"]),
        (&json!(false), &json!("a,b"), &json!(60))
    );
}

#[test]
fn verification_always_carries_info() {
    let sent = body(&verify(&"glrt-t".into(), "s_1", &info()).unwrap());
    assert_eq!((&sent["info"]["name"], &sent["system_id"]), (&json!("drover"), &json!("s_1")));
}

#[test]
fn tokens_are_reset_by_body_or_by_personal_access_token() {
    let own = reset_token(&"glrt-t".into()).unwrap();
    assert_eq!(own.body, r#"{"token":"glrt-t"}"#);
    assert_eq!((header(&own, "runner-token"), header(&own, "private-token")), (None, None));
    let pat = reset_token_with_pat(9, &"glpat-x".into()).unwrap();
    assert_eq!((pat.path.as_str(), &pat.body[..]), ("runners/9/reset_authentication_token", &b"null"[..]));
    assert_eq!(header(&pat, "private-token"), Some("glpat-x"));
}

#[test]
fn removal_expects_no_body() {
    let runner = unregister_runner(&"t".into()).unwrap();
    assert_eq!((runner.endpoint.method().as_str(), runner.path.as_str()), ("DELETE", "runners"));
    let manager = unregister_manager(&"t".into(), "s_1").unwrap();
    assert_eq!(body(&manager), json!({"token": "t", "system_id": "s_1"}));
    assert!(!runner.expects_json() && !manager.expects_json());
}

#[test]
fn artifact_options_are_encoded_and_left_out_when_empty() {
    let upload = ArtifactUpload {
        file_name: "a.zip".into(),
        expire_in: "1 week".into(),
        format: "zip".into(),
        kind: String::new(),
    };
    let request = artifact_upload(&job(), &upload, "b0").unwrap();
    assert_eq!(request.path, "jobs/42/artifacts?artifact_format=zip&expire_in=1+week");
    assert_eq!(header(&request, "content-type"), Some("multipart/form-data; boundary=b0"));
    let plain = artifact_upload(&job(), &ArtifactUpload::default(), "b0").unwrap();
    assert_eq!(plain.path, "jobs/42/artifacts");
    assert_eq!(artifact_download(&job(), true).unwrap().path, "jobs/42/artifacts?direct_download=true");
}

#[test]
fn tokens_are_never_sent_empty_and_never_printed() {
    let request = job_request(&JobRequest { token: "".into(), ..poll(true) }, None).unwrap();
    assert_eq!(header(&request, "runner-token"), None);
    let request = unregister_runner(&"sesame".into()).unwrap();
    assert!(!format!("{:?}", request.headers).contains("sesame"));
}

#[test]
fn a_token_that_http_cannot_carry_is_a_client_error() {
    let error = unregister_runner(&"a\nb".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token for the header RUNNER-TOKEN contains characters that HTTP does not allow"
    );
}
