//! The document over a socket of this machine.
//!
//! A client connects, sends one line (`status 1`), and gets one JSON document. Only the user that the manager runs as, and root,
//! are answered; the file has mode 0600 besides.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::document::{Document, VERSION};

/// What a client says.
const REQUEST: &[u8] = b"status 1\n";
/// Most bytes that are read of a client.
const MOST_REQUEST: usize = 64;
/// How long one conversation may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take to say what it wants.
const REQUEST_DEADLINE: Duration = Duration::from_secs(1);
/// Conversations at the same time; more wait.
const CONVERSATIONS: usize = 8;
/// Most bytes that a client reads: thousands of instances take less.
const MOST_ANSWER: u64 = 64 << 20;
/// Most bytes of a socket's path: the operating system's bound.
const LONGEST_PATH: usize = 107;
/// Pause after a failure to take a connection, which is usually a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// A bound socket, not yet serving. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: File,
}

/// The file of a socket; removed unless it has become another manager's.
#[derive(Debug)]
struct File {
    path: PathBuf,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The operating system cannot name it.
    #[error("the path `{path}` is {length} bytes long; a socket's path has at most {LONGEST_PATH}")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Somebody answers there.
    #[error("another manager answers on `{path}`")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is there.
    #[error("`{path}` exists and is no socket")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("failed to listen on `{path}`")]
    Listen {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why no document was got.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no manager answers on `{path}`")]
    NoManager {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manager is another user's.
    #[error("the manager on `{path}` answers only its own user and root")]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("failed to talk to the manager on `{path}`")]
    Talk {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer is not understood.
    #[error("the manager on `{path}` answers something else than a document of version {VERSION}")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The socket of the manager that runs with this configuration file: beside it, so that both sides find it.
#[must_use]
pub fn default_path(config: &Path) -> PathBuf {
    let mut name = config.file_name().unwrap_or_default().to_owned();
    name.push(".sock");
    config.with_file_name(name)
}

// === impl Socket ===

impl Socket {
    /// Binds the socket. A file that a killed manager left is replaced; a living manager's is not.
    ///
    /// # Errors
    /// [`SocketError`]
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let path = path.to_owned();
        let length = path.as_os_str().len() + fresh_suffix().len();
        if length > LONGEST_PATH {
            return Err(SocketError::TooLong { path, length });
        }
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket { path }),
            Ok(_) if is_served(&path).await => return Err(SocketError::InUse { path }),
            Ok(_) | Err(_) => {}
        }
        let listen = |source| SocketError::Listen { path: path.clone(), source };
        // Bound under another name first: under its own, nobody ever sees it with another mode.
        let mut fresh = path.clone().into_os_string();
        fresh.push(fresh_suffix());
        let fresh = PathBuf::from(fresh);
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(listen)?;
        let place = || -> io::Result<u64> {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
            let inode = std::fs::symlink_metadata(&fresh)?.ino();
            std::fs::rename(&fresh, &path)?;
            Ok(inode)
        };
        match place() {
            Ok(inode) => Ok(Self { listener, file: File { path, inode } }),
            Err(error) => {
                // The first failure is what matters.
                let _ = std::fs::remove_file(&fresh);
                Err(listen(error))
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers until it is dropped. `document` is called for each client and must not block.
    pub async fn serve(self, document: Arc<dyn Fn() -> Document + Send + Sync>) -> Infallible {
        let places = Arc::new(Semaphore::new(CONVERSATIONS));
        let mut conversations = tokio::task::JoinSet::new();
        loop {
            while conversations.try_join_next().is_some() {}
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let document = Arc::clone(&document);
                    conversations.spawn(async move {
                        // What goes wrong with a client is its own business.
                        let _ = tokio::time::timeout(DEADLINE, converse(stream, &*document)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the status socket could not take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether a living process listens there. A child that a killed manager was just starting keeps its listener until it executes
/// its program; nobody answers on that one.
async fn is_served(path: &Path) -> bool {
    let Ok(stream) = UnixStream::connect(path).await else { return false };
    let listener = stream.peer_cred().ok().and_then(|peer| peer.pid());
    // One in another container has no number here.
    let Some(listener) = listener.filter(|pid| *pid > 0) else { return true };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(listener), None) != Err(nix::errno::Errno::ESRCH)
}

async fn converse(mut stream: UnixStream, document: &(dyn Fn() -> Document + Send + Sync)) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
        tracing::warn!(uid = peer, "another user asked for the status, which is not theirs");
        return Ok(());
    }
    match tokio::time::timeout(REQUEST_DEADLINE, is_request(&mut stream)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) | Err(_) => return Ok(()),
        Ok(Err(error)) => return Err(error),
    }
    let answer = serde_json::to_vec(&document())?;
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

/// Reads what the client wants.
async fn is_request(stream: &mut UnixStream) -> io::Result<bool> {
    let mut request = Vec::with_capacity(MOST_REQUEST);
    while !request.ends_with(b"\n") {
        if request.len() >= MOST_REQUEST {
            return Ok(false);
        }
        let mut buffer = [0; MOST_REQUEST];
        let room = MOST_REQUEST - request.len();
        match stream.read(&mut buffer[..room]).await? {
            0 => return Ok(false),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(request == REQUEST)
}

impl Drop for File {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours {
            // Nobody is left to hear about it; the next manager replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Asks the manager that listens on this socket.
///
/// # Errors
/// [`AskError`]
pub async fn ask(path: &Path) -> Result<Document, AskError> {
    let mut stream = UnixStream::connect(path).await.map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            AskError::Denied { path: path.to_owned() }
        } else {
            AskError::NoManager { path: path.to_owned(), source }
        }
    })?;
    let talk = |source| AskError::Talk { path: path.to_owned(), source };
    let talking = async {
        stream.write_all(REQUEST).await?;
        let mut answer = Vec::new();
        stream.take(MOST_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer: Vec<u8> = match tokio::time::timeout(DEADLINE, talking).await {
        Ok(Ok(answer)) => answer,
        // A stranger is hung up on, perhaps before the request is written.
        Ok(Err(error))
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            return Err(AskError::Denied { path: path.to_owned() });
        }
        Ok(Err(error)) => return Err(talk(error)),
        Err(_) => return Err(talk(io::ErrorKind::TimedOut.into())),
    };
    if answer.is_empty() {
        return Err(AskError::Denied { path: path.to_owned() });
    }
    serde_json::from_slice(&answer).map_err(|source| AskError::Unreadable { path: path.to_owned(), source })
}

fn fresh_suffix() -> String {
    format!(".{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_living_manager_keeps_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let _first = Socket::bind(&path).await.unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::InUse { .. })));
    }

    #[tokio::test]
    async fn a_listener_that_a_dead_manager_left_to_its_child_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let script = "import socket, subprocess, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); \
                      print(subprocess.Popen(['sleep', '60'], pass_fds=[s.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)";
        let manager = std::process::Command::new("python3").args(["-c", script]).arg(&path).output();
        let manager = manager.expect("tests need python3");
        let child: i32 = String::from_utf8_lossy(&manager.stdout).trim().parse().unwrap();
        assert!(UnixStream::connect(&path).await.is_ok(), "somebody has the listener");
        let bound = Socket::bind(&path).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(bound.unwrap().path(), path);
    }
}
