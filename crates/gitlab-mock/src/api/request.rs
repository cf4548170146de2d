//! `POST jobs/request`: long polling as Workhorse does it, then the queue.

use std::sync::Arc;

use chrono::Utc;
use http::StatusCode;
use serde_json::Value;

use super::body_check::{self, InfoKind, Kind, optional, required};
use super::runners::{authenticate, meet, system_id};
use super::{Call, JsonCall};
use crate::body::{self, Reply, with_header};
use crate::config::OnChange;
use crate::core::Core;
use crate::job::{JobRecord, JobState, Session, expect_confirmation, watch_running};
use crate::payload::{DependencyFacts, Facts, payload};
use crate::runner::RunnerRecord;

const LAST_UPDATE: &str = "x-gitlab-last-update";

pub(crate) async fn request_job(call: Call<'_>) -> Reply {
    call.check_common_headers();
    call.check_accepts_json();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    match admitted(&call, &body) {
        Ok(runner) => wait_and_give(&call.core, &runner, &body).await,
        Err(reply) => reply,
    }
}

fn admitted(call: &JsonCall, body: &Value) -> Result<Arc<RunnerRecord>, Reply> {
    let mut findings = body_check::check(
        body,
        &[
            required("token", Kind::Text),
            required("info", Kind::Object),
            optional("system_id", Kind::Text),
            optional("last_update", Kind::Text),
            optional("session", Kind::Object),
        ],
    );
    body_check::check_info(body, InfoKind::Full, &mut findings);
    body_check::check_system_id(body, &mut findings);
    if let Some(session) = body.get("session").and_then(Value::as_object) {
        let members = ["url", "certificate", "authorization"].map(|name| required(name, Kind::Text));
        body_check::check_object(session, "session.", &members, &mut findings);
    }
    call.settle(findings)?;
    let runner = authenticate(call, body)?;
    meet(&runner, body);
    runner.count_request();
    Ok(runner)
}

async fn wait_and_give(core: &Arc<Core>, runner: &Arc<RunnerRecord>, body: &Value) -> Reply {
    let known = body.get("last_update").and_then(Value::as_str).unwrap_or("");
    let patience = core.config().long_poll;
    let (cursor, mut changes) = runner.watch();
    let is_current = known == cursor;
    if is_current && !patience.is_zero() {
        let held = runner.hold();
        let changed = tokio::time::timeout(patience, changes.changed()).await.is_ok();
        drop(held);
        if !changed || core.config().on_change == OnChange::AskAgain {
            runner.count_answer(false);
            // Workhorse answers by itself and knows no cursor.
            return body::empty(StatusCode::NO_CONTENT);
        }
    } else if is_current {
        runner.count_answer(false);
        return no_job(&cursor);
    }
    // The cursor is read before the queue: a job that comes in between makes the cursor outdated, never the other way.
    let cursor = runner.cursor();
    let job = if runner.is_paused() { None } else { take(runner, body) };
    runner.count_answer(job.is_some());
    match job {
        Some((job, queue_size)) => {
            match job.read(|inner| inner.state) {
                JobState::Given => expect_confirmation(&job, runner),
                JobState::Running => watch_running(&job),
                JobState::Queued
                | JobState::Canceling
                | JobState::Success
                | JobState::Failed
                | JobState::Canceled => {}
            }
            body::json(StatusCode::CREATED, &describe(core, runner, &job, queue_size))
        }
        None => no_job(&cursor),
    }
}

fn no_job(cursor: &str) -> Reply {
    with_header(body::empty(StatusCode::NO_CONTENT), LAST_UPDATE, cursor)
}

/// The oldest job that is still to be had; jobs that were cancelled in the queue are passed over.
fn take(runner: &RunnerRecord, body: &Value) -> Option<(Arc<JobRecord>, usize)> {
    let features = body_check::manager(body).features;
    loop {
        let (job, size) = runner.pop()?;
        if job.update(|inner, now| inner.give(Some(system_id(body)), &features, now)) {
            let session = Session::of(body);
            job.update(|inner, _| inner.session = session);
            return Some((job, size));
        }
    }
}

fn describe(core: &Core, runner: &RunnerRecord, job: &JobRecord, queue_size: usize) -> Value {
    let dependency = |id: &u64| {
        let source = core.job(*id)?;
        let archive = |inner: &crate::job::Inner| {
            inner
                .artifacts
                .iter()
                .find(|artifact| artifact.view.artifact_type == "archive")
                .map(|artifact| (artifact.view.filename.clone(), artifact.view.size))
        };
        Some(DependencyFacts {
            id: *id,
            token: source.token.clone(),
            name: source.spec.name.clone(),
            file: source.read(archive),
        })
    };
    let view = job.view();
    let in_queue = core.now().saturating_sub(view.queued_at);
    let facts = Facts {
        id: job.id,
        token: &job.token,
        server: &core.url,
        runner_id: runner.id,
        runner_description: &runner.description,
        seconds_in_queue: in_queue.as_secs_f64(),
        queue_size,
        failure_reasons: &core.config().failure_reasons,
        checkout: job.checkout.as_ref(),
        dependencies: job.spec.dependencies.iter().filter_map(dependency).collect(),
        now: Utc::now(),
    };
    payload(&job.spec, &facts)
}
