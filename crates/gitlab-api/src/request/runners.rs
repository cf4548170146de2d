//! Calls about a runner and its manager.

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use job_payload::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    ApiRequest, PRIVATE_TOKEN, RUNNER_TOKEN, RegisterRequest, authenticate, encode, json, without_answer,
};
use crate::{ClientError, Endpoint, RunnerInfo};

/// `POST runners`. Only the network features are advertised, as GitLab Runner does here: pass an `info` without executor.
///
/// # Errors
/// [`ClientError::Token`], [`ClientError::Encode`]; the same holds for all functions here.
pub fn register(
    token: &SecretString,
    request: &RegisterRequest,
    info: &RunnerInfo,
) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(flatten)]
        request: &'a RegisterRequest,
        info: &'a RunnerInfo,
        token: &'a str,
    }
    let request = RegisterRequest {
        run_untagged: request.run_untagged || request.tag_list.is_empty(),
        ..request.clone()
    };
    let body = Body { request: &request, info, token: token.expose_secret() };
    json(Endpoint::Register, (RUNNER_TOKEN, token), &body)
}

/// `POST runners/verify`. `info` is always sent: GitLab keeps a manager's features from its first call.
///
/// # Errors
/// See [`register`].
pub fn verify(token: &SecretString, system_id: &str, info: &RunnerInfo) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        info: &'a RunnerInfo,
        token: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        system_id: &'a str,
    }
    json(Endpoint::Verify, (RUNNER_TOKEN, token), &Body { info, token: token.expose_secret(), system_id })
}

/// `DELETE runners`
///
/// # Errors
/// See [`register`].
pub fn unregister_runner(token: &SecretString) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
    }
    let body = Body { token: token.expose_secret() };
    Ok(without_answer(json(Endpoint::UnregisterRunner, (RUNNER_TOKEN, token), &body)?))
}

/// `DELETE runners/managers`
///
/// # Errors
/// See [`register`].
pub fn unregister_manager(token: &SecretString, system_id: &str) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
        system_id: &'a str,
    }
    let body = Body { token: token.expose_secret(), system_id };
    Ok(without_answer(json(Endpoint::UnregisterManager, (RUNNER_TOKEN, token), &body)?))
}

/// `POST runners/reset_authentication_token`, authenticated by the token in the body alone.
///
/// # Errors
/// See [`register`].
pub fn reset_token(token: &SecretString) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
    }
    encode(Endpoint::ResetToken, HeaderMap::with_capacity(4), &Body { token: token.expose_secret() })
}

/// `POST runners/{id}/reset_authentication_token` with a personal access token; the body is the JSON text `null`.
///
/// # Errors
/// See [`register`].
pub fn reset_token_with_pat(runner: u64, pat: &SecretString) -> Result<ApiRequest, ClientError> {
    let mut request = json(Endpoint::ResetTokenWithPat, (PRIVATE_TOKEN, pat), &())?;
    request.path = format!("runners/{runner}/reset_authentication_token");
    Ok(request)
}

/// `GET runners/router/discovery`
///
/// # Errors
/// See [`register`].
pub fn discovery(token: &SecretString) -> Result<ApiRequest, ClientError> {
    let mut headers = HeaderMap::with_capacity(4);
    authenticate(&mut headers, RUNNER_TOKEN, token)?;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let endpoint = Endpoint::Discovery;
    Ok(ApiRequest { endpoint, path: endpoint.path().to_owned(), headers, body: Bytes::new() })
}
