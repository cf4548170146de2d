//! One HTTP/2 connection over a byte stream that is already there.

use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tower_service::Service;

/// Takes requests; the connection is driven by a task that ends with this value.
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
}

/// What requests are made through. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Requests(SendRequest<Body>);

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> hyper::Result<Self> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Whoever waits for an answer is told.
                tracing::debug!(%error, "the connection to the nesting daemon ended");
            }
        });
        Ok(Self { sender, driver })
    }

    pub(crate) fn requests(&self) -> Requests {
        Requests(self.sender.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

// === impl Requests ===

impl Service<http::Request<Body>> for Requests {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
