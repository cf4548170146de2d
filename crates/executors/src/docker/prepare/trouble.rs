//! Calls to the engine that failed, for people.

use super::super::engine::{Engine, EngineError};
use crate::PrepareError;

/// A call that failed, as a failure of the preparation.
pub(crate) fn failed(engine: &Engine, error: EngineError) -> PrepareError {
    match error {
        EngineError::BadRequest(text) if text.contains("HTTP request to an HTTPS server") => {
            PrepareError::Configuration(format!(
                "{} answers: {} Set `tls_verify`, and `tls_cert_path` to the folder with ca.pem, cert.pem and key.pem",
                engine.place(),
                text.trim()
            ))
        }
        EngineError::BadRequest(text) => {
            PrepareError::Configuration(format!("Error response from daemon: {text}"))
        }
        EngineError::Unreachable(why) => {
            PrepareError::System(format!("{} cannot be reached: {why}{}", engine.place(), hint(&why)))
        }
        EngineError::NotFound(text) | EngineError::Conflict(text) | EngineError::Failed(text) => {
            PrepareError::System(format!("Error response from daemon: {text}"))
        }
    }
}

/// What to do about the usual causes.
fn hint(why: &str) -> &'static str {
    if why.contains("No such file or directory") || why.contains("Connection refused") {
        " (is the engine running there?)"
    } else if why.contains("fatal alert") {
        " (the engine wants a client certificate that it knows: cert.pem and key.pem in tls_cert_path)"
    } else if why.contains("invalid peer certificate") {
        " (ca.pem in tls_cert_path must be of the authority that signed the engine's certificate)"
    } else if why.contains("connect failed") {
        " (does the engine run there, and may the SSH user open its socket, for example by the group docker?)"
    } else if why.contains("prohibited") {
        " (sshd of the instance must allow it: AllowStreamLocalForwarding yes, AllowTcpForwarding yes)"
    } else if why.contains("Permission denied") {
        " (the user must be allowed to use the engine's socket, for example by the group docker)"
    } else {
        ""
    }
}
