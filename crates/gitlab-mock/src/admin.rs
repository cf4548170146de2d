//! The mock's own calls, for a standalone server: `/mock/...`.
//!
//! They take and give JSON. No fault touches them and nothing of them counts as a violation.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::api::Call;
use crate::body::{self, Reply, refusal};
use crate::builder::JobBuilder;
use crate::core::Core;
use crate::fault::{Fault, FaultId, duration};
use crate::job::{Job, JobRecord};
use crate::report::Summary;
use crate::runner::RunnerRecord;

const MAX_BODY: usize = 16 << 20;

/// `POST /mock/jobs`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Enqueue {
    /// Token of the runner; by default the first one.
    #[serde(default)]
    runner: Option<String>,
    #[serde(default = "one")]
    count: usize,
    #[serde(default)]
    job: JobBuilder,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRunner {
    token: String,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    seconds: f64,
}

pub(crate) async fn serve(call: Call<'_>) -> Reply {
    let core = Arc::clone(call.core);
    let (method, path) = (call.head.method.clone(), call.head.uri.path().to_owned());
    let query = |name: &str| call.query(name);
    let number = |name: &str| query(name).and_then(|text| text.parse::<u64>().ok());
    let (after, limit) = (number("after").unwrap_or(0), number("limit").unwrap_or(1000));
    let force = query("force").as_deref() == Some("true");
    let segments: Vec<&str> = path.trim_start_matches("/mock").split('/').skip(1).collect();
    match (method, segments.as_slice()) {
        (Method::GET, ["health"]) => ok(&json!({ "url": core.url })),
        (Method::GET, ["summary"]) => ok(&Summary::of(&core)),
        (Method::GET, ["violations"]) => ok(&core.violations.all()),
        (Method::DELETE, ["violations"]) => ok(&core.violations.take()),
        (Method::GET, ["storage"]) => ok(&*crate::sync::lock(&core.storage_requests)),
        (Method::GET, ["jobs"]) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let views: Vec<_> = core.jobs_after(after, limit).iter().map(|job| job.view()).collect();
            ok(&views)
        }
        (Method::POST, ["jobs"]) => with_body(call.body, |order| enqueue(&core, order)).await,
        (Method::GET, ["jobs", id]) => with_job(&core, id, |job| ok(&job.view())),
        (Method::GET, ["jobs", id, "log"]) => {
            with_job(&core, id, |job| body::bytes(StatusCode::OK, Some("text/plain"), job.log().into()))
        }
        (Method::POST, ["jobs", id, "cancel"]) => with_job(&core, id, |job| {
            let state = if force { job.force_cancel() } else { job.cancel() };
            ok(&json!({ "state": state }))
        }),
        (Method::GET, ["runners"]) => {
            let views: Vec<_> = core.runners().iter().map(|runner| runner.view()).collect();
            ok(&views)
        }
        (Method::POST, ["runners"]) => {
            with_body(call.body, |new: NewRunner| {
                let runner = core.add_runner(&new.token, &new.description);
                body::json(StatusCode::CREATED, &runner.view())
            })
            .await
        }
        (Method::POST, ["runners", id, "pause"]) => set_paused(&core, id, true),
        (Method::POST, ["runners", id, "resume"]) => set_paused(&core, id, false),
        (Method::GET, ["faults"]) => ok(&core.faults.report(Instant::now())),
        (Method::POST, ["faults"]) => {
            with_body(call.body, |fault: Fault| {
                let id = core.faults.add(fault, Instant::now());
                body::json(StatusCode::CREATED, &json!({ "id": id }))
            })
            .await
        }
        (Method::DELETE, ["faults"]) => {
            core.faults.clear();
            body::empty(StatusCode::NO_CONTENT)
        }
        (Method::DELETE, ["faults", id]) => {
            let removed = id.parse().is_ok_and(|id| core.faults.remove(FaultId(id)));
            body::empty(if removed { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
        }
        (Method::PUT, ["trace-interval"]) => {
            with_body(call.body, |wanted: Seconds| {
                core.set_trace_interval(Some(duration(wanted.seconds)).filter(|every| !every.is_zero()));
                body::empty(StatusCode::NO_CONTENT)
            })
            .await
        }
        (Method::POST, ["outage"]) => {
            with_body(call.body, |outage: Seconds| {
                tokio::spawn(outage_after_answer(Arc::clone(&core), duration(outage.seconds)));
                body::empty(StatusCode::ACCEPTED)
            })
            .await
        }
        _ => refusal(StatusCode::NOT_FOUND, "the mock has no such call"),
    }
}

fn enqueue(core: &Core, order: Enqueue) -> Reply {
    let runner: Option<Arc<RunnerRecord>> = match &order.runner {
        Some(token) => core.runner_by_token(token),
        None => core.runners().into_iter().next(),
    };
    let Some(runner) = runner else { return refusal(StatusCode::NOT_FOUND, "there is no such runner") };
    let spec = Arc::new(order.job);
    match core.enqueue(&runner, std::iter::repeat_n(spec, order.count)) {
        Ok(jobs) => {
            let ids: Vec<u64> = jobs.iter().map(|job| job.id).collect();
            body::json(StatusCode::CREATED, &json!({ "ids": ids }))
        }
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn set_paused(core: &Core, id: &str, paused: bool) -> Reply {
    let Some(record) = id.parse().ok().and_then(|id| core.runner_by_id(id)) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such runner");
    };
    let runner = crate::runner::Runner { record };
    if paused {
        runner.pause()
    } else {
        runner.resume()
    }
    body::empty(StatusCode::NO_CONTENT)
}

/// The port closes a moment later, so that the answer still arrives.
async fn outage_after_answer(core: Arc<Core>, length: Duration) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    core.gate.close().await;
    tokio::time::sleep(length).await;
    core.gate.open().await;
}

fn with_job(core: &Core, id: &str, serve: impl FnOnce(Job) -> Reply) -> Reply {
    let record: Option<Arc<JobRecord>> = id.parse().ok().and_then(|id| core.job(id));
    record.map_or_else(
        || refusal(StatusCode::NOT_FOUND, "there is no such job"),
        |record| serve(Job { record }),
    )
}

async fn with_body<T: DeserializeOwned>(body: Incoming, serve: impl FnOnce(T) -> Reply) -> Reply {
    let bytes = match body::read(body, MAX_BODY).await {
        Ok(bytes) => bytes,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &format!("{error:?}")),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => serve(value),
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn ok(value: &impl serde::Serialize) -> Reply {
    body::json(StatusCode::OK, value)
}

const fn one() -> usize {
    1
}
