//! A terminal over a web socket.

use axum::extract::ws::{Message, WebSocket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::session::Terminal;

/// Bytes in binary frames, both ways.
pub(crate) const RAW: &str = "terminal.gitlab.com";
/// The same in text frames, as base64.
pub(crate) const BASE64: &str = "base64.terminal.gitlab.com";

/// Most that is read from the terminal at once.
const CHUNK: usize = 16 * 1024;

/// Moves bytes until either side ends.
pub(crate) async fn join(socket: WebSocket, terminal: Box<dyn Terminal>) {
    let text = socket.protocol().is_some_and(|protocol| protocol.as_bytes() == BASE64.as_bytes());
    let (mut sink, mut source) = socket.split();
    let (mut output, mut input) = tokio::io::split(terminal);
    let typed = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => match STANDARD.decode(text.as_str()) {
                    Ok(bytes) => bytes.into(),
                    // Not of either protocol.
                    Err(_) => break,
                },
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => break,
            };
            if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
    };
    let shown = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match output.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let bytes: Bytes = buffer.split().freeze();
                    let message = if text {
                        Message::Text(STANDARD.encode(&bytes).into())
                    } else {
                        Message::Binary(bytes)
                    };
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = sink.close().await;
    };
    tokio::select! {
        () = typed => {}
        () = shown => {}
    }
}
