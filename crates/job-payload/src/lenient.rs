//! Taking a typed value out of a JSON value that may have any shape.
//!
//! Nothing here can fail as a whole: what does not fit is replaced by its default, and its path is noted. Values never appear in the notes,
//! because any of them may be a secret.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::model::*;

/// A type that can be taken out of JSON of any shape.
pub(crate) trait Lenient: Default {
    /// What is expected, for the notes.
    const EXPECTED: &'static str;

    /// The value, or `None` if its shape does not fit at all. `null` is handled by the caller.
    fn take(value: Value, notes: &mut Notes) -> Option<Self>;
}

/// Where we are, and what was odd so far.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    path: String,
    pub(crate) odd: Vec<String>,
}

// === impl Notes ===

impl Notes {
    /// Takes a member into its place; `null` leaves the default.
    fn member<T: Lenient>(&mut self, name: &str, value: Value, place: &mut T) {
        if value.is_null() {
            return;
        }
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        if let Some(taken) = self.take(value) {
            *place = taken;
        }
        self.path.truncate(before);
    }

    /// Takes an element of a list; `None` drops it.
    fn element<T: Lenient>(&mut self, index: usize, value: Value) -> Option<T> {
        if value.is_null() {
            return None;
        }
        let before = self.path.len();
        self.path.push('[');
        self.path.push_str(&index.to_string());
        self.path.push(']');
        let taken = self.take(value);
        self.path.truncate(before);
        taken
    }

    fn take<T: Lenient>(&mut self, value: Value) -> Option<T> {
        let found = kind(&value);
        let taken = T::take(value, self);
        if taken.is_none() {
            self.note(T::EXPECTED, found);
        }
        taken
    }

    fn note(&mut self, expected: &str, found: &str) {
        self.odd.push(format!("{}: expected {expected}, found {found}", self.path));
    }
}

impl Lenient for String {
    const EXPECTED: &'static str = "text";

    /// Numbers and truth values become their text: names, users and counts come as either.
    fn take(value: Value, _: &mut Notes) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Lenient for Token {
    const EXPECTED: &'static str = "text";

    fn take(value: Value, notes: &mut Notes) -> Option<Self> {
        String::take(value, notes).map(|text| Self(SecretString::from(text)))
    }
}

impl Lenient for bool {
    const EXPECTED: &'static str = "true or false";

    fn take(value: Value, _: &mut Notes) -> Option<Self> {
        match value {
            Value::Bool(truth) => Some(truth),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Lenient for f64 {
    const EXPECTED: &'static str = "a number";

    fn take(value: Value, _: &mut Notes) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Lenient for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn take(value: Value, _: &mut Notes) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().or_else(|| {
                // `3600.0`; the bounds keep the conversion exact.
                let float = number.as_f64()?;
                (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as Self)
            }),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Lenient for u64 {
    const EXPECTED: &'static str = "a whole number";

    fn take(value: Value, notes: &mut Notes) -> Option<Self> {
        match value.as_u64() {
            Some(number) => Some(number),
            None => i64::take(value, notes)?.try_into().ok(),
        }
    }
}

impl Lenient for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn take(value: Value, notes: &mut Notes) -> Option<Self> {
        i64::take(value, notes)?.try_into().ok()
    }
}

impl Lenient for Value {
    const EXPECTED: &'static str = "anything";

    fn take(value: Value, _: &mut Notes) -> Option<Self> {
        Some(value)
    }
}

impl<T: Lenient> Lenient for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn take(value: Value, notes: &mut Notes) -> Option<Self> {
        T::take(value, notes).map(Some)
    }
}

impl<T: Lenient> Lenient for Vec<T> {
    const EXPECTED: &'static str = "a list";

    /// Elements that do not fit are dropped, the others stay. A single scalar stands for a list of one.
    fn take(value: Value, notes: &mut Notes) -> Option<Self> {
        match value {
            Value::Array(elements) => Some(
                elements
                    .into_iter()
                    .enumerate()
                    .filter_map(|(index, element)| notes.element(index, element))
                    .collect(),
            ),
            scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                let found = kind(&scalar);
                let only = T::take(scalar, notes)?;
                notes.note(Self::EXPECTED, found);
                Some(vec![only])
            }
            Value::Null | Value::Object(_) => None,
        }
    }
}

impl<T: Lenient> Lenient for BTreeMap<String, T> {
    const EXPECTED: &'static str = "an object";

    fn take(value: Value, notes: &mut Notes) -> Option<Self> {
        let members = object(value)?;
        Some(
            members
                .into_iter()
                .map(|(name, value)| {
                    let mut place = T::default();
                    notes.member(&name, value, &mut place);
                    (name, place)
                })
                .collect(),
        )
    }
}

/// The members of a struct, by their names on the wire, which are matched without regard to case as Go does. Names that are not
/// listed are ignored, or kept in the member after `else`.
macro_rules! members {
    ($type:ident { $($rest:tt)* }) => { members!(@ $type [] $($rest)*); };
    (@ $type:ident [$($done:tt)*] $wire:literal => $member:ident $(, $($rest:tt)*)?) => {
        members!(@ $type [$($done)* ($wire, $member)] $($($rest)*)?);
    };
    (@ $type:ident [$($done:tt)*] else $unknown:ident) => { members!(! $type [$($done)*] $unknown); };
    (@ $type:ident [$($done:tt)*] $member:ident $(, $($rest:tt)*)?) => {
        members!(@ $type [$($done)* (stringify!($member), $member)] $($($rest)*)?);
    };
    (@ $type:ident [$($done:tt)*]) => { members!(! $type [$($done)*]); };
    (! $type:ident [$(($wire:expr, $member:ident))*] $($unknown:ident)?) => {
        impl Lenient for $type {
            const EXPECTED: &'static str = "an object";

            fn take(value: Value, notes: &mut Notes) -> Option<Self> {
                let mut taken = Self::default();
                for (name, value) in object(value)? {
                    $(if name.eq_ignore_ascii_case($wire) {
                        notes.member($wire, value, &mut taken.$member);
                        continue;
                    })*
                    $(taken.$unknown.insert(name, value);)?
                }
                Some(taken)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            /// Fails only if the input is no JSON.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                Ok(Self::take(value, &mut Notes::default()).unwrap_or_default())
            }
        }
    };
}

members!(Job {
    id,
    token,
    allow_git_fetch,
    job_info,
    git_info,
    runner_info,
    inputs,
    variables,
    steps,
    image,
    services,
    artifacts,
    cache,
    credentials,
    dependencies,
    features,
    secrets,
    hooks,
    run,
    policy_options,
    suspend_options
});
members!(JobInfo {
    name,
    stage,
    pipeline_id,
    project_id,
    project_name,
    project_full_path,
    namespace_id,
    root_namespace_id,
    organization_id,
    instance_id,
    instance_uuid,
    user_id,
    scoped_user_id,
    time_in_queue_seconds,
    project_jobs_running_on_instance_runners_count,
    queue_size,
    queue_depth
});
members!(GitInfo {
    repo_url, repo_object_format, "ref" => ref_name, sha, before_sha, ref_type, refspecs, depth, protected
});
members!(RunnerInfo { uuid, timeout });
members!(Input { key, value });
members!(Variable { key, value, public, file, masked, raw });
members!(Step { name, script, timeout, when, allow_failure });
members!(Image { name, alias, command, entrypoint, ports, variables, pull_policy, executor_opts });
members!(Port { number, protocol, name });
members!(ExecutorOptions { docker, kubernetes, else unknown });
members!(DockerOptions { platform, user, else unknown });
members!(KubernetesOptions { user, else unknown });
members!(Artifact { name, untracked, paths, exclude, when, artifact_type, artifact_format, expire_in });
members!(Cache { key, untracked, policy, paths, when, fallback_keys });
members!(Credential { "type" => kind, url, username, password });
members!(Dependency { id, token, name, artifacts_file });
members!(DependencyFile { filename, size });
members!(Features { trace_sections, token_mask_prefixes, failure_reasons, tracing });
members!(Hook { name, script });
members!(PolicyOptions {
    execution_policy_job,
    policy_name,
    policy_variables_override_allowed,
    policy_variables_override_exceptions
});
members!(SuspendOptions { suspend_on_success, suspend_on_failure, runtime_environment_key });

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
