//! What a client sends on one channel, kept until it can be taken.
//!
//! russh grants a client more window whenever data arrives, and stops reading the whole connection while one channel's
//! consumer is slow. So that a command that does not read its input holds up no other command, its input is kept here,
//! up to a bound; only beyond that the connection waits.

use std::collections::VecDeque;

use bytes::Bytes;
use russh::ChannelMsg;
use russh::ChannelReadHalf;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How much is kept for one channel, in bytes.
const KEPT: usize = 64 << 20;

/// Copies a channel's data to a writer.
pub(super) struct Inbox<W> {
    writer: Option<W>,
    queue: VecDeque<Bytes>,
    queued: usize,
    ended: bool,
}

/// What came that is not data.
pub(super) enum Arrival {
    Message(ChannelMsg),
    /// The client has closed the channel or is gone.
    Closed,
}

// === impl Inbox ===

impl<W: AsyncWrite + Unpin> Inbox<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer: Some(writer), queue: VecDeque::new(), queued: 0, ended: false }
    }

    /// Moves data until something else arrives. May be dropped and called again: no data is lost or doubled.
    pub(super) async fn next(&mut self, channel: &mut ChannelReadHalf) -> Arrival {
        loop {
            tokio::select! {
                message = channel.wait(), if self.queued < KEPT => match message {
                    Some(ChannelMsg::Data { data }) => {
                        if self.writer.is_some() && !data.is_empty() {
                            self.queued += data.len();
                            self.queue.push_back(data);
                        }
                    }
                    Some(ChannelMsg::Eof) => self.ended = true,
                    Some(ChannelMsg::Close) | None => return Arrival::Closed,
                    Some(other) => return Arrival::Message(other),
                },
                () = write_some(&mut self.writer, &mut self.queue, &mut self.queued) => {}
            }
            if self.ended
                && self.queue.is_empty()
                && let Some(mut writer) = self.writer.take()
            {
                // An error means that nobody reads any more.
                let _ = writer.shutdown().await;
            }
        }
    }
}

/// Writes a piece of the front of the queue; pending if there is none.
async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut Option<W>,
    queue: &mut VecDeque<Bytes>,
    queued: &mut usize,
) {
    let (Some(open), Some(front)) = (writer.as_mut(), queue.front_mut()) else {
        return std::future::pending().await;
    };
    // A write is the only await, so that a drop loses nothing.
    match open.write_buf(front).await {
        Ok(written) if written > 0 => {
            *queued -= written;
            if front.is_empty() {
                queue.pop_front();
            }
        }
        Ok(_) | Err(_) => {
            *writer = None;
            queue.clear();
            *queued = 0;
        }
    }
}
