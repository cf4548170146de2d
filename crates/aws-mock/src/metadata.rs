//! The metadata service that each instance has: version 2, with tokens.
//!
//! Instances of the stand-in share one machine, so one address serves all of them, and the first part of the path is the
//! instance that asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::instance::Instance;
use crate::mock::Inner;

/// Longest life of a token in seconds.
const MOST_TTL: i64 = 21_600;

/// What is wrong with the metadata services of all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataFault {
    /// They are switched off (`HttpEndpoint` is `disabled`).
    Off,
    /// They take requests and never answer.
    Silent,
    /// Something else answers there: endless text for every question.
    Endless,
    /// Every answer is text that nobody expects.
    Garbage,
    /// Tokens are forgotten between any two questions.
    Forgetful,
}

/// What was announced for an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announced {
    /// When the spot instance is taken.
    pub(crate) taken: Option<DateTime<Utc>>,
    /// When leaving it was advised.
    pub(crate) advised: Option<DateTime<Utc>>,
    /// When its scheduled event begins.
    pub(crate) event_at: Option<DateTime<Utc>>,
}

/// Tokens that were given out, and how often each instance was asked.
#[derive(Debug, Default)]
pub(crate) struct Metadata(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    fault: Option<MetadataFault>,
    count: u64,
    tokens: BTreeMap<String, (String, DateTime<Utc>)>,
    asked: BTreeMap<String, u64>,
}

// === impl Metadata ===

impl Metadata {
    pub(crate) fn set_fault(&self, fault: Option<MetadataFault>) {
        self.given().fault = fault;
    }

    pub(crate) fn asked(&self, instance: &str) -> u64 {
        self.given().asked.get(instance).copied().unwrap_or(0)
    }

    fn arrived(&self, instance: &str) -> Option<MetadataFault> {
        let mut given = self.given();
        *given.asked.entry(instance.to_owned()).or_default() += 1;
        given.fault
    }

    fn token(&self, instance: &str, until: DateTime<Utc>) -> String {
        let mut given = self.given();
        given.count += 1;
        let token = format!("AQAAA{:08x}==", given.count);
        given.tokens.insert(token.clone(), (instance.to_owned(), until));
        token
    }

    fn knows(&self, token: &str, instance: &str, now: DateTime<Utc>) -> bool {
        let given = self.given();
        given.tokens.get(token).is_some_and(|(of, until)| of == instance && now < *until)
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    let router = Router::new().fallback(answer).with_state(inner);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the metadata services have ended");
    }
}

async fn answer(State(inner): State<Arc<Inner>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let Some((id, path)) = uri.path().trim_start_matches('/').split_once('/') else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match inner.metadata.arrived(id) {
        Some(MetadataFault::Off) => return StatusCode::FORBIDDEN.into_response(),
        Some(MetadataFault::Silent) => std::future::pending().await,
        Some(MetadataFault::Endless) => {
            let endless = stream::repeat_with(|| Ok::<_, std::io::Error>("endless ".repeat(1024)));
            return Body::from_stream(endless).into_response();
        }
        Some(MetadataFault::Garbage) if method == Method::GET => {
            return "<html>\u{1b}[31mproxy</html>".into_response();
        }
        Some(MetadataFault::Garbage | MetadataFault::Forgetful) | None => {}
    }
    let now = inner.now();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if method == Method::PUT && path == "latest/api/token" {
        let ttl = header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=MOST_TTL).contains(ttl)) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let until = if inner.metadata.given().fault == Some(MetadataFault::Forgetful) { 0 } else { ttl };
        return inner.metadata.token(id, now + TimeDelta::seconds(until)).into_response();
    }
    if method != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let token = header("x-aws-ec2-metadata-token").unwrap_or_default();
    if !inner.metadata.knows(token, id, now) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let said = inner.look(|world| {
        let instance = world.instances.get(id).filter(|instance| instance.stage.ec2().0 == "running")?;
        document(instance, path)
    });
    match said {
        Some(document) => document.to_string().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// One document about an instance; none while it does not exist.
fn document(instance: &Instance, path: &str) -> Option<Value> {
    let seconds = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let announced = &instance.announced;
    match path {
        "latest/meta-data/instance-id" => Some(instance.id.clone().into()),
        "latest/meta-data/spot/instance-action" => {
            let at = announced.taken.filter(|_| instance.spot_mark.is_some())?;
            Some(json!({ "action": "terminate", "time": seconds(at) }))
        }
        "latest/meta-data/events/recommendations/rebalance" => {
            Some(json!({ "noticeTime": seconds(announced.advised?) }))
        }
        "latest/meta-data/events/maintenance/scheduled" => {
            let events = instance.event.iter().zip(announced.event_at).map(|(code, at)| {
                json!({
                    "NotBefore": at.format("%-d %b %Y %H:%M:%S GMT").to_string(),
                    "Code": code,
                    "Description": "The instance is running on degraded hardware",
                    "EventId": "instance-event-0d59937288b749b32",
                    "NotAfter": (at + TimeDelta::hours(2)).format("%-d %b %Y %H:%M:%S GMT").to_string(),
                    "State": "active",
                })
            });
            Some(Value::Array(events.collect()))
        }
        _ => None,
    }
}
