//! Registration, verification, removal and rotation of runners.

use chrono::{SecondsFormat, Utc};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

use super::body_check::{self, InfoKind, Kind, always, optional, required};
use super::{Call, JsonCall};
use crate::body::{self, Reply, refusal};
use crate::core::{Core, random_text};
use crate::runner::RunnerRecord;
use crate::violation::{Rule, shorten};

/// Name of the manager of a runner that sends no `system_id`.
const LEGACY_SYSTEM_ID: &str = "<legacy>";

/// `POST runners`.
pub(crate) async fn register(call: Call<'_>) -> Reply {
    call.check_common_headers();
    call.check_accepts_json();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    registered(&call, &body).unwrap_or_else(|reply| reply)
}

fn registered(call: &JsonCall, body: &Value) -> Result<Reply, Reply> {
    let mut findings = body_check::check(
        body,
        &[
            required("token", Kind::Text),
            optional("description", Kind::Text),
            optional("maintenance_note", Kind::Text),
            optional("tag_list", Kind::Text),
            always("run_untagged", Kind::Flag),
            always("locked", Kind::Flag),
            optional("access_level", Kind::Text),
            optional("maximum_timeout", Kind::Integer),
            always("paused", Kind::Flag),
            always("info", Kind::Object),
        ],
    );
    body_check::check_info(body, InfoKind::WithoutExecutor, &mut findings);
    call.settle(findings)?;
    let token = call.token("runner-token", body)?;
    match body.get("access_level").and_then(Value::as_str) {
        None | Some("not_protected" | "ref_protected") => {}
        Some(other) => {
            let detail = format!("access_level does not have a valid value: `{other}`");
            return Err(call.refuse(StatusCode::BAD_REQUEST, Rule::BadValue, &detail));
        }
    }
    let core = &call.core;
    match core.config().registration_token.as_deref() {
        None => Ok(refusal(StatusCode::GONE, "runner registration disallowed")),
        Some(expected) if expected != token => {
            let detail = format!("registration token {} is not valid", shorten(token));
            Err(call.refuse(StatusCode::FORBIDDEN, Rule::WrongToken, &detail))
        }
        Some(_) => {
            let description = body.get("description").and_then(Value::as_str).unwrap_or("");
            let runner = core.add_runner(&random_text(), description);
            Ok(body::json(StatusCode::CREATED, &credentials(core, &runner)))
        }
    }
}

/// `POST runners/verify`.
pub(crate) async fn verify(call: Call<'_>) -> Reply {
    call.check_common_headers();
    call.check_accepts_json();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    verified(&call, &body).unwrap_or_else(|reply| reply)
}

fn verified(call: &JsonCall, body: &Value) -> Result<Reply, Reply> {
    let mut findings = body_check::check(
        body,
        &[required("token", Kind::Text), always("system_id", Kind::Text), required("info", Kind::Object)],
    );
    body_check::check_info(body, InfoKind::Full, &mut findings);
    body_check::check_system_id(body, &mut findings);
    call.settle(findings)?;
    let runner = authenticate(call, body)?;
    meet(&runner, body);
    Ok(body::json(StatusCode::OK, &credentials(&call.core, &runner)))
}

/// `DELETE runners`.
pub(crate) async fn unregister(call: Call<'_>) -> Reply {
    call.check_common_headers();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    let outcome = call
        .settle(body_check::check(&body, &[required("token", Kind::Text)]))
        .and_then(|()| authenticate(&call, &body));
    match outcome {
        Ok(runner) => {
            call.core.remove_runner(&runner);
            body::empty(StatusCode::NO_CONTENT)
        }
        Err(reply) => reply,
    }
}

/// `DELETE runners/managers`.
pub(crate) async fn unregister_manager(call: Call<'_>) -> Reply {
    call.check_common_headers();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    let members = [required("token", Kind::Text), required("system_id", Kind::Text)];
    let outcome = call.settle(body_check::check(&body, &members)).and_then(|()| authenticate(&call, &body));
    match outcome {
        Ok(runner) if runner.forget_manager(system_id(&body)) => body::empty(StatusCode::NO_CONTENT),
        Ok(_) => refusal(StatusCode::NOT_FOUND, "Runner manager not found"),
        Err(reply) => reply,
    }
}

/// `POST runners/reset_authentication_token`: with the current token in the body.
pub(crate) async fn reset_token(call: Call<'_>) -> Reply {
    call.check_common_headers();
    call.check_accepts_json();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    if let Err(reply) = call.settle(body_check::check(&body, &[required("token", Kind::Text)])) {
        return reply;
    }
    let token = body.get("token").and_then(Value::as_str).unwrap_or("");
    match runner_of(&call, token) {
        Ok(runner) => rotated(&call.core, &runner),
        Err(reply) => reply,
    }
}

/// `POST runners/{id}/reset_authentication_token`: with a personal access token.
pub(crate) async fn reset_token_by_id(call: Call<'_>) -> Reply {
    call.check_common_headers();
    call.check_accepts_json();
    let (call, body) = match call.json().await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    if !body.is_null() {
        call.note(Rule::MalformedBody, "the body of a reset with a personal access token is not `null`");
    }
    let Some(sent) = call.header("private-token") else {
        return call.refuse(StatusCode::UNAUTHORIZED, Rule::MissingHeader, "no `PRIVATE-TOKEN`");
    };
    if !call.core.config().personal_access_tokens.iter().any(|token| token == sent) {
        return refusal(StatusCode::UNAUTHORIZED, "");
    }
    match call.id.and_then(|id| call.core.runner_by_id(id)) {
        Some(runner) => rotated(&call.core, &runner),
        None => refusal(StatusCode::NOT_FOUND, "Runner not found"),
    }
}

/// `GET runners/router/discovery`: the mock has no job router.
pub(crate) fn discovery(call: &Call<'_>) -> Reply {
    call.check_common_headers();
    match call.header("runner-token").and_then(|token| call.core.runner_by_token(token)) {
        Some(_) => refusal(StatusCode::NOT_IMPLEMENTED, "Job Router is not available"),
        None => call.refuse(StatusCode::FORBIDDEN, Rule::WrongToken, "no valid `RUNNER-TOKEN`"),
    }
}

/// The runner whose token header and body carry.
pub(crate) fn authenticate(call: &JsonCall, body: &Value) -> Result<Arc<RunnerRecord>, Reply> {
    let token = call.token("runner-token", body)?;
    runner_of(call, token)
}

fn runner_of(call: &JsonCall, token: &str) -> Result<Arc<RunnerRecord>, Reply> {
    if let Some(runner) = call.core.runner_by_token(token) {
        return Ok(runner);
    }
    if call.core.is_retired(token) {
        return Err(refusal(StatusCode::FORBIDDEN, ""));
    }
    let detail = format!("runner token {} was never valid", shorten(token));
    Err(call.refuse(StatusCode::FORBIDDEN, Rule::WrongToken, &detail))
}

/// Remembers what the manager says about itself.
pub(crate) fn meet(runner: &RunnerRecord, body: &Value) {
    runner.meet_manager(system_id(body), body_check::manager(body));
}

pub(crate) fn system_id(body: &Value) -> &str {
    body.get("system_id").and_then(Value::as_str).unwrap_or(LEGACY_SYSTEM_ID)
}

fn credentials(core: &Core, runner: &RunnerRecord) -> Value {
    json!({ "id": runner.id, "token": runner.token(), "token_expires_at": expiry(core) })
}

fn rotated(core: &Core, runner: &Arc<RunnerRecord>) -> Reply {
    let token = core.rotate_token(runner);
    body::json(StatusCode::CREATED, &json!({ "token": token, "token_expires_at": expiry(core) }))
}

fn expiry(core: &Core) -> Option<String> {
    let life = core.config().token_lifetime?;
    Some((Utc::now() + life).to_rfc3339_opts(SecondsFormat::Millis, true))
}
