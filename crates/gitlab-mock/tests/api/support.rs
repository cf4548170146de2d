//! A runner in a few lines, which says exactly what a test tells it to.

use std::time::Duration;

use drover_gitlab_mock::{Config, GitlabMock, Job, JobBuilder, Rule, Runner};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Longer than anything here takes, short enough to fail before a person gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const TOKEN: &str = "glrt-test";

/// A mock, a runner, and a client that speaks for it.
pub(crate) struct Bench {
    pub(crate) mock: GitlabMock,
    pub(crate) runner: Runner,
    pub(crate) http: reqwest::Client,
}

/// Features that are announced as true, all others as false.
pub(crate) const FEATURES: [&str; 5] =
    ["trace_checksum", "trace_size", "cancelable", "cancel_gracefully", "return_exit_code"];

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let mock = GitlabMock::start(config).await.unwrap();
        let runner = mock.add_runner(TOKEN);
        let http = reqwest::Client::builder()
            .no_proxy()
            .user_agent("bench 1.0")
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { mock, runner, http }
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/api/v4/{path}", self.mock.url()))
            .header("X-Request-Id", "0123456789abcdef0123456789abcdef")
            .header("Accept", "application/json")
    }

    /// `POST jobs/request` with a body of one's own.
    pub(crate) async fn request_with(&self, body: &Value) -> Response {
        self.call(Method::POST, "jobs/request").header("RUNNER-TOKEN", TOKEN).json(body).send().await.unwrap()
    }

    pub(crate) async fn request(&self) -> Response {
        self.request_with(&request_body(&FEATURES)).await
    }

    /// Enqueues a job and takes it.
    pub(crate) async fn take(&self, job: JobBuilder) -> Job {
        let job = self.mock.enqueue(&self.runner, job);
        let reply = self.request().await;
        assert_eq!(reply.status(), 201);
        let payload: Value = reply.json().await.unwrap();
        assert_eq!(payload["id"], job.id());
        job
    }

    pub(crate) async fn update_with(&self, job: &Job, body: &Value) -> Response {
        let path = format!("jobs/{}", job.id());
        self.call(Method::PUT, &path).header("JOB-TOKEN", job.token()).json(body).send().await.unwrap()
    }

    /// A final update with the right size and checksum of `log`.
    pub(crate) async fn finish(&self, job: &Job, state: &str, log: &[u8]) -> Response {
        self.update_with(job, &final_body(job, state, log)).await
    }

    pub(crate) fn patch(&self, job: &Job, range: &str, bytes: &[u8]) -> RequestBuilder {
        self.call(Method::PATCH, &format!("jobs/{}/trace?debug_trace=false", job.id()))
            .header("JOB-TOKEN", job.token())
            .header("Content-Type", "text/plain")
            .header("Content-Range", range)
            .body(bytes.to_vec())
    }

    /// Appends bytes to the log at an offset.
    pub(crate) async fn append(&self, job: &Job, offset: usize, bytes: &[u8]) -> Response {
        let range = format!("{offset}-{}", offset + bytes.len() - 1);
        self.patch(job, &range, bytes).send().await.unwrap()
    }

    /// Asserts that exactly these rules were broken, and forgets it.
    #[track_caller]
    pub(crate) fn expect_violations(&self, rules: &[Rule]) {
        let violations = self.mock.take_violations();
        let broken: Vec<Rule> = violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(broken, rules, "{violations:#?}");
    }
}

pub(crate) fn info(features: &[&str]) -> Value {
    let flags: serde_json::Map<String, Value> =
        ALL_FEATURES.iter().map(|name| ((*name).to_owned(), json!(features.contains(name)))).collect();
    json!({
        "name": "bench", "version": "1.0", "revision": "abc", "platform": "linux", "architecture": "amd64",
        "executor": "instance", "shell": "bash", "features": flags, "config": { "gpus": "" },
    })
}

pub(crate) fn request_body(features: &[&str]) -> Value {
    json!({ "info": info(features), "token": TOKEN, "system_id": "s_0123456789ab" })
}

pub(crate) fn update_body(job: &Job, state: &str) -> Value {
    json!({ "info": info(&FEATURES), "token": job.token(), "state": state, "output": {} })
}

pub(crate) fn final_body(job: &Job, state: &str, log: &[u8]) -> Value {
    let mut body = update_body(job, state);
    body["output"] = json!({ "checksum": checksum(log), "bytesize": log.len() });
    body["checksum"] = json!(checksum(log));
    if state == "failed" {
        body["failure_reason"] = json!("script_failure");
        body["exit_code"] = json!(3);
    }
    body
}

pub(crate) fn checksum(bytes: &[u8]) -> String {
    format!("crc32:{:08x}", crc32fast::hash(bytes))
}

/// A header as text; empty when absent.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Written down here once more, so that a slip in the mock's own list shows.
const ALL_FEATURES: [&str; 31] = [
    "variables",
    "image",
    "services",
    "artifacts",
    "cache",
    "fallback_cache_keys",
    "shared",
    "upload_multiple_artifacts",
    "upload_raw_artifacts",
    "session",
    "terminal",
    "refspecs",
    "masking",
    "proxy",
    "raw_variables",
    "artifacts_exclude",
    "multi_build_steps",
    "trace_reset",
    "trace_checksum",
    "trace_size",
    "vault_secrets",
    "cancelable",
    "return_exit_code",
    "service_variables",
    "service_multiple_aliases",
    "image_executor_opts",
    "service_executor_opts",
    "cancel_gracefully",
    "native_steps_integration",
    "two_phase_job_commit",
    "job_inputs",
];
