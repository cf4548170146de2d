//! A channel that leads to a socket on the machine.

use std::sync::Arc;

use bytes::BytesMut;
use russh::Channel;
use russh::server::{ChannelOpenHandle, Msg};
use russh::{ChannelMsg, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Machine;
use super::inbox::{Arrival, Inbox};

/// Most bytes per read.
const CHUNK: usize = 64 << 10;

/// Where a tunnel leads.
pub(super) enum Destination {
    Tcp(String, u16),
    Unix(String),
}

/// Connects, answers the request to open the channel, and copies both ways.
pub(super) async fn run(
    machine: Arc<Machine>,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    to: Destination,
) {
    let work = async {
        match to {
            Destination::Tcp(host, port) => match TcpStream::connect((host.as_str(), port)).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    reply.accept().await;
                    copy(channel, stream.into_split()).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            },
            Destination::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => {
                    reply.accept().await;
                    copy(channel, stream.into_split()).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            },
        }
    };
    tokio::select! {
        () = work => {}
        () = machine.ending.cancelled() => {}
    }
}

/// Copies until both directions have ended, or the channel is closed.
async fn copy(channel: Channel<Msg>, (mut from, to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin)) {
    let (mut input, output) = channel.split();
    let mut inbox = Inbox::new(to);
    let outward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match from.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => break,
            }
            if output.data_bytes(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
        let _ = output.eof().await;
    };
    let inward = async {
        loop {
            match inbox.next(&mut input).await {
                Arrival::Closed => return,
                Arrival::Message(ChannelMsg::Close) => return,
                Arrival::Message(_) => {}
            }
        }
    };
    tokio::pin!(inward);
    tokio::select! {
        () = &mut inward => {}
        // The other side of the socket has ended; the client may still have something to say, and closes then.
        () = outward => inward.await,
    }
    let _ = output.close().await;
}
