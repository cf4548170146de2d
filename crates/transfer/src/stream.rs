//! Bytes that a thread produces and the network takes.

use std::io::{self, Write};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;

/// Size of a chunk, and how many wait for the network.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 8;

/// The writing end. A write fails when nobody reads any more.
pub(crate) struct Sender {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// A pair of ends. A stream ends well only by [`Sender::finish`].
pub(crate) fn pair() -> (Sender, BoxStream<'static, io::Result<Bytes>>) {
    let (chunks, receiver) = mpsc::channel(WAITING);
    let stream =
        stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed();
    (Sender { chunks, buffer: Vec::with_capacity(CHUNK) }, stream)
}

// === impl Sender ===

impl Sender {
    /// Sends what is left and ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.send()
    }

    /// Breaks the stream off, so that its reader does not take what came for the whole.
    pub(crate) fn fail(self, why: &str) {
        // Nobody reads any more: nothing to break off.
        let _ = self.chunks.blocking_send(Err(io::Error::other(why.to_owned())));
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.chunks
            .blocking_send(Ok(full.into()))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the transfer has ended"))
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(taken)
    }

    /// Chunks are sent when they are full, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
