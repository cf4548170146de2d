//! What a runner did that GitLab's protocol does not allow.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::endpoint::Endpoint;
use crate::sync::lock;

/// How many violations are kept; the count goes on beyond it.
const KEPT: usize = 10_000;

/// One breach of the protocol.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Time since the mock was started.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// The rule that was broken.
    pub rule: Rule,
    /// The call that broke it.
    pub endpoint: Endpoint,
    /// The job that the call was about.
    pub job: Option<u64>,
    /// The status of the refusal; `None` when the call was served all the same.
    pub refused_with: Option<u16>,
    /// What was sent, what was expected.
    pub detail: String,
}

/// The rules that the mock watches over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// A path or method that the API does not have.
    UnknownRoute,
    /// A header that every runner sends is absent.
    MissingHeader,
    /// A header has a value that it cannot have.
    BadHeader,
    /// The body is not of the announced kind, or too long.
    MalformedBody,
    /// A member of the body that GitLab does not know.
    UnknownField,
    /// A required member is absent.
    MissingField,
    /// A member has another type than GitLab's.
    WrongType,
    /// A member has a value that it cannot have.
    BadValue,
    /// Header and body carry different tokens.
    TokenMismatch,
    /// A token that was never valid.
    WrongToken,
    /// A job id that was never given out.
    UnknownJob,
    /// A call for a job that is not running (any longer, or not yet).
    NotRunning,
    /// A further update after the final one was taken.
    UpdateAfterFinal,
    /// A log patch that starts behind the end of the log.
    TraceGap,
    /// A log patch that starts before the end of the log.
    TraceOverlap,
    /// `Content-Range` is absent, malformed, or contradicts the body.
    ContentRange,
    /// Checksum or size of the final update do not match the log.
    TraceMismatch,
    /// An artifact that GitLab would not take.
    BadArtifact,
    /// A credential was sent to somebody whom it does not concern.
    CredentialLeak,
}

/// The list of violations.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    kept: Mutex<Vec<Violation>>,
    count: AtomicU64,
}

// === impl Violation ===

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:.3}s] {:?} at {}", self.at.as_secs_f64(), self.rule, self.endpoint)?;
        if let Some(job) = self.job {
            write!(f, " (job {job})")?;
        }
        match self.refused_with {
            Some(status) => write!(f, ", refused with {status}")?,
            None => f.write_str(", served")?,
        }
        write!(f, ": {}", self.detail)
    }
}

// === impl Violations ===

impl Violations {
    pub(crate) fn record(&self, violation: Violation) {
        tracing::warn!(%violation, "protocol violation");
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut kept = lock(&self.kept);
        if kept.len() < KEPT {
            kept.push(violation);
        }
    }

    pub(crate) fn all(&self) -> Vec<Violation> {
        lock(&self.kept).clone()
    }

    pub(crate) fn take(&self) -> Vec<Violation> {
        self.count.store(0, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.kept))
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Enough of a token to recognise it, too little to use it.
pub(crate) fn shorten(token: &str) -> String {
    let shown: String = token.chars().take(9).collect();
    if shown.len() < token.len() { format!("{shown}...") } else { shown }
}

/// Durations as seconds with a fraction.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
