//! Job inputs: `${{ job.inputs.NAME }}`.

use std::collections::BTreeMap;

use job_payload::{Image, Input, Job};
use serde_json::Value;

/// Inputs that cannot be put in place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The payload's own entry is wrong.
    #[error("job input `{key}`: {problem}")]
    Malformed {
        /// Its name.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no such input.
    #[error("`job.inputs.{0}` is not an input of this job")]
    Unknown(String),
    /// Something other than the name of an input.
    #[error("expression `{0}` is not supported: only `job.inputs.NAME` is")]
    Expression(String),
    /// `${{` without `}}`.
    #[error("an expression is not closed: `}}}}` is missing")]
    Unclosed,
    /// The value must not be shown.
    #[error("`job.inputs.{0}` is sensitive and cannot be used here")]
    Sensitive(String),
}

struct Known {
    text: String,
    sensitive: bool,
}

/// Puts inputs in place wherever GitLab Runner does. Nothing is touched when the job has no inputs.
pub(crate) fn interpolate(job: &mut Job) -> Result<(), InputError> {
    if job.inputs.is_empty() {
        return Ok(());
    }
    let values = read(&job.inputs)?;
    for step in job.steps.iter_mut().filter(|step| matches!(step.name.as_str(), "script" | "after_script")) {
        all(&mut step.script, &values)?;
    }
    image(&mut job.image, &values)?;
    for service in &mut job.services {
        image(service, &values)?;
    }
    for artifact in &mut job.artifacts {
        for text in [&mut artifact.name, &mut artifact.when, &mut artifact.expire_in] {
            one(text, &values)?;
        }
        all(&mut artifact.paths, &values)?;
        all(&mut artifact.exclude, &values)?;
    }
    for cache in &mut job.cache {
        one(&mut cache.key, &values)?;
        one(&mut cache.policy, &values)?;
        all(&mut cache.paths, &values)?;
        all(&mut cache.fallback_keys, &values)?;
    }
    Ok(())
}

fn image(image: &mut Image, values: &BTreeMap<&str, Known>) -> Result<(), InputError> {
    one(&mut image.name, values)?;
    all(&mut image.command, values)?;
    all(&mut image.entrypoint, values)?;
    all(&mut image.pull_policy, values)?;
    one(&mut image.executor_opts.docker.platform, values)?;
    one(&mut image.executor_opts.docker.user, values)?;
    one(&mut image.executor_opts.kubernetes.user, values)
}

fn all(texts: &mut [String], values: &BTreeMap<&str, Known>) -> Result<(), InputError> {
    texts.iter_mut().try_for_each(|text| one(text, values))
}

fn one(text: &mut String, values: &BTreeMap<&str, Known>) -> Result<(), InputError> {
    if !text.contains("${{") {
        return Ok(());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("${{") {
        out.push_str(before);
        let (expression, after) = after.split_once("}}").ok_or(InputError::Unclosed)?;
        let expression = expression.trim();
        let name = expression
            .strip_prefix("job.inputs.")
            .filter(|name| {
                !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            })
            .ok_or_else(|| InputError::Expression(expression.to_owned()))?;
        let value = values.get(name).ok_or_else(|| InputError::Unknown(name.to_owned()))?;
        if value.sensitive {
            return Err(InputError::Sensitive(name.to_owned()));
        }
        out.push_str(&value.text);
        rest = after;
    }
    out.push_str(rest);
    *text = out;
    Ok(())
}

fn read(inputs: &[Input]) -> Result<BTreeMap<&str, Known>, InputError> {
    inputs
        .iter()
        .map(|input| {
            let malformed = |problem| InputError::Malformed { key: input.key.clone(), problem };
            if input.key.is_empty() {
                return Err(malformed("has no key"));
            }
            let content = input.value.get("content").ok_or_else(|| malformed("has no content"))?;
            let kind = input.value.get("type").and_then(Value::as_str).unwrap_or_default();
            let fits = match kind {
                "string" => content.is_string(),
                "number" => content.is_number(),
                "boolean" => content.is_boolean(),
                "array" => content.is_array(),
                "struct" => content.is_object(),
                _ => return Err(malformed("is of an unknown type")),
            };
            if !fits {
                return Err(malformed("has a content that is not of its type"));
            }
            let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
            let sensitive = input.value.get("sensitive").and_then(Value::as_bool).unwrap_or(false);
            Ok((input.key.as_str(), Known { text, sensitive }))
        })
        .collect()
}
