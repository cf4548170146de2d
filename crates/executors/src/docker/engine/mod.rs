//! One engine: calls to it, and what their failures mean.

mod endpoint;
mod transport;
mod tunnel;

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use bollard::Docker;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

pub(crate) use endpoint::Endpoint;
pub use endpoint::EndpointError;
pub(crate) use transport::{Dial, Raw};
pub(crate) use tunnel::{Program, Way};

/// The newest version whose meaning is known here.
const NEWEST_API: Version = Version(1, 53);
/// The oldest: that of engine 19.03.
const OLDEST_API: Version = Version(1, 40);

/// Podman's name for itself among its components.
const PODMAN: &str = "Podman Engine";

/// Containers that an engine makes, starts or removes at a time. More would only wait inside of it, each with a connection and
/// its buffers on both sides.
const AT_ONCE: usize = 16;

/// A version of the engine's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

/// What an engine says of itself.
#[derive(Debug, Clone)]
pub(crate) struct EngineFacts {
    /// Version that calls use.
    pub(crate) api: Version,
    /// `linux`, `windows`.
    pub(crate) os: String,
    /// `amd64`, `arm64`, in Go's words.
    pub(crate) arch: String,
    /// It is Podman, which speaks the same interface and leaves some of it out.
    pub(crate) podman: bool,
}

/// An engine, reached over kept connections. All jobs of one engine share one.
pub(crate) struct Engine {
    docker: Docker,
    dial: Arc<dyn Dial>,
    place: String,
    version: transport::ApiVersion,
    facts: OnceCell<EngineFacts>,
    turns: Semaphore,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// What the call names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Something is in the way, mostly for a moment.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense to the engine.
    #[error("{0}")]
    BadRequest(String),
    /// The engine cannot do it.
    #[error("{0}")]
    Failed(String),
    /// The engine was not reached, or did not answer.
    #[error("{0}")]
    Unreachable(String),
}

// === impl Engine ===

impl Engine {
    /// Nothing is dialled yet. `place` is what messages call the engine.
    pub(crate) fn new(dial: Arc<dyn Dial>, place: impl Into<String>) -> Result<Self, EngineError> {
        let version = transport::ApiVersion::default();
        let docker = transport::client(Arc::clone(&dial), Arc::clone(&version))?;
        Ok(Self {
            docker,
            dial,
            place: place.into(),
            version,
            facts: OnceCell::new(),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// The client.
    pub(crate) fn api(&self) -> &Docker {
        &self.docker
    }

    /// Waits until the engine has a hand free for the calls that keep it busy. To be held for those alone.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.turns.acquire().await.ok()
    }

    /// What messages call the engine.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// What the engine is; asked once.
    pub(crate) async fn facts(&self) -> Result<&EngineFacts, EngineError> {
        self.facts.get_or_try_init(|| self.ask()).await
    }

    /// Makes a call whose answer is a byte stream in both directions, such as that of a terminal, as it is: the client would take it
    /// apart into messages.
    pub(crate) async fn upgrade(&self, path: &str, body: &serde_json::Value) -> Result<Raw, EngineError> {
        transport::upgrade(&*self.dial, self.version.get().map(String::as_str), path, body).await
    }

    async fn ask(&self) -> Result<EngineFacts, EngineError> {
        let version = self.docker.version().await?;
        let text = version.api_version.unwrap_or_default();
        let newest = Version::parse(&text).ok_or_else(|| {
            EngineError::Failed(format!("{} names no version of its interface: \"{text}\"", self.place))
        })?;
        if newest < OLDEST_API {
            return Err(EngineError::Failed(format!(
                "{} speaks version {newest} of the interface; {OLDEST_API} or newer is needed (Docker Engine 19.03)",
                self.place
            )));
        }
        let api = newest.min(NEWEST_API);
        if version
            .min_api_version
            .as_deref()
            .and_then(Version::parse)
            .is_some_and(|oldest| oldest > NEWEST_API)
        {
            return Err(EngineError::Failed(format!(
                "{} no longer speaks version {NEWEST_API} of the interface",
                self.place
            )));
        }
        let podman = version.components.iter().flatten().any(|component| component.name == PODMAN);
        // Set once: this is the only writer.
        let _ = self.version.set(api.to_string());
        Ok(EngineFacts {
            api,
            os: version.os.unwrap_or_default().to_ascii_lowercase(),
            arch: version.arch.unwrap_or_default(),
            podman,
        })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("place", &self.place).finish_non_exhaustive()
    }
}

// === impl Version ===

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

// === impl EngineError ===

impl From<bollard::errors::Error> for EngineError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all that is not an answer of the engine means that there is none"
    )]
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code: 404, message } => Self::NotFound(message),
            Error::DockerResponseServerError { status_code: 409, message } => Self::Conflict(message),
            Error::DockerResponseServerError { status_code: 400, message } => Self::BadRequest(message),
            Error::DockerResponseServerError { message, .. } => Self::Failed(message),
            Error::DockerStreamError { error } => Self::Failed(error),
            Error::RequestTimeoutError => Self::Unreachable("the engine did not answer in time".to_owned()),
            other => Self::Unreachable(innermost(&other)),
        }
    }
}

/// The cause that says most: HTTP libraries wrap what happened in "client error (Connect)".
fn innermost(error: &bollard::errors::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}
