//! The programs as their users have them: `drover` and `gitlab-mock` as processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::captured::Captured;
use crate::entry::Setup;
use crate::finished::tail;
use crate::machine::{eventually, within};

/// A program of this workspace, which `cargo build --workspace --bins` puts beside the tests.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    let folder = test.parent().and_then(Path::parent).expect("a test is three folders deep");
    let path = folder.join(name);
    assert!(path.exists(), "`{}` is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// A running program whose output is kept.
pub struct Program {
    child: Child,
    said: Captured,
    reading: Vec<JoinHandle<()>>,
}

/// `drover run` in a folder of its own.
pub struct Drover {
    /// The process.
    pub program: Program,
    folder: TempDir,
}

// === impl Program ===

impl Program {
    /// Starts a program with nothing in its environment but what it needs. It is killed with this value.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str], folder: &Path) -> Self {
        Self::start_with(name, arguments, folder, &[])
    }

    /// The same with more in its environment, or with another `PATH`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(name: &str, arguments: &[&str], folder: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(bin(name))
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let said = Captured::default();
        let stdout = child.stdout.take().map(|stream| tokio::spawn(keep(stream, said.clone())));
        let stderr = child.stderr.take().map(|stream| tokio::spawn(keep(stream, said.clone())));
        Self { child, said, reading: stdout.into_iter().chain(stderr).collect() }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().map_or(0, u32::cast_signed)
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        assert_ne!(self.pid(), 0, "the program has ended");
        kill(Pid::from_raw(self.pid()), signal).expect("the program can be signalled");
    }

    /// Waits for a line of its output that holds all of these texts.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn says(&self, texts: &[&str]) {
        eventually(&format!("the program says {texts:?}"), || self.said.has_line(texts)).await;
    }

    /// Waits for its end; gives the exit code, none after a signal.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ends(&mut self) -> Option<i32> {
        let status = within("the program ends", self.child.wait()).await.expect("its status is known");
        for reading in self.reading.drain(..) {
            // Fails only when the reader panicked, which the captured text shows.
            let _ = within("its output ends", reading).await;
        }
        status.code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the program said:\n{}", tail(&self.said.text(), 12_000));
        }
    }
}

// === impl Drover ===

impl Drover {
    /// Starts `drover run` with the configuration of a setup.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(setup: &Setup, url: &str) -> Self {
        Self::start_with(setup, url, &[])
    }

    /// The same with more in its environment, or with another `PATH`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(setup: &Setup, url: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = run(setup, url, folder.path(), environment);
        Self { program, folder }
    }

    /// The same as a manager of this identity at GitLab.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_as(setup: &Setup, url: &str, system_id: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(&folder.path().join(".runner_system_id"), system_id);
        let program = run(setup, url, folder.path(), &[]);
        Self { program, folder }
    }

    /// Kills it and waits for its end.
    ///
    /// # Panics
    /// When it ends in another way.
    pub async fn kill(&mut self) {
        self.program.signal(Signal::SIGKILL);
        assert_eq!(self.program.ends().await, None, "a killed program has no exit code");
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn stop(&mut self) {
        self.program.signal(Signal::SIGTERM);
        assert_eq!(self.program.ends().await, Some(0), "the program ends well");
    }

    /// Starts it again in the same folder, after its end, with the configuration of a setup.
    pub fn again(&mut self, setup: &Setup, url: &str) {
        self.program = run(setup, url, self.folder.path(), &[]);
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where local instances have their folders.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.folder.path().join("instances")
    }

    /// Writes the configuration file anew, in one step.
    pub fn write(&self, text: &str) {
        write(&self.folder.path().join("config.toml"), text);
    }
}

/// Starts `drover run` with the configuration of a setup, which is written into the folder.
fn run(setup: &Setup, url: &str, folder: &Path, environment: &[(&str, &str)]) -> Program {
    let config = folder.join("config.toml");
    write(&config, &setup.text(url, folder));
    Program::start_with("drover", &["run", "--config", &config.display().to_string()], folder, environment)
}

/// Writes a file for its owner alone, in one step.
pub(crate) fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).expect("the folder can be written to");
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    std::fs::rename(&fresh, path).expect("the folder can be written to");
}

async fn keep(stream: impl tokio::io::AsyncRead + Unpin, said: Captured) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        said.push(&line);
        line.clear();
    }
}
