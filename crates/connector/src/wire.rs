//! The byte stream below one SSH connection: TCP, or a tunnel of another connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// russh reads a packet in two steps, its length first. With a buffer that holds most packets whole, that is one system call
/// where it would be two, and one for several small packets. There is one per connection, so it is small.
const READ_BUFFER: usize = 16 << 10;

/// What an SSH connection can run over.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

/// A stream that can be cut from outside and that does not wait for ever to write.
///
/// russh's event loop sends keepalives only while it is not writing, so a peer that freezes while much is sent to it would
/// not be noticed; and a handshake that is given up would go on in russh's task.
pub(crate) struct Wire<S> {
    stream: BufReader<S>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How long a write may be stuck.
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> ByteStream for S {}

// === impl Wire ===

impl<S: ByteStream> Wire<S> {
    pub(crate) fn new(stream: S, cut: CancellationToken, patience: Duration) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            cut: Box::pin(cut.cancelled_owned()),
            patience,
            stuck: None,
        }
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Some(io::Error::new(io::ErrorKind::ConnectionAborted, "connection given up")),
            Poll::Pending => None,
        }
    }

    /// Lets a write pass, or fails it if it has been stuck for too long.
    fn poll_stuck<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stuck = None;
            return write;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if stuck.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the instance takes no more data",
            )));
        }
        match self.poll_cut(cx) {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

impl<S: ByteStream> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending()
            && let Some(error) = self.poll_cut(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<S: ByteStream> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_stuck(cx, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Never fails: russh would report the failed farewell in place of the reason why the connection ended.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(_) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }
}
