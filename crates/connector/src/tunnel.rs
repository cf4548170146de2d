//! A byte stream to something that only the instance can reach.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::error::ConnectionError;
use crate::inbox::{Reader, Stream};
use crate::link::Lane;
use crate::sessions::Sessions;

/// A connection that the instance makes for us: to a TCP port or a unix socket as the instance sees them.
///
/// When the SSH connection breaks, all pending and later reads and writes fail with `ssh tunnel: EOF`, as in GitLab Runner; a
/// target that ends the connection in order is an ordinary end of the stream. Dropping the tunnel closes it.
pub struct Tunnel {
    reader: Reader,
    unread: Bytes,
    writer: Pin<Box<dyn AsyncWrite + Send + Sync>>,
    /// Ready when the channel takes no more data; russh would leave a writer waiting for ever.
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _lane: Lane,
    /// Keeps the connection open while the tunnel is used.
    _sessions: Arc<Sessions>,
}

// === impl Tunnel ===

impl Tunnel {
    pub(crate) fn new(sessions: Arc<Sessions>, lane: Lane) -> Self {
        Self {
            reader: Reader::new(lane.inbox.clone()),
            unread: Bytes::new(),
            writer: Box::pin(lane.writer.make_writer()),
            ended: Box::pin(lane.inbox.ended().clone().cancelled_owned()),
            _lane: lane,
            _sessions: sessions,
        }
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.ended.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::BrokenPipe, "ssh tunnel: EOF"))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.reader.poll_next(cx)) {
                Ok(Some(piece)) if piece.stream == Stream::Out => self.unread = piece.bytes,
                Ok(Some(_)) => {}
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = buf.remaining().min(self.unread.len());
        self.unread.copy_to_slice(buf.initialize_unfilled_to(length));
        buf.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(error) = self.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        self.writer.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_ended(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.writer.as_mut().poll_shutdown(cx)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// The text is what users of GitLab Runner look for; what exactly happened to the connection is the source.
fn broken(error: ConnectionError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, Broken(error))
}

#[derive(Debug, thiserror::Error)]
#[error("ssh tunnel: EOF")]
struct Broken(#[source] ConnectionError);
