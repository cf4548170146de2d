//! Whole calls against a scripted server: what is sent, what comes out, what is repeated.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::peer::{Peer, info, job, options, poll, reply, running};
use bytes::Bytes;
use drover_gitlab_api::{
    ApiError, Client, ClientOptions, Ended, Endpoint, JobRequestOutcome, Observer, PatchOutcome,
    RegisterRequest, Timeouts, UpdateOutcome, Verification,
};
use http::StatusCode;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

const FULL: &str = include_str!("../../../../fixtures/payloads/full.json");

#[tokio::test]
async fn a_job_arrives_with_what_belongs_to_it() {
    let peer = Peer::start([reply(201, &[("x-request-id", "corr-1")], FULL)]).await;
    let reply = peer.client().request_job(&poll(true)).await;
    assert_eq!((reply.retried, reply.correlation_id.as_str()), (false, "corr-1"));
    let JobRequestOutcome::Job(received) = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert_eq!((received.job.id, received.correlation_id.as_str()), (73120, "corr-1"));
    assert_eq!(received.payload.0, FULL);
    assert!(received.tls.ca_chain.is_none());

    let [seen] = peer.seen().try_into().unwrap();
    assert_eq!(seen.line, "POST /api/v4/jobs/request");
    let header = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("runner-token").as_deref(), Some("glrt-t"));
    assert_eq!(header("accept").as_deref(), Some("application/json"));
    assert!(header("user-agent").unwrap().starts_with("drover "));
    let id = header("x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["info"]["executor"], "instance");
}

#[tokio::test]
async fn the_cursor_of_any_json_answer_is_echoed_by_long_polls_only() {
    let cursor = |text| reply(204, &[("x-gitlab-last-update", text)], "");
    let verified = reply(200, &[("x-gitlab-last-update", "c3")], "{}");
    let failed = reply(409, &[("x-gitlab-last-update", "no")], "{}");
    let peer =
        Peer::start([cursor("c1"), cursor("c2"), cursor(""), failed, verified, cursor(""), cursor("")]).await;
    let client = peer.client();
    client.request_job(&poll(true)).await;
    client.request_job(&poll(true)).await;
    client.request_job(&poll(false)).await;
    client.request_job(&poll(true)).await;
    client.verify(&"glrt-t".into(), "s_0", &info()).await;
    client.request_job(&poll(true)).await;
    client.request_job(&poll(false)).await;
    let sent: Vec<Value> = peer
        .seen()
        .iter()
        .map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap()["last_update"].clone())
        .collect();
    let wanted = serde_json::json!([null, "c1", null, "c2", null, "c3", null]);
    assert_eq!(Value::from(sent), wanted);
}

#[tokio::test]
async fn retriable_answers_are_repeated_and_said_so() {
    let peer = Peer::start([reply(502, &[], "bad"), reply(429, &[], ""), reply(204, &[], "")]).await;
    let reply = peer.client().request_job(&poll(true)).await;
    assert!(matches!(reply.outcome, JobRequestOutcome::None));
    assert!(reply.retried);
    let seen = peer.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| request.body == seen[0].body));
}

#[tokio::test]
async fn the_last_of_five_answers_stands() {
    let peer = Peer::start((0..9).map(|_| reply(503, &[], ""))).await;
    let reply = peer.client().request_job(&poll(true)).await;
    assert!(matches!(reply.outcome, JobRequestOutcome::Unavailable));
    assert_eq!((reply.retried, peer.seen().len()), (true, 5));
}

#[tokio::test]
async fn dropping_a_call_ends_its_wait_and_its_retries() {
    let peer = Peer::start([reply(503, &[("retry-after", "3600")], ""), reply(204, &[], "")]).await;
    let client = peer.client();
    let call = tokio::spawn(async move { client.request_job(&poll(true)).await });
    peer.has_seen(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn the_log_and_the_state_of_a_job_are_reported() {
    let peer = Peer::start([
        reply(202, &[("job-status", "canceling"), ("x-gitlab-trace-update-interval", "7")], ""),
        reply(416, &[("range", "0-3")], ""),
        reply(200, &[], ""),
    ])
    .await;
    let client = peer.client();
    let first = client.patch_trace(&job(), 5, Bytes::from_static(b"hello"), false).await;
    assert!(matches!(first.outcome, PatchOutcome::Accepted { end: 10 }));
    assert_eq!((first.remote.wants_cancel(), first.interval), (true, Some(Duration::from_secs(7))));
    let second = client.patch_trace(&job(), 10, Bytes::from_static(b"x"), true).await;
    assert!(matches!(second.outcome, PatchOutcome::RangeMismatch { offset: 3 }));
    assert!(matches!(client.update_job(&job(), &running()).await.outcome, UpdateOutcome::Done));

    let seen = peer.seen();
    assert_eq!(
        peer.lines(),
        [
            "PATCH /api/v4/jobs/42/trace?debug_trace=false",
            "PATCH /api/v4/jobs/42/trace?debug_trace=true",
            "PUT /api/v4/jobs/42",
        ]
    );
    assert_eq!(
        (seen[0].headers["content-range"].as_bytes(), &seen[0].body[..]),
        (&b"5-9"[..], &b"hello"[..])
    );
    assert!(seen.iter().all(|request| request.headers["job-token"] == "glcbt-job"));
}

#[tokio::test]
async fn no_bytes_are_no_request() {
    let peer = Peer::start([]).await;
    let reply = peer.client().patch_trace(&job(), 9, Bytes::new(), false).await;
    assert!(matches!(reply.outcome, PatchOutcome::Accepted { end: 9 }));
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn the_life_of_a_runner() {
    let record = r#"{"id": 5, "token": "glrt-new", "token_expires_at": null}"#;
    let peer = Peer::start([
        reply(201, &[], record),
        reply(200, &[], record),
        reply(201, &[], record),
        reply(201, &[], record),
        reply(204, &[], ""),
        reply(204, &[], ""),
        reply(501, &[], ""),
    ])
    .await;
    let client = peer.client();
    let token = "glrt-new".into();
    let registered = client.register(&"reg".into(), &RegisterRequest::default(), &info()).await.unwrap();
    assert_eq!((registered.id, registered.token.expose()), (5, "glrt-new"));
    assert!(matches!(client.verify(&token, "s_0", &info()).await, Verification::Valid(r) if r.id == 5));
    assert_eq!(client.reset_token(&token).await.unwrap().token.expose(), "glrt-new");
    client.reset_token_with_pat(5, &"glpat-x".into()).await.unwrap();
    client.unregister_manager(&token, "s_0").await.unwrap();
    client.unregister_runner(&token).await.unwrap();
    assert_eq!(client.discover_router(&token).await.unwrap(), None);
    assert_eq!(
        peer.lines(),
        [
            "POST /api/v4/runners",
            "POST /api/v4/runners/verify",
            "POST /api/v4/runners/reset_authentication_token",
            "POST /api/v4/runners/5/reset_authentication_token",
            "DELETE /api/v4/runners/managers",
            "DELETE /api/v4/runners",
            "GET /api/v4/runners/router/discovery",
        ]
    );
}

#[tokio::test]
async fn connections_are_kept_whatever_the_answer() {
    let peer = Peer::start([
        reply(204, &[], ""),
        reply(404, &[], "x".repeat(5000)),
        reply(503, &[], "busy"),
        reply(200, &[], "ignored"),
    ])
    .await;
    let client = peer.client();
    client.request_job(&poll(true)).await;
    client.patch_trace(&job(), 0, Bytes::from_static(b"a"), false).await;
    client.update_job(&job(), &running()).await;
    let seen = peer.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|request| request.from == seen[0].from));
}

#[tokio::test]
async fn old_connections_are_replaced() {
    let peer = Peer::start([reply(204, &[], ""), reply(204, &[], "")]).await;
    let max_age = Duration::from_nanos(1);
    let client = Client::new(ClientOptions { connection_max_age: max_age, ..options(peer.url()) }).unwrap();
    client.request_job(&poll(true)).await;
    client.request_job(&poll(true)).await;
    let seen = peer.seen();
    assert_ne!(seen[0].from, seen[1].from);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sink = Vec::new();
        // Ends when the client gives up.
        stream.read_to_end(&mut sink).await.unwrap_or_default()
    });
    let timeouts = Timeouts { response_headers: Duration::from_millis(50), ..Timeouts::default() };
    let client = Client::new(ClientOptions { timeouts, ..options(url) }).unwrap();
    let reply = client.request_job(&poll(true)).await;
    assert!(matches!(reply.outcome, JobRequestOutcome::Failed(ApiError::Timeout { .. })), "{reply:?}");
    assert!(reply.outcome.is_healthy());
    assert!(silent.await.unwrap() > 0);
}

#[tokio::test]
async fn a_refused_connection_is_not_repeated_and_names_the_call() {
    // A port at which nobody listens.
    let url = "http://127.0.0.1:1".to_owned();
    let reply = Client::new(options(url.clone())).unwrap().request_job(&poll(true)).await;
    let JobRequestOutcome::Failed(error) = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert!(!reply.retried);
    assert!(
        error.report().starts_with(&format!("POST {url}/api/v4/jobs/request: no answer")),
        "{}",
        error.report()
    );
    assert!(error.report().contains("refused"), "{}", error.report());
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_unhealthy_and_aborts_updates() {
    let peer = Peer::start([]).await;
    let client = peer.client();
    let mut request = poll(true);
    request.token = "a\nb".into();
    assert!(!client.request_job(&request).await.outcome.is_healthy());
    let mut job = job();
    job.token = "a\nb".into();
    assert!(matches!(client.update_job(&job, &running()).await.outcome, UpdateOutcome::Failed(_)));
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn redirects_are_not_followed_with_tokens() {
    let peer = Peer::start([reply(307, &[("location", "/api/v4/elsewhere")], "")]).await;
    let reply = peer.client().request_job(&poll(true)).await;
    assert!(matches!(reply.outcome, JobRequestOutcome::Failed(ApiError::Redirected { .. })));
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn the_observer_is_told_about_every_call() {
    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);
    impl Observer for Log {
        fn ended(&self, ended: &Ended) {
            let label = ended.endpoint.label().unwrap();
            let status = ended.status.map_or(-1, |status| i32::from(status.as_u16()));
            let line = format!("{label} {status} {} {}", ended.attempts, ended.retried);
            self.0.lock().unwrap().push(line);
        }
        fn retriable(&self, endpoint: Endpoint, status: StatusCode) {
            self.0.lock().unwrap().push(format!("{} {}", endpoint.path(), status.as_u16()));
        }
    }
    let peer = Peer::start([reply(503, &[], ""), reply(202, &[], ""), reply(204, &[], "")]).await;
    let log = Arc::new(Log::default());
    let observer: Arc<dyn Observer> = log.clone();
    let client = Client::new(ClientOptions { observer: Some(observer), ..options(peer.url()) }).unwrap();
    client.patch_trace(&job(), 0, Bytes::from_static(b"a"), false).await;
    client.request_job(&poll(true)).await;
    assert_eq!(
        *log.0.lock().unwrap(),
        ["jobs/{id}/trace 503", "patch_trace 202 2 true", "request_job 204 1 false"]
    );
}
