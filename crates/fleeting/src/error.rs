//! Failures that the scaler treats differently.

use std::time::Duration;

/// Why a call to an instance group failed. The variants are what a scaler acts on; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The instance (or the group itself) does not exist, or no longer.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for, for example ``instance `i-1` ``.
        what: String,
    },
    /// The cloud has no machine of the wanted kind now. Worth waiting or trying elsewhere.
    #[error("no capacity: {message}")]
    NoCapacity {
        /// The cloud's words.
        message: String,
    },
    /// The group or account is at a limit that an operator must raise.
    #[error("limit reached: {message}")]
    LimitReached {
        /// The cloud's words.
        message: String,
    },
    /// Too many calls. Nothing was done.
    #[error("throttled by the cloud: {message}")]
    Throttled {
        /// The cloud's words.
        message: String,
        /// How long to wait, where the cloud says so.
        retry_after: Option<Duration>,
    },
    /// The credentials do not allow the call. Retrying does not help until an operator acts.
    #[error("not allowed: {message}")]
    Denied {
        /// The missing permission and the cloud's words.
        message: String,
    },
    /// The configuration cannot work. Retrying does not help until an operator acts.
    #[error("bad configuration: {message}")]
    Configuration {
        /// Which key, what was expected, what to do.
        message: String,
    },
    /// The provider does not have this ability.
    #[error("{what} is not supported by this provider")]
    Unsupported {
        /// The ability.
        what: &'static str,
    },
    /// Anything that may pass by itself: network, server errors, timeouts.
    #[error("{message}")]
    Transient {
        /// What was being done and what went wrong, causes included.
        message: String,
    },
}

/// The answer of a health check that did not come out healthy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// The instance was examined and is not fit for jobs. Counts toward `failure_threshold`.
    #[error("unhealthy: {0}")]
    Unhealthy(String),
    /// It could not be told. Does not count.
    #[error("health unknown: {0}")]
    Unknown(String),
}

/// An error with its causes, in one line. A cause that the text has named already is not repeated: many libraries do.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

impl GroupError {
    /// A [`GroupError::Transient`] from any error, with its causes.
    pub fn transient(doing: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Transient { message: format!("{doing}: {}", with_causes(error)) }
    }

    /// True if an operator has to act before another try can succeed.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::LimitReached { .. }
            | Self::Denied { .. }
            | Self::Configuration { .. }
            | Self::Unsupported { .. } => true,
            Self::NotFound { .. }
            | Self::NoCapacity { .. }
            | Self::Throttled { .. }
            | Self::Transient { .. } => false,
        }
    }
}
