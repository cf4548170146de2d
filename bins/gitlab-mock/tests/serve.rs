//! The program as a whole, with a runner that does the least that the protocol asks for.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

const TOKEN: &str = "glrt-test";

/// A running server, killed when a test fails.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    url: String,
    http: reqwest::Client,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gitlab-mock"))
            .args(["serve", "--listen", "127.0.0.1:0", "--runner-token", TOKEN])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        let http = reqwest::Client::builder().no_proxy().user_agent("bench 1.0").build().unwrap();
        Self { child, stdout, url, http }
    }

    /// Takes jobs and ends them until there are no more; returns how many there were.
    async fn work(&self) -> usize {
        let mut done = 0;
        loop {
            let reply = self
                .call(reqwest::Method::POST, "jobs/request")
                .header("RUNNER-TOKEN", TOKEN)
                .json(&json!({ "token": TOKEN, "info": info(), "system_id": "s_0123456789ab" }))
                .send()
                .await;
            // The server ends by itself some time after the last job.
            let Some(reply) = reply.ok().filter(|reply| reply.status() == 201) else {
                return done;
            };
            let job: Value = reply.json().await.unwrap();
            let path = format!("jobs/{}", job["id"]);
            let update = json!({ "token": job["token"], "info": info(), "state": "success", "output": {} });
            let call =
                self.call(reqwest::Method::PUT, &path).header("JOB-TOKEN", job["token"].as_str().unwrap());
            assert_eq!(call.json(&update).send().await.unwrap().status(), 200);
            done += 1;
        }
    }

    fn call(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}/api/v4/{path}", self.url))
            .header("X-Request-Id", "0123456789abcdef0123456789abcdef")
            .header("Accept", "application/json")
    }

    /// Waits for the end; exit code and what was printed.
    fn end(mut self) -> (i32, String) {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code().expect("no signal ended it"), text)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn info() -> Value {
    let features: serde_json::Map<String, Value> =
        gitlab_mock::FEATURES.iter().map(|name| ((*name).to_owned(), json!(false))).collect();
    json!({
        "name": "bench", "version": "1", "revision": "a", "platform": "linux", "architecture": "amd64",
        "executor": "instance", "shell": "bash", "features": features, "config": { "gpus": "" },
    })
}

#[tokio::test]
async fn all_jobs_done_ends_with_zero_and_a_summary() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("out.json");
    let arguments = ["--jobs", "25", "--script", "true", "--exit-when-done", "--deadline", "60", "--report"];
    let server = Server::start(&[&arguments[..], &[report.to_str().unwrap()]].concat());
    let worked = server.work().await;
    let (code, text) = server.end();
    assert_eq!((code, worked), (0, 25), "{text}");
    assert!(text.contains("25 success") && text.contains("violations  0") && text.contains("p99"), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["jobs"].as_array().unwrap().len(), 25);
    assert_eq!(report["summary"]["jobs"], json!({ "success": 25 }));
}

#[tokio::test]
async fn violations_end_with_one() {
    let server = Server::start(&["--jobs", "1", "--exit-when-done", "--deadline", "60"]);
    let bare = server.http.get(format!("{}/api/v4/version", server.url)).send().await.unwrap();
    assert_eq!(bare.status(), 404);
    server.work().await;
    let (code, text) = server.end();
    assert_eq!(code, 1);
    assert!(text.contains("UnknownRoute at unknown, refused with 404: GET /api/v4/version"), "{text}");
}

#[tokio::test]
async fn jobs_that_nobody_takes_end_with_one_at_the_deadline() {
    let server = Server::start(&["--jobs", "1", "--exit-when-done", "--deadline", "0.2"]);
    let (code, text) = server.end();
    assert_eq!(code, 1);
    assert!(text.contains("1 queued"), "{text}");
}

#[tokio::test]
async fn scenario_plays_its_entries() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scenario.json");
    let scenario = json!({
        "jobs": [{ "count": 2 }, { "at": 0.1, "count": 2, "every": 0.05, "job": { "name": "late" } }],
        "cancels": [{ "at": 0.3, "job": 4 }],
        "faults": [{ "action": { "status": { "code": 418 } }, "endpoints": ["verify"] }],
    });
    std::fs::write(&path, scenario.to_string()).unwrap();
    let server =
        Server::start(&["--scenario", path.to_str().unwrap(), "--exit-when-done", "--deadline", "60"]);
    let verify = server.call(reqwest::Method::POST, "runners/verify").json(&json!({})).send().await.unwrap();
    assert_eq!(verify.status(), 418);
    let canceled = async {
        loop {
            let url = format!("{}/mock/jobs/4", server.url);
            let job: Value = server.http.get(url).send().await.unwrap().json().await.unwrap();
            if job["state"] == "canceled" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), canceled).await.unwrap();
    assert_eq!(server.work().await, 3);
    let (code, text) = server.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("3 success, 1 canceled"), "{text}");
}

#[test]
fn example_scenario_is_accepted() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/mock/outage.toml");
    let arguments = ["--scenario", example.to_str().unwrap(), "--exit-when-done", "--deadline", "0.1"];
    let (code, text) = Server::start(&arguments).end();
    assert_eq!(code, 1);
    assert!(text.contains("20 queued"), "{text}");
}

#[test]
fn broken_scenario_ends_with_two_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scenario.toml");
    std::fs::write(&path, "[[jobs]]\ncuont = 3\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gitlab-mock"))
        .args(["serve", "--listen", "127.0.0.1:0", "--runner-token", TOKEN, "--scenario"])
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("scenario.toml") && text.contains("cuont"), "{text}");
}
