//! Web terminals into the jobs of an instance.

use async_trait::async_trait;
use connector::Client;
use session::{Terminal, TerminalError, Terminals};

use crate::words::quoted;

/// Opens login shells on an instance, in the folder of one job.
pub(super) struct InstanceTerminals {
    client: Client,
    command: String,
}

// === impl InstanceTerminals ===

impl InstanceTerminals {
    pub(super) fn new(client: Client, directory: &str) -> Self {
        // Before the sources are there, the folder may not be there either; the home folder is the next best place.
        let folder = quoted(directory);
        let command = format!(
            "cd -- {folder} 2>/dev/null; export TERM=xterm-256color; exec \"${{SHELL:-/bin/sh}}\" -i"
        );
        Self { client, command }
    }
}

#[async_trait]
impl Terminals for InstanceTerminals {
    async fn open(&self) -> Result<Box<dyn Terminal>, TerminalError> {
        match self.client.terminal(&self.command).await {
            Ok(terminal) => Ok(Box::new(terminal)),
            Err(error) => Err(TerminalError(error.to_string())),
        }
    }
}
