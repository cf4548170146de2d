//! Asking an instance itself what will become of it.
//!
//! Clouds tell an instance first that it will be taken away, and some tell nobody else. What an instance is asked, and how,
//! only its provider knows; how it is reached, only who logs in to it. So a provider gives a [`Watch`], and whoever holds the
//! connection gives a [`Reach`].

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Doom;

/// Asks one instance what its cloud has announced. What the instance answers is the word of a machine that runs jobs: bound
/// it in size and time, believe nothing that cannot be parsed, and let it concern this one instance only.
#[async_trait]
pub trait Watch: Send {
    /// Time between two looks while jobs run there.
    fn interval(&self) -> Duration;

    /// Looks once. All that is announced now counts: what was announced before and is not now is called off. The caller puts
    /// a deadline on it: the look may be dropped at any await point, and the next one must work then.
    ///
    /// # Errors
    /// See [`WatchError`]; what was known stays.
    async fn look(&mut self, reach: &dyn Reach) -> Result<Option<Doom>, WatchError>;
}

/// Reaches what an instance can reach, through the connection to it.
#[async_trait]
pub trait Reach: Send + Sync {
    /// Connects to a TCP port as the instance sees it.
    ///
    /// # Errors
    /// See [`ReachError`].
    async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn ByteStream>, ReachError>;
}

/// A connection in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for T {}

/// Why an instance could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// It never can be: there is nothing to ask, or it may not be reached. It is not asked again.
    #[error("{0}")]
    Unavailable(String),
    /// Not this time.
    #[error("{0}")]
    Failed(String),
}

/// Why a connection through an instance did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// The instance refuses: nothing listens there, or forwarding is not allowed.
    #[error("{0}")]
    Refused(String),
    /// There is no connection to the instance.
    #[error("{0}")]
    Lost(String),
}

impl From<ReachError> for WatchError {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Refused(why) => Self::Unavailable(why),
            ReachError::Lost(why) => Self::Failed(why),
        }
    }
}
