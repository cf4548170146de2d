//! What can go wrong between the caller and GitLab.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use url::Url;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The client cannot be built, or a request cannot be formed. Nothing was sent. GitLab Runner calls this a *client
/// error*; on `jobs/request` it counts as unhealthy, because waiting does not mend it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of GitLab is no URL. The text is not repeated, because it may hold a password.
    #[error("the address of GitLab is not a URL")]
    Url(#[source] url::ParseError),
    /// Only `http` and `https` are spoken.
    #[error("the address of GitLab has the scheme `{0}`, but only http and https are supported")]
    Scheme(String),
    /// A certificate or key file exists but cannot be read, or one half of the client certificate is missing.
    #[error("failed to read `{}`", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no certificate in PEM or DER.
    #[error("`{}` holds no usable certificate: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds no private key in PEM or DER.
    #[error("`{}` holds no usable private key: {reason}", path.display())]
    PrivateKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client certificate and its key do not belong together.
    #[error("the client certificate `{}` cannot be used with the key `{}`", cert.display(), key.display())]
    Identity {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// TLS cannot be set up at all.
    #[error("failed to set up TLS")]
    Tls(#[source] Source),
    /// The HTTP client refuses its settings, for example the user agent.
    #[error("failed to build the HTTP client")]
    Build(#[source] reqwest::Error),
    /// A token holds characters that cannot stand in an HTTP header.
    #[error("the token for the header {0} contains characters that HTTP does not allow")]
    Token(&'static str),
    /// A request body could not be encoded.
    #[error("failed to encode a request for GitLab")]
    Encode(#[source] serde_json::Error),
}

/// Which call failed: the method, and the URL without user info, query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call(Box<(Method, Url)>);

/// Why a call did not give the answer that was wanted. The text is for people and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing was sent.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No answer: connection refused or lost, name not found, TLS failure other than [`ApiError::Untrusted`].
    #[error("{call}: no answer")]
    Transport {
        /// Which call.
        call: Call,
        /// Why.
        #[source]
        source: Source,
    },
    /// No answer in time.
    #[error("{call}: no answer within {} s", after.as_secs())]
    Timeout {
        /// Which call.
        call: Call,
        /// How long was waited.
        after: Duration,
    },
    /// The server's certificate is not trusted.
    #[error("{call}: the server's certificate is not trusted by {trust}")]
    Untrusted {
        /// Which call.
        call: Call,
        /// Which certificate authorities were asked, with the name of the CA file.
        trust: String,
        /// What the verification said.
        #[source]
        source: rustls::Error,
    },
    /// GitLab answered with a status that means failure.
    #[error("{call}: {}", status_text(*status, message.as_deref()))]
    Status {
        /// Which call.
        call: Call,
        /// The status.
        status: StatusCode,
        /// GitLab's own words: the `message` of a JSON body, or the text of a storage error.
        message: Option<String>,
    },
    /// The server wants the client elsewhere. Tokens are not sent after redirects.
    #[error("{call}: redirected to {location}; set `url` to the address that GitLab itself uses")]
    Redirected {
        /// Which call.
        call: Call,
        /// Where to, without user info, query and fragment.
        location: String,
    },
    /// The status means success, but the body broke off or is too large.
    #[error("{call}: the answer could not be read to its end")]
    Body {
        /// Which call.
        call: Call,
        /// Why.
        #[source]
        source: Source,
    },
    /// The status means success, but the body is not what it should be.
    #[error("{call}: the answer could not be understood")]
    Decode {
        /// Which call.
        call: Call,
        /// Why.
        #[source]
        source: Source,
    },
}

// === impl Call ===

impl Call {
    pub(crate) fn new(method: Method, mut url: Url) -> Self {
        strip(&mut url);
        Self(Box::new((method, url)))
    }

    /// The URL without user info, query and fragment.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0.1
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.0, self.0.1)
    }
}

// === impl ApiError ===

impl ApiError {
    /// True if nothing was sent, so that only a change of the configuration helps.
    #[must_use]
    pub fn is_client_error(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// The status, if GitLab answered with one that means failure.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Client(_)
            | Self::Transport { .. }
            | Self::Timeout { .. }
            | Self::Untrusted { .. }
            | Self::Redirected { .. }
            | Self::Body { .. }
            | Self::Decode { .. } => None,
        }
    }

    /// The error and its causes on one line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Libraries often repeat the cause in their own text.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

/// Removes what may be secret: user info, query (signed storage URLs) and fragment.
pub(crate) fn strip(url: &mut Url) {
    // Both fail only for URLs that cannot have user info.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
}

/// `403 Forbidden (insufficient scope)`; the parenthesis is dropped when it repeats the status (GitLab Runner's format).
fn status_text(status: StatusCode, message: Option<&str>) -> String {
    let code = status.as_str();
    let reason = status.canonical_reason().unwrap_or_default();
    let full = format!("{code} {reason}");
    let full = full.trim_end();
    match message {
        Some(message) if !message.eq_ignore_ascii_case(full) && !message.eq_ignore_ascii_case(reason) => {
            format!("{full} ({message})")
        }
        Some(_) | None => full.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(url: &str) -> Call {
        Call::new(Method::GET, Url::parse(url).unwrap())
    }

    #[test]
    fn the_text_of_a_call_holds_no_secret() {
        let call = call("https://user:pass@gitlab.test/api/v4/x?X-Amz-Signature=s#frag");
        assert_eq!(call.to_string(), "GET https://gitlab.test/api/v4/x");
        assert!(!format!("{call:?}").contains("Signature"));
    }

    #[test]
    fn a_message_that_repeats_the_status_is_dropped() {
        let error = |message: &str| {
            ApiError::Status {
                call: call("http://h/a"),
                status: StatusCode::FORBIDDEN,
                message: Some(message.to_owned()),
            }
            .to_string()
        };
        assert_eq!(error("403 Forbidden"), "GET http://h/a: 403 Forbidden");
        assert_eq!(error("runner is paused"), "GET http://h/a: 403 Forbidden (runner is paused)");
    }

    #[test]
    fn a_report_names_the_causes_once() {
        let inner = std::io::Error::other("connection refused");
        let error = ApiError::Transport { call: call("http://h/a"), source: Box::new(inner) };
        assert_eq!(error.report(), "GET http://h/a: no answer: connection refused");
    }
}
