//! A TCP relay that counts how often an answer had to be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Forwards connections to an address, each byte `delay` later.
///
/// Each side has a clock that counts trips: what one side sends after it received something arrives one trip later than that.
/// So the distance on one clock between two moments is the length of the longest chain of messages in between, whatever the
/// speed of the machine; the delay only lets what is sent at the same time travel together.
pub(crate) struct Relay {
    address: String,
    delay: Duration,
    clocks: Arc<Clocks>,
}

#[derive(Default)]
struct Clocks {
    client: AtomicU64,
    server: AtomicU64,
}

impl Relay {
    pub(crate) async fn start(to: String, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let clocks = Arc::new(Clocks::default());
        let shared = Arc::clone(&clocks);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The server may still be starting; the client sees a closed connection and tries again.
                let Ok(server) = TcpStream::connect(&to).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                tokio::spawn(forward(client_read, server_write, delay, Arc::clone(&shared), true));
                tokio::spawn(forward(server_read, client_write, delay, Arc::clone(&shared), false));
            }
        });
        Self { address, delay, clocks }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Round trips so far, as the client sees it.
    pub(crate) fn round_trips(&self) -> u64 {
        self.clocks.client.load(Ordering::Acquire) / 2
    }

    /// Waits until nothing has arrived for two round trips.
    pub(crate) async fn quiet(&self) {
        let now = || (self.clocks.client.load(Ordering::Acquire), self.clocks.server.load(Ordering::Acquire));
        loop {
            let before = now();
            tokio::time::sleep(self.delay * 4).await;
            if now() == before {
                return;
            }
        }
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin,
    delay: Duration,
    clocks: Arc<Clocks>,
    upwards: bool,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, u64, Vec<u8>)>(1024);
    let sending = Arc::clone(&clocks);
    tokio::spawn(async move {
        let clock = if upwards { &sending.client } else { &sending.server };
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let at = clock.load(Ordering::Acquire) + 1;
            if sender.send((Instant::now() + delay, at, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    });
    let clock = if upwards { &clocks.server } else { &clocks.client };
    while let Some((due, at, bytes)) = receiver.recv().await {
        tokio::time::sleep_until(due).await;
        clock.fetch_max(at, Ordering::AcqRel);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
