//! Listening, and what happens to connections.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::core::Core;

/// Who a listener stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// GitLab.
    Gitlab,
    /// The object storage.
    Storage,
}

/// Whether GitLab can be reached at all.
#[derive(Debug)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    /// Whether the listener is in the state that is wanted.
    listening: watch::Sender<bool>,
}

/// A connection is ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Closed in order.
    Close,
    /// Reset.
    Reset,
}

// === impl Gate ===

impl Gate {
    /// Refuses connections and breaks those that are open. Returns when the port is closed.
    pub(crate) async fn close(&self) {
        self.open.send_replace(false);
        let _ = self.listening.subscribe().wait_for(|listening| !listening).await;
    }

    /// Accepts connections again. Returns when the port is open.
    pub(crate) async fn open(&self) {
        self.open.send_replace(true);
        let _ = self.listening.subscribe().wait_for(|&listening| listening).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), listening: watch::Sender::new(true) }
    }
}

// === impl Cut ===

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cut::Close => "connection closed without an answer",
            Cut::Reset => "connection reset",
        })
    }
}

impl std::error::Error for Cut {}

/// Serves GitLab's side, closing and opening the port as the gate says, until stopped.
pub(crate) async fn serve_gitlab(core: Arc<Core>, listener: TcpListener, stop: CancellationToken) {
    let mut wanted = core.gate.open.subscribe();
    let mut listener = Some(listener);
    loop {
        if !*wanted.borrow_and_update() {
            drop(listener.take());
            core.gate.listening.send_replace(false);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let current = match listener.take() {
            Some(listener) => listener,
            None => match rebind(core.address).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(%error, address = %core.address, "failed to listen again");
                    return;
                }
            },
        };
        core.gate.listening.send_replace(true);
        let lifetime = stop.child_token();
        tokio::select! {
            () = stop.cancelled() => return,
            () = accept(&core, &current, Role::Gitlab, &lifetime) => {}
            _ = wanted.wait_for(|open| !open) => {}
        }
        lifetime.cancel();
        listener = Some(current);
    }
}

/// Serves the object storage until stopped.
pub(crate) async fn serve_storage(core: Arc<Core>, listener: TcpListener, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept(&core, &listener, Role::Storage, &stop) => {}
    }
}

async fn accept(core: &Arc<Core>, listener: &TcpListener, role: Role, lifetime: &CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let (core, lifetime) = (Arc::clone(core), lifetime.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = lifetime.cancelled() => {}
                        () = serve_connection(core, stream, role) => {}
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors: the backlog keeps the caller waiting.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(core: Arc<Core>, stream: TcpStream, role: Role) {
    // A server that answers in small packets must not wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let service = {
        let reset = Arc::clone(&reset);
        service_fn(move |request| {
            let (core, reset) = (Arc::clone(&core), Arc::clone(&reset));
            Box::pin(async move {
                let outcome = api::handle(core, role, request).await;
                reset.store(outcome.as_ref().err() == Some(&Cut::Reset), Ordering::Relaxed);
                outcome
            })
        })
    };
    let mut connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // Ends with an error when a fault cuts the connection or the peer goes away: both are no news.
    let _ = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if reset.load(Ordering::Relaxed) {
        let stream = connection.into_parts().io.into_inner();
        let _ = stream.set_zero_linger();
    }
}

/// Takes the same port again. Connections of the last time may still hold it for a moment.
async fn rebind(address: SocketAddr) -> Result<TcpListener, std::io::Error> {
    let patience = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Ok(listener) = TcpListener::bind(address).await {
                return listener;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match pin!(patience).await {
        Ok(listener) => Ok(listener),
        Err(_elapsed) => TcpListener::bind(address).await,
    }
}
