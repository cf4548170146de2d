//! The other side: the process that is an instance.
//!
//! A program that wants to serve as one calls [`main`] (or, inside a runtime of its own, [`main_from_stdin`]) for its
//! hidden sub-command. The process reads its parameters from standard input, says on standard output when it takes
//! connections, and lives for as long as standard input stays open.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::processes::{self, MARK};
use crate::protocol::{Parameters, Ready};
use crate::tree;

mod command;
mod inbox;
mod server;
mod session;
mod tunnel;

/// Why the process cannot be an instance. The group shows it as the reason of the failed start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The first line of standard input is not what a group writes there.
    #[error("standard input does not hold the parameters of an instance")]
    Parameters(#[source] serde_json::Error),
    /// A key cannot be made or read.
    #[error("unusable key: {0}")]
    Key(russh::keys::ssh_key::Error),
}

/// What all connections and commands of this instance share.
struct Machine {
    username: String,
    authorized_key: PublicKey,
    dir: PathBuf,
    shell: PathBuf,
    /// The whole environment of commands.
    environment: BTreeMap<&'static str, OsString>,
    /// Cancelled when the instance ends.
    ending: CancellationToken,
    /// Commands that run.
    sessions: TaskTracker,
}

/// Why an instance ends.
enum End {
    /// Its group said so, and is there to clean up.
    Ordered,
    /// The group is no more.
    Orphaned,
}

/// Runs this process as an instance until its group ends it, on a runtime of one thread.
///
/// # Errors
/// [`InstanceError`] if it cannot start.
pub fn main() -> Result<(), InstanceError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    runtime.block_on(main_from_stdin())
}

/// Runs this process as an instance until its group ends it: by closing standard input, by a TERM signal, or by its own
/// death. The process should do nothing else.
///
/// # Errors
/// [`InstanceError`] if it cannot start.
pub async fn main_from_stdin() -> Result<(), InstanceError> {
    // A session of its own makes the instance immune to the terminal's Ctrl-C, and what it starts recognisable.
    // It exists already where the process was started as its leader.
    match nix::unistd::setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(system("begin a session")(error.into())),
    }
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(system("use standard input"))?;
    let stdin =
        pipe::Receiver::from_owned_fd(stdin).map_err(system("use standard input, which must be a pipe"))?;
    let mut stdin = BufReader::new(stdin);
    let mut line = String::new();
    stdin.read_line(&mut line).await.map_err(system("read standard input"))?;
    let parameters: Parameters = serde_json::from_str(&line).map_err(InstanceError::Parameters)?;

    let served = serve(&parameters, stdin).await;

    processes::sweep(Pid::this(), &parameters.id).await;
    let _ = tree::remove(&parameters.dir);
    if let (Some(parent), Ok(End::Orphaned)) = (&parameters.parent, &served) {
        // Nobody else is left to do it. Fails, as it should, while it holds other instances.
        let _ = std::fs::remove_dir(parent);
    }
    served.map(|_| ())
}

async fn serve(parameters: &Parameters, stdin: impl AsyncRead + Unpin) -> Result<End, InstanceError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for signals"))?;
    let host_key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(InstanceError::Key)?;
    let fingerprint = host_key.public_key().fingerprint(HashAlg::Sha256).to_string();
    let machine = Arc::new(Machine::new(parameters)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(system("listen on loopback"))?;
    let port = listener.local_addr().map_err(system("listen on loopback"))?.port();
    announce(&Ready { port, host_key: fingerprint }).map_err(system("write to standard output"))?;

    let end = tokio::select! {
        never = server::accept(&listener, host_key, &machine) => match never {},
        () = end_of(stdin) => End::Orphaned,
        _ = terminate.recv() => End::Ordered,
    };
    machine.ending.cancel();
    machine.sessions.close();
    machine.sessions.wait().await;
    Ok(end)
}

/// Completes when the manager closes the pipe, or is no more.
async fn end_of(mut stdin: impl AsyncRead + Unpin) {
    let mut byte = [0];
    while stdin.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}

fn announce(ready: &Ready) -> io::Result<()> {
    let mut line = serde_json::to_vec(ready)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> InstanceError {
    move |source| InstanceError::System { doing, source }
}

// === impl Machine ===

impl Machine {
    fn new(parameters: &Parameters) -> Result<Self, InstanceError> {
        let dir = parameters.dir.clone();
        let temporary = dir.join("tmp");
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&temporary)
            .map_err(system("make a directory for temporary files"))?;
        let path = std::env::var_os("PATH")
            .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        let environment = BTreeMap::from([
            ("PATH", path),
            ("HOME", dir.clone().into()),
            ("PWD", dir.clone().into()),
            ("USER", parameters.username.clone().into()),
            ("LOGNAME", parameters.username.clone().into()),
            ("SHELL", parameters.shell.clone().into()),
            ("LANG", "C.UTF-8".into()),
            ("TMPDIR", temporary.into()),
            (MARK, parameters.id.clone().into()),
        ]);
        Ok(Self {
            username: parameters.username.clone(),
            authorized_key: PublicKey::from_openssh(&parameters.authorized_key)
                .map_err(InstanceError::Key)?,
            dir,
            shell: parameters.shell.clone(),
            environment,
            ending: CancellationToken::new(),
            sessions: TaskTracker::new(),
        })
    }
}
