//! What GitLab says of a failure.

use http::HeaderMap;

/// GitLab's own words in an error body: `message` of a JSON object, or `Code` and `Message` of a storage error in XML.
pub(crate) fn message(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = if kind.contains("xml") {
        let text = std::str::from_utf8(body).ok()?;
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner.trim().to_owned())
        };
        match (element("Code"), element("Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return None,
        }
    } else {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        flatten(value.get("message").or_else(|| value.get("error"))?)?
    };
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Text as it is; an object of lists as `key: a; b, key2: c`.
fn flatten(message: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    fn words(value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join("; "),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
        }
    }
    match message {
        Value::String(text) => Some(text.clone()),
        Value::Object(members) => Some(
            members
                .iter()
                .map(|(key, value)| format!("{key}: {}", words(value)))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        Value::Array(_) => Some(words(message)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
