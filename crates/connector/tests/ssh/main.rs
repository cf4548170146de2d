//! The connector against a real OpenSSH server. Needs `sshd` and `ssh-keygen`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drover_connector::{Client, ConnectionError, DialOptions, ExitStatus, Output, Process, dial};

mod dial;
mod exec;
mod flow;
mod loss;
#[path = "../../../../tests/src/ports.rs"]
mod ports;
mod relay;
mod scripted;
mod sessions;
mod sshd;
mod through;
mod tunnels;

use sshd::Sshd;

/// Everything in these tests is done long before; a hang fails here with a message instead of stopping the run.
const SOON: Duration = Duration::from_secs(60);

/// A server and a client that is connected to it.
async fn connected(extra: &str) -> (Sshd, Client) {
    let sshd = Sshd::start(extra);
    let client = connect(&sshd).await;
    (sshd, client)
}

async fn connect(sshd: &Sshd) -> Client {
    dial(&sshd.info(), &DialOptions::default(), &mut |_| {}).await.unwrap()
}

/// All output of a command and how it ended.
struct Ended {
    stdout: Bytes,
    stderr: Bytes,
    status: Result<ExitStatus, ConnectionError>,
}

async fn finish(mut process: Process) -> Result<Ended, ConnectionError> {
    let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
    while let Some(output) = process.next().await? {
        match output {
            Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
        }
    }
    Ok(Ended { stdout: stdout.freeze(), stderr: stderr.freeze(), status: process.wait().await })
}

async fn run(client: &Client, command: &str, stdin: impl Into<Bytes>) -> Result<Ended, ConnectionError> {
    finish(client.exec(command, stdin.into()).await?).await
}

/// Fails the test if `future` hangs.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}
