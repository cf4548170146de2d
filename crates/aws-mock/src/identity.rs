//! Who a call is from, and the places where an SDK finds credentials that are not in a file: STS, the portal of IAM Identity Center,
//! the endpoint for containers, and the metadata service of the machine that asks.
//!
//! Every key that is handed out here is known to `GetCallerIdentity`, so that a test sees by which way credentials came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::json;

use crate::fault::{ErrorAnswer, Service};
use crate::mock::Inner;
use crate::query::Query;
use crate::xml::Xml;

/// The identity of keys that nobody has handed out.
const USER: &str = "arn:aws:iam::123456789012:user/runner";
/// Role of the machine that asks its own metadata service.
pub(crate) const MACHINE_ROLE: &str = "manager";
/// Opens the metadata service.
const TOKEN: &str = "metadata-token";
const SECRET: &str = "wJalrXUtnFEMI";

/// Keys that were handed out, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Identities(Mutex<BTreeMap<String, String>>);

/// Credentials that end after a while.
struct Issued {
    key: String,
    session: String,
    expires: String,
}

// === impl Identities ===

impl Identities {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a key for an identity.
    fn issue(&self, arn: &str) -> Issued {
        let mut known = self.known();
        let key = format!("ASIAEXAMPLE{:05}", known.len());
        known.insert(key.clone(), arn.to_owned());
        let expires = (Utc::now() + TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
        Issued { session: format!("session-{key}"), key, expires }
    }

    /// Gives a long-lived key an identity.
    pub(crate) fn name(&self, key: &str, arn: &str) {
        self.known().insert(key.to_owned(), arn.to_owned());
    }

    /// Whose the key is that a call is signed with.
    fn caller(&self, headers: &HeaderMap) -> String {
        let signature =
            headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let key = signature.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next());
        key.and_then(|key| self.known().get(key).cloned()).unwrap_or_else(|| USER.to_owned())
    }
}

/// The actions of STS.
pub(crate) fn answer(
    inner: &Inner,
    action: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Xml, ErrorAnswer> {
    let missing = |what: &str| ErrorAnswer::new("ValidationError", format!("{what} is missing"));
    let parameter =
        |name: &str| query.get(name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name));
    let caller = inner.identities.caller(headers);
    match action {
        "GetCallerIdentity" => {
            Ok(Xml::new().text("Arn", &caller).text("UserId", "AIDAEXAMPLE").text("Account", "123456789012"))
        }
        "AssumeRole" => Ok(session(inner, parameter("RoleArn")?, parameter("RoleSessionName")?, &caller)),
        "AssumeRoleWithWebIdentity" => {
            let token = parameter("WebIdentityToken")?;
            Ok(session(inner, parameter("RoleArn")?, parameter("RoleSessionName")?, token.trim()))
        }
        _ => Err(crate::server::unknown(action)),
    }
}

/// Credentials of a role. Its session is named after who asked for it.
fn session(inner: &Inner, role: &str, session: &str, asked: &str) -> Xml {
    let asked = asked.rsplit('/').next().unwrap_or_default();
    let role = role.rsplit('/').next().unwrap_or_default();
    let arn = format!("arn:aws:sts::123456789012:assumed-role/{role}/{asked}");
    let issued = inner.identities.issue(&arn);
    let user = Xml::new().text("Arn", &arn).text("AssumedRoleId", format!("AROAEXAMPLE:{session}"));
    let credentials = Xml::new()
        .text("AccessKeyId", &issued.key)
        .text("SecretAccessKey", SECRET)
        .text("SessionToken", &issued.session)
        .text("Expiration", &issued.expires);
    Xml::new().inner("AssumedRoleUser", user).inner("Credentials", credentials)
}

/// What the portal of IAM Identity Center answers to whoever has logged in.
pub(crate) async fn portal(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Parameters(parameters): Parameters<BTreeMap<String, String>>,
) -> Response {
    let token = headers.get("x-amz-sso_bearer_token").and_then(|value| value.to_str().ok());
    let parameter = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let (account, role) = (parameter("account_id"), parameter("role_name"));
    let refused = inner.arrived(Service::Sts, "GetRoleCredentials").is_err();
    if refused || token != Some("portal-token") || account.is_empty() || role.is_empty() {
        let body = Json(json!({ "message": "Session token not found or invalid" }));
        return (StatusCode::UNAUTHORIZED, [("x-amzn-errortype", "UnauthorizedException")], body)
            .into_response();
    }
    let arn = format!("arn:aws:sts::{account}:assumed-role/AWSReservedSSO_{role}/person");
    let Issued { key, session, .. } = inner.identities.issue(&arn);
    let expires = (Utc::now() + TimeDelta::hours(1)).timestamp_millis();
    let credentials = json!({
        "accessKeyId": key, "secretAccessKey": SECRET, "sessionToken": session, "expiration": expires,
    });
    Json(json!({ "roleCredentials": credentials })).into_response()
}

/// The endpoint for containers (ECS, EKS pod identity).
pub(crate) async fn container(State(inner): State<Arc<Inner>>, headers: HeaderMap) -> Response {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    if inner.arrived(Service::Sts, "ContainerCredentials").is_err()
        || authorization != Some("container-token")
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let arn = "arn:aws:sts::123456789012:assumed-role/task/container";
    let Issued { key, session, expires } = inner.identities.issue(arn);
    Json(json!({ "AccessKeyId": key, "SecretAccessKey": SECRET, "Token": session, "Expiration": expires }))
        .into_response()
}

/// A session of the metadata service.
pub(crate) async fn metadata_token() -> Response {
    ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], TOKEN).into_response()
}

/// What the machine knows of itself.
pub(crate) async fn metadata(
    State(inner): State<Arc<Inner>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    if headers.get("x-aws-ec2-metadata-token").and_then(|value| value.to_str().ok()) != Some(TOKEN) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let credentials = format!("iam/security-credentials/{MACHINE_ROLE}");
    match path.as_str() {
        "placement/region" => "eu-west-1".into_response(),
        "iam/security-credentials/" => MACHINE_ROLE.into_response(),
        path if path == credentials => {
            let arn = format!("arn:aws:sts::123456789012:assumed-role/{MACHINE_ROLE}/i-0123456789abcdef0");
            let Issued { key, session, expires } = inner.identities.issue(&arn);
            Json(json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": key,
                "SecretAccessKey": SECRET, "Token": session, "Expiration": expires,
            }))
            .into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
