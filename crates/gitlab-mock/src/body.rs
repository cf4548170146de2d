//! Bodies and replies as the mock sends them.

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use serde::Serialize;

/// A body that the mock sends.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// An answer of the mock; boxed, since refusals travel as errors.
pub(crate) type Reply = Box<Response<Body>>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    bytes(status, None, Bytes::new())
}

/// An answer of plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    bytes(status, Some("text/plain; charset=utf-8"), Bytes::from(text.into()))
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(encoded) => bytes(status, Some("application/json"), Bytes::from(encoded)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A refusal in the shape of GitLab's API errors: `{"message": "403 Forbidden - reason"}`.
pub(crate) fn refusal(status: StatusCode, reason: &str) -> Reply {
    let mut message = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Unknown"));
    if !reason.is_empty() {
        message.push_str(" - ");
        message.push_str(reason);
    }
    json(status, &serde_json::json!({ "message": message }))
}

/// An answer of the given bytes.
pub(crate) fn bytes(status: StatusCode, content_type: Option<&'static str>, data: Bytes) -> Reply {
    let mut reply = Box::new(Response::new(Full::new(data).map_err(|never| match never {}).boxed_unsync()));
    *reply.status_mut() = status;
    if let Some(content_type) = content_type {
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    reply
}

/// An answer whose bytes come from a stream.
pub(crate) fn stream<S>(status: StatusCode, chunks: S) -> Reply
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    use futures_util::TryStreamExt as _;
    let mut reply =
        Box::new(Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks.map_ok(Frame::data)))));
    *reply.status_mut() = status;
    reply
}

/// Adds a header whose value the mock made itself; a value that is no header value is left out.
pub(crate) fn with_header(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    if let (Ok(name), Ok(value)) =
        (http::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
    {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// Why a request body could not be had.
#[derive(Debug)]
pub(crate) enum ReadError {
    TooLarge,
    Broken(String),
}

/// The whole body, up to `limit` bytes.
pub(crate) async fn read(body: Incoming, limit: usize) -> Result<Bytes, ReadError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ReadError::TooLarge),
        Err(error) => Err(ReadError::Broken(error.to_string())),
    }
}

/// Reads a body and throws it away, so that the connection can be used again.
pub(crate) async fn drain(mut body: Incoming) {
    while let Some(Ok(_frame)) = body.frame().await {}
}
