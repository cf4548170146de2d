//! The shape of JSON bodies: members, types, and what a runner says about itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::runner::ManagerView;
use crate::violation::Rule;

/// Every flag of `info.features`; a runner sends all of them, true or false.
pub const FEATURES: [&str; 31] = [
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

/// Something wrong with a body.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) detail: String,
    /// GitLab refuses the call.
    pub(crate) fatal: bool,
}

/// What a member may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Flag,
    Object,
}

/// A member of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    name: &'static str,
    kind: Kind,
    need: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// GitLab refuses the call without it.
    Required,
    /// Every runner sends it.
    Always,
    Optional,
}

/// How much of `info` a call carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InfoKind {
    /// Registration: the executor is not known yet.
    WithoutExecutor,
    Full,
}

pub(crate) const fn required(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, need: Need::Required }
}

pub(crate) const fn always(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, need: Need::Always }
}

pub(crate) const fn optional(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, need: Need::Optional }
}

/// Compares a body with its members.
pub(crate) fn check(body: &Value, members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match body.as_object() {
        Some(object) => check_object(object, "", members, &mut findings),
        None => findings.push(fatal(Rule::WrongType, "the body is not a JSON object".to_owned())),
    }
    findings
}

/// Compares `info` with what a runner says about itself.
pub(crate) fn check_info(body: &Value, kind: InfoKind, findings: &mut Vec<Finding>) {
    let Some(info) = body.get("info").and_then(Value::as_object) else { return };
    let mut members = vec![
        always("name", Kind::Text),
        always("version", Kind::Text),
        always("revision", Kind::Text),
        always("platform", Kind::Text),
        always("architecture", Kind::Text),
        required("features", Kind::Object),
        always("config", Kind::Object),
        optional("labels", Kind::Object),
    ];
    members.extend(match kind {
        InfoKind::Full => [always("executor", Kind::Text), always("shell", Kind::Text)],
        InfoKind::WithoutExecutor => [optional("executor", Kind::Text), optional("shell", Kind::Text)],
    });
    check_object(info, "info.", &members, findings);
    if let Some(config) = info.get("config").and_then(Value::as_object) {
        check_object(config, "info.config.", &[always("gpus", Kind::Text)], findings);
    }
    if let Some(labels) = info.get("labels").and_then(Value::as_object) {
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_string()) {
            findings.push(fatal(Rule::WrongType, format!("`info.labels.{name}` is {}", type_name(value))));
        }
    }
    if let Some(features) = info.get("features").and_then(Value::as_object) {
        let flags = FEATURES.map(|name| always(name, Kind::Flag));
        check_object(features, "info.features.", &flags, findings);
    }
}

/// What a runner says about itself, as far as it can be read.
pub(crate) fn manager(body: &Value) -> ManagerView {
    let info = body.get("info").unwrap_or(&Value::Null);
    let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let features: BTreeSet<String> = info
        .get("features")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, value)| value.as_bool() == Some(true))
        .map(|(name, _)| name.clone())
        .collect();
    ManagerView {
        name: text("name"),
        version: text("version"),
        platform: text("platform"),
        architecture: text("architecture"),
        executor: text("executor"),
        features,
    }
}

/// Checks the form of `system_id`: `s_` or `r_` and twelve letters or digits.
pub(crate) fn check_system_id(body: &Value, findings: &mut Vec<Finding>) {
    let Some(id) = body.get("system_id").and_then(Value::as_str) else { return };
    let well_formed = id
        .strip_prefix("s_")
        .or_else(|| id.strip_prefix("r_"))
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if !well_formed {
        let detail = format!("`system_id` is `{id}`, not `s_` or `r_` and twelve letters or digits");
        findings.push(Finding { rule: Rule::BadValue, detail, fatal: false });
    }
}

pub(crate) fn check_object(
    object: &Map<String, Value>,
    path: &str,
    members: &[Member],
    findings: &mut Vec<Finding>,
) {
    for member in members {
        let name = member.name;
        match object.get(name).filter(|value| !value.is_null()) {
            None if member.need == Need::Required => {
                findings.push(fatal(Rule::MissingField, format!("{path}{name} is missing")));
            }
            None if member.need == Need::Always => {
                let detail = format!("{path}{name} is missing, every runner sends it");
                findings.push(Finding { rule: Rule::MissingField, detail, fatal: false });
            }
            None => {}
            Some(value) if !member.kind.fits(value) => {
                let detail = format!("{path}{name} is {}, not {:?}", type_name(value), member.kind);
                findings.push(fatal(Rule::WrongType, detail));
            }
            Some(_) => {}
        }
    }
    for name in object.keys().filter(|name| !members.iter().any(|member| member.name == *name)) {
        let detail = format!("GitLab does not know {path}{name}");
        findings.push(Finding { rule: Rule::UnknownField, detail, fatal: false });
    }
}

// === impl Kind ===

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::Integer => value.is_i64() || value.is_u64(),
            Kind::Flag => value.is_boolean(),
            Kind::Object => value.is_object(),
        }
    }
}

fn fatal(rule: Rule, detail: String) -> Finding {
    Finding { rule, detail, fatal: true }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
