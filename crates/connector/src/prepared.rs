//! A command that waits for its input.

use std::fmt;

use bytes::Bytes;

use crate::error::ConnectionError;
use crate::process::Process;

/// A command that was started before its input was known, see [`Client::prepare`](crate::Client::prepare). Dropping it closes its
/// input and its channel, which ends whatever reads its input.
pub struct Prepared {
    process: Process,
}

// === impl Prepared ===

impl Prepared {
    pub(crate) fn new(process: Process) -> Self {
        Self { process }
    }

    /// False once the command has ended without its input, or the connection is over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.process.is_open()
    }

    /// Sends all of the input and its end, without waiting for replies.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`], [`ConnectionError::Closed`].
    pub async fn start(mut self, stdin: Bytes) -> Result<Process, ConnectionError> {
        self.process.feed(stdin).await?;
        Ok(self.process)
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}
