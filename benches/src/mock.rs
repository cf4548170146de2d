//! The server's side: jobs are put in and looked at through the mock's own calls.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// Between two looks. Each costs the machine a little, so it is not shorter.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Calls of one `gitlab-mock serve`.
#[derive(Debug, Clone)]
pub(crate) struct Mock {
    client: Client,
    url: String,
}

/// What the server knows of a job.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct JobView {
    pub(crate) id: u64,
    state: String,
    history: Vec<Transition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Transition {
    state: String,
    /// Since the server was started.
    at_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Enqueued {
    ids: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct Summary {
    jobs: BTreeMap<String, u64>,
    violations: u64,
}

// === impl Mock ===

impl Mock {
    pub(crate) fn new(url: String) -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().build().context("failed to make an HTTP client")?;
        Ok(Self { client, url })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Puts jobs into the queue, all at once; gives their ids.
    pub(crate) async fn enqueue(&self, count: u32, script: &str) -> anyhow::Result<Vec<u64>> {
        self.enqueue_job(count, json!({ "script": [script] })).await
    }

    /// The same with other jobs, as the mock describes them.
    pub(crate) async fn enqueue_job(&self, count: u32, job: serde_json::Value) -> anyhow::Result<Vec<u64>> {
        let order = json!({ "count": count, "job": job });
        let sent = self.client.post(format!("{}/mock/jobs", self.url)).json(&order).send().await;
        let answer = checked(sent)?.json::<Enqueued>().await.context("the mock queued no jobs")?;
        Ok(answer.ids)
    }

    /// Waits until all jobs so far are successful; gives the ones of `ids`.
    pub(crate) async fn successful(&self, ids: &[u64], patience: Duration) -> anyhow::Result<Vec<JobView>> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(Vec::new()) };
        self.reached("success", *last, patience).await?;
        self.jobs(*first, ids.len()).await
    }

    /// Waits until so many jobs have this state.
    pub(crate) async fn reached(&self, state: &str, count: u64, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let summary: Summary = self.get("summary").await?;
            if summary.violations > 0 || summary.jobs.contains_key("failed") {
                bail!("jobs failed or the protocol was broken: {summary:?}");
            }
            if summary.jobs.get(state) == Some(&count) {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("no {count} jobs in state {state} after {patience:?}: {summary:?}");
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Jobs from this one on.
    pub(crate) async fn jobs(&self, first: u64, count: usize) -> anyhow::Result<Vec<JobView>> {
        self.get(&format!("jobs?after={}&limit={count}", first.saturating_sub(1))).await
    }

    /// The whole log of a job.
    pub(crate) async fn log(&self, id: u64) -> anyhow::Result<Vec<u8>> {
        let answer = checked(self.client.get(format!("{}/mock/jobs/{id}/log", self.url)).send().await)?;
        Ok(answer.bytes().await.context("failed to read a job log")?.into())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = checked(self.client.get(format!("{}/mock/{path}", self.url)).send().await)?;
        answer.json().await.with_context(|| format!("the mock answered /mock/{path} with something else"))
    }
}

// === impl JobView ===

impl JobView {
    /// When it was queued, in seconds of the server.
    pub(crate) fn queued(&self) -> f64 {
        self.history.first().map_or(f64::NAN, |first| first.at_seconds)
    }

    /// When a runner was given it.
    pub(crate) fn given(&self) -> f64 {
        let given = self.history.iter().find(|transition| transition.state != "queued");
        given.map_or(f64::NAN, |given| given.at_seconds)
    }

    /// When the server had taken its result. Not a number unless it was a success.
    pub(crate) fn finished(&self) -> f64 {
        let last = self.history.last().filter(|_| self.state == "success");
        last.map_or(f64::NAN, |last| last.at_seconds)
    }
}

fn checked(sent: reqwest::Result<Response>) -> anyhow::Result<Response> {
    sent.and_then(Response::error_for_status).context("failed to call the mock")
}
