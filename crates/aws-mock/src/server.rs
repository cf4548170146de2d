//! HTTP: one address for every service, as SDKs use an overridden endpoint.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use tokio::net::TcpListener;

use crate::fault::{ErrorAnswer, Service};
use crate::mock::Inner;
use crate::query::Query;
use crate::xml::Xml;
use crate::{autoscaling, connect, ec2, identity};

const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

pub(crate) async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    let router = Router::new()
        .route("/federation/credentials", get(identity::portal))
        .route("/container/credentials", get(identity::container))
        .route("/latest/api/token", put(identity::metadata_token))
        .route("/latest/meta-data/{*path}", get(identity::metadata))
        .fallback(call)
        .with_state(inner);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the stand-in for AWS has ended");
    }
}

async fn call(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    inner.advance().await;
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let answer = match target {
        Some(target) => {
            let action = target.rsplit('.').next().unwrap_or_default().to_owned();
            json(&inner, &action, &body).await
        }
        None => query(&inner, &headers, &Query::parse(&body)),
    };
    // What the call has changed begins to happen at once.
    inner.advance().await;
    answer
}

async fn json(inner: &Inner, action: &str, body: &[u8]) -> Response {
    let outcome = match inner.arrived(Service::InstanceConnect, action) {
        Ok(()) => connect::send_ssh_public_key(inner, action, body).await,
        Err(fault) => Err(fault),
    };
    let kind = [
        (header::CONTENT_TYPE, "application/x-amz-json-1.1"),
        (HeaderName::from_static("x-amzn-requestid"), REQUEST_ID),
    ];
    match outcome {
        Ok(answer) => (kind, answer.to_string()).into_response(),
        Err(error) => {
            let body = serde_json::json!({ "__type": error.code, "Message": error.message });
            (status(error.status), kind, body.to_string()).into_response()
        }
    }
}

fn query(inner: &Inner, headers: &HeaderMap, query: &Query) -> Response {
    let action = query.get("Action").unwrap_or_default();
    let service = service_of(action, headers);
    // Who has a token of another issuer has no key yet.
    let signed = if action == "AssumeRoleWithWebIdentity" { Ok(()) } else { signed(headers) };
    let outcome = signed.and_then(|()| inner.arrived(service, action)).and_then(|()| match service {
        Service::AutoScaling => autoscaling::answer(inner, action, query),
        Service::Ec2 => ec2::answer(inner, action, query),
        Service::Sts => identity::answer(inner, action, query, headers),
        Service::InstanceConnect => Err(unknown(action)),
    });
    let kind = [(header::CONTENT_TYPE, "text/xml")];
    match (outcome, service) {
        (Ok(body), Service::Ec2) => {
            let whole = Xml::new().text("requestId", REQUEST_ID).into_string() + &body.into_string();
            (kind, format!("<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">{whole}</{action}Response>"))
                .into_response()
        }
        (Ok(body), Service::AutoScaling | Service::Sts | Service::InstanceConnect) => {
            let body = Xml::new()
                .inner(&format!("{action}Result"), body)
                .inner("ResponseMetadata", Xml::new().text("RequestId", REQUEST_ID))
                .into_string();
            (kind, format!("<{action}Response>{body}</{action}Response>")).into_response()
        }
        (Err(error), Service::Ec2) => {
            let error_xml = Xml::new().text("Code", &error.code).text("Message", &error.message);
            let body = Xml::new().inner(
                "Response",
                Xml::new().list("Errors", "Error", [error_xml]).text("RequestID", REQUEST_ID),
            );
            (status(error.status), kind, body.into_string()).into_response()
        }
        (Err(error), Service::AutoScaling | Service::Sts | Service::InstanceConnect) => {
            let side = if error.status < 500 { "Sender" } else { "Receiver" };
            let error_xml =
                Xml::new().text("Type", side).text("Code", &error.code).text("Message", &error.message);
            let body = Xml::new()
                .inner("ErrorResponse", Xml::new().inner("Error", error_xml).text("RequestId", REQUEST_ID));
            (status(error.status), kind, body.into_string()).into_response()
        }
    }
}

pub(crate) fn unknown(action: &str) -> ErrorAnswer {
    ErrorAnswer::new("InvalidAction", format!("Could not find operation {action} for this version"))
}

/// Calls are signed; whether rightly is not examined.
fn signed(headers: &HeaderMap) -> Result<(), ErrorAnswer> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if authorization.is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=")) {
        return Ok(());
    }
    let message = "Request is missing Authentication Token";
    Err(ErrorAnswer { status: 403, ..ErrorAnswer::new("MissingAuthenticationToken", message) })
}

/// The service is part of the signature.
fn service_of(action: &str, headers: &HeaderMap) -> Service {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scope = authorization.unwrap_or_default();
    if scope.contains("/autoscaling/") {
        Service::AutoScaling
    } else if scope.contains("/sts/") || action == "GetCallerIdentity" || action.starts_with("AssumeRole") {
        Service::Sts
    } else {
        Service::Ec2
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
