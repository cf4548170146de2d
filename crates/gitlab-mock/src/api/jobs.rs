//! `PUT jobs/{id}` and `PATCH jobs/{id}/trace`.

use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::body_check::{self, InfoKind, Kind, optional, required};
use super::{Call, JsonCall};
use crate::body::{Reply, refusal, text, with_header};
use crate::core::Core;
use crate::endpoint::Endpoint;
use crate::job::{JobRecord, JobState, Patch, Update, watch_running};
use crate::violation::{Rule, shorten};

const JOB_STATUS: &str = "job-status";
const TRACE_INTERVAL: &str = "x-gitlab-trace-update-interval";

pub(crate) async fn update(call: Call<'_>) -> Reply {
    call.check_common_headers();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    updated(&call, &body).unwrap_or_else(|reply| reply)
}

fn updated(call: &JsonCall, body: &Value) -> Result<Reply, Reply> {
    let core = &call.core;
    let job = find(core, Endpoint::UpdateJob, call.id)?;
    let mut findings = body_check::check(
        body,
        &[
            required("token", Kind::Text),
            required("info", Kind::Object),
            required("state", Kind::Text),
            optional("failure_reason", Kind::Text),
            optional("checksum", Kind::Text),
            required("output", Kind::Object),
            optional("exit_code", Kind::Integer),
            optional("runtime_environment_key", Kind::Text),
        ],
    );
    body_check::check_info(body, InfoKind::Full, &mut findings);
    if let Some(output) = body.get("output").and_then(Value::as_object) {
        let members = [optional("checksum", Kind::Text), optional("bytesize", Kind::Integer)];
        body_check::check_object(output, "output.", &members, &mut findings);
    }
    call.settle(findings)?;
    let token = call.token("job-token", body)?;
    authenticate(core, Endpoint::UpdateJob, &job, token)?;
    running(core, Endpoint::UpdateJob, &job, true)?;
    check_values(call, body);

    let output = body.get("output").unwrap_or(&Value::Null);
    let own = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let update = Update {
        state: own(body.get("state")),
        failure_reason: own(body.get("failure_reason")),
        checksum: own(output.get("checksum")),
        bytesize: output.get("bytesize").and_then(Value::as_u64),
        exit_code: body.get("exit_code").and_then(Value::as_i64),
    };
    let decision = job.take_update(&update);
    if decision.confirmed {
        watch_running(&job);
    }
    let refused = decision.status.is_client_error().then_some(decision.status);
    for (rule, detail) in decision.breaches {
        core.violation(rule, Endpoint::UpdateJob, Some(job.id), refused, detail);
    }
    let reply = text(decision.status, decision.status.as_u16().to_string());
    Ok(with_state(core, reply, decision.state))
}

/// Values that GitLab takes and no runner should send.
fn check_values(call: &JsonCall, body: &Value) {
    let well_formed = |sum: &str| {
        sum.strip_prefix("crc32:").is_some_and(|hex| {
            hex.len() == 8 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let sum = body.pointer("/output/checksum").and_then(Value::as_str);
    if let Some(sum) = sum.filter(|sum| !well_formed(sum)) {
        call.note(
            Rule::BadValue,
            &format!("checksum `{sum}` is not `crc32:` and eight lower-case hex digits"),
        );
    }
    let copy = body.get("checksum").and_then(Value::as_str);
    if copy.is_some() && copy != sum {
        call.note(Rule::BadValue, "`checksum` and `output.checksum` differ");
    }
    if body.get("exit_code").and_then(Value::as_i64) == Some(0) {
        call.note(Rule::BadValue, "`exit_code` 0 is left out");
    }
}

pub(crate) async fn patch_trace(call: Call<'_>) -> Reply {
    call.check_common_headers();
    patched(call).await.unwrap_or_else(|reply| reply)
}

async fn patched(mut call: Call<'_>) -> Result<Reply, Reply> {
    let core = Arc::clone(call.core);
    let job = find(&core, Endpoint::PatchTrace, call.id)?;
    let token = call.header("job-token").unwrap_or("");
    authenticate(&core, Endpoint::PatchTrace, &job, token)?;
    running(&core, Endpoint::PatchTrace, &job, false)?;
    let (start, last) = content_range(&call)?;
    if call.header("content-type") != Some("text/plain") {
        call.note(Rule::BadHeader, "`Content-Type` of a log patch is not `text/plain`");
    }
    check_debug_trace(&call, &job);

    let expected = last - start + 1;
    let (mut chunks, mut len) = (Vec::new(), 0_u64);
    while let Some(frame) = call.body.frame().await {
        // The runner went away in the middle: as if the call had never come.
        let frame = frame.map_err(|error| refusal(StatusCode::BAD_REQUEST, &error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            len += data.len() as u64;
            if len > expected {
                break;
            }
            chunks.push(data);
        }
    }
    if len != expected {
        let detail =
            format!("`Content-Range: {start}-{last}` announces {expected} bytes, the body has {len}");
        return Err(call.refuse(StatusCode::BAD_REQUEST, Rule::ContentRange, &detail));
    }
    // The job may have ended while the body came in.
    running(&core, Endpoint::PatchTrace, &job, false)?;
    let decision = job.take_patch(&Patch { start, chunks, len });
    let refused = decision.status.is_client_error().then_some(decision.status);
    for (rule, detail) in decision.breaches {
        core.violation(rule, Endpoint::PatchTrace, Some(job.id), refused, detail);
    }
    let reply = match decision.status {
        StatusCode::ACCEPTED => text(decision.status, format!("0-{}", decision.log_bytes)),
        status => refusal(status, ""),
    };
    let reply = match decision.status {
        StatusCode::FORBIDDEN => reply,
        _ => with_header(reply, "range", &format!("0-{}", decision.log_bytes)),
    };
    Ok(with_state(&core, reply, decision.state))
}

fn content_range(call: &Call<'_>) -> Result<(u64, u64), Reply> {
    let refuse = |detail: &str| call.refuse(StatusCode::BAD_REQUEST, Rule::ContentRange, detail);
    let Some(range) = call.header("content-range") else {
        return Err(refuse("Missing header Content-Range"));
    };
    let parsed = range.split_once('-').and_then(|(start, last)| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let pair = (start.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        (digits(start) && digits(last)).then_some(pair)
    });
    match parsed {
        Some((start, last)) if start <= last => Ok((start, last)),
        Some(_) => Err(refuse(&format!("`Content-Range: {range}` is empty; an empty patch is never sent"))),
        None => Err(refuse(&format!("`Content-Range: {range}` is not `<first>-<last>`"))),
    }
}

/// `debug_trace` says whether the job has a debug variable on.
fn check_debug_trace(call: &Call<'_>, job: &JobRecord) {
    let debug = |key: &str| matches!(key, "CI_DEBUG_TRACE" | "CI_DEBUG_SERVICES");
    let wanted = job.spec.variables.iter().any(|variable| {
        debug(&variable.key) && matches!(variable.value.to_lowercase().as_str(), "true" | "1")
    });
    let sent = call.query("debug_trace");
    if sent.as_deref() != Some(if wanted { "true" } else { "false" }) {
        call.note(
            Rule::BadValue,
            &format!("`debug_trace` is {sent:?} where the job's variables say {wanted}"),
        );
    }
}

/// The job that a path names.
pub(crate) fn find(core: &Core, endpoint: Endpoint, id: Option<u64>) -> Result<Arc<JobRecord>, Reply> {
    id.and_then(|id| core.job(id)).ok_or_else(|| {
        let status = core.config().unknown_job;
        core.violation(Rule::UnknownJob, endpoint, id, Some(status), "there is no such job");
        refusal(status, "")
    })
}

/// The token must be the job's own.
pub(crate) fn authenticate(
    core: &Core,
    endpoint: Endpoint,
    job: &JobRecord,
    token: &str,
) -> Result<(), Reply> {
    if token == job.token {
        return Ok(());
    }
    let detail = match token {
        "" => "no `JOB-TOKEN`".to_owned(),
        other => format!("`JOB-TOKEN` {} is not this job's", shorten(other)),
    };
    let rule = if token.is_empty() { Rule::MissingHeader } else { Rule::WrongToken };
    core.violation(rule, endpoint, Some(job.id), Some(StatusCode::FORBIDDEN), detail);
    Err(refusal(StatusCode::FORBIDDEN, ""))
}

/// The job must be running on a runner.
pub(crate) fn running(
    core: &Core,
    endpoint: Endpoint,
    job: &JobRecord,
    is_update: bool,
) -> Result<(), Reply> {
    let Err((state, breach)) = job.check_running(is_update) else { return Ok(()) };
    if let Some((rule, detail)) = breach {
        core.violation(rule, endpoint, Some(job.id), Some(StatusCode::FORBIDDEN), detail);
    }
    let reply = refusal(StatusCode::FORBIDDEN, "Job is not processing on runner");
    Err(with_header(reply, JOB_STATUS, state.status()))
}

fn with_state(core: &Core, reply: Reply, state: JobState) -> Reply {
    let reply = with_header(reply, JOB_STATUS, state.status());
    match core.trace_interval() {
        Some(seconds) => with_header(reply, TRACE_INTERVAL, &seconds.to_string()),
        None => reply,
    }
}
