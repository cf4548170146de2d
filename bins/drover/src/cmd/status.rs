//! The manager's side of `drover explain`, and of the status page.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use manager::View;
use metrics::Endpoint;
use status::{Socket, SocketError};
use tokio::task::JoinHandle;

use crate::identity;

/// Answers on the local socket until it is ended.
pub(crate) struct Answering(JoinHandle<()>);

/// Where the socket of the manager with this configuration is; nothing if it is to have none.
pub(crate) fn socket_path(config: &config::Config, file: &Path) -> Option<PathBuf> {
    match config.status.as_ref().and_then(|status| status.socket.as_deref()) {
        None => Some(status::default_path(file)),
        Some("none") => None,
        Some(path) => Some(identity::directory(file).join(path)),
    }
}

/// Lets the endpoint show the status, if that is configured.
pub(crate) fn on_endpoint(endpoint: Endpoint, config: &config::Config, view: &View) -> Endpoint {
    if !config.status.as_ref().is_some_and(|status| status.page) {
        return endpoint;
    }
    let view = view.clone();
    endpoint.with_status(move || view.status())
}

// === impl Answering ===

impl Answering {
    /// Opens the socket. Jobs matter more than being asked about them, so a manager without a socket works all the same.
    pub(crate) async fn start(path: Option<PathBuf>, view: View) -> Option<Self> {
        let path = path?;
        match Socket::bind(&path).await {
            Ok(socket) => {
                tracing::info!(socket = %path.display(), "`drover explain` is answered");
                let serving = async move {
                    let never = socket.serve(Arc::new(move || view.status())).await;
                    match never {}
                };
                Some(Self(tokio::spawn(serving)))
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let hint = match &error {
                    SocketError::InUse { .. } => {
                        "give each manager a socket of its own: `socket` in the table `[status]`"
                    }
                    SocketError::TooLong { .. }
                    | SocketError::NoSocket { .. }
                    | SocketError::Listen { .. } => {
                        "set `socket` in the table `[status]` to a path in a folder that this user may write to, such as /run/drover"
                    }
                };
                tracing::warn!(%error, cause, hint, "`drover explain` has no socket to ask this manager on");
                None
            }
        }
    }

    /// Ends the answering and removes the socket.
    pub(crate) async fn end(self) {
        self.0.abort();
        // It was told to end, so how it ended says nothing.
        let _ = self.0.await;
    }
}
