//! A TCP relay that delays each direction, to count round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Forwards connections to a port on loopback; each byte arrives `delay` after it was sent.
pub(crate) struct Relay {
    address: String,
    delay: Duration,
    /// Packets that were forwarded.
    packets: Arc<AtomicU64>,
}

impl Relay {
    pub(crate) async fn start(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let packets = Arc::new(AtomicU64::new(0));
        let counter = packets.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The server may still be starting; the client sees a closed connection and tries again.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                tokio::spawn(forward(client_read, server_write, delay, counter.clone()));
                tokio::spawn(forward(server_read, client_write, delay, counter.clone()));
            }
        });
        Self { address, delay, packets }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Waits until nothing was forwarded for two round trips.
    pub(crate) async fn quiet(&self) {
        loop {
            let before = self.packets.load(Ordering::Relaxed);
            tokio::time::sleep(self.delay * 4).await;
            if self.packets.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin,
    delay: Duration,
    packets: Arc<AtomicU64>,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + delay, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((due, bytes)) = receiver.recv().await {
        tokio::time::sleep_until(due.into()).await;
        packets.fetch_add(1, Ordering::Relaxed);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
