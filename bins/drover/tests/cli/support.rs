//! A home with a configuration file, and the program started in it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// Longer than anything here takes, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own for each test.
pub(crate) struct Home {
    folder: TempDir,
}

/// What a finished program left.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `drover run`, under way.
pub(crate) struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// What was read of the log so far.
    pub(crate) said: String,
}

// === impl Home ===

impl Home {
    /// Without a configuration file.
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With this configuration file.
    pub(crate) fn with(config: &str) -> Self {
        let home = Self::empty();
        home.write("config.toml", config);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config.toml")
    }

    /// The text of the configuration file.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }

    /// Writes a file that is for its owner alone, in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path().join(name);
        let fresh = self.path().join(format!("{name}.fresh"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    /// The program with nothing in its environment but what it needs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env("CONFIG_FILE", self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn drover(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments)).await
    }

    /// Starts `drover run`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Running {
        let mut all = vec!["run"];
        all.extend(arguments);
        let mut child = self.command(&all).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Running { child, log, said: String::new() }
    }
}

/// Runs a program to its end.
pub(crate) async fn finish(mut command: Command) -> Finished {
    let output =
        tokio::time::timeout(PATIENCE, command.output()).await.expect("the program does not end").unwrap();
    Finished::from(output)
}

// === impl Finished ===

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Finished {
    /// Fails the test, with all that was said, unless the program ended with this code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, expected, "\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

// === impl Running ===

impl Running {
    /// Reads the log until a line holds this text.
    pub(crate) async fn says(&mut self, text: &str) {
        let read = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.said.push_str(&line);
                self.said.push('\n');
                if line.contains(text) {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(PATIENCE, read).await;
        assert!(found == Ok(true), "`{text}` is not in the log:\n{}", self.said);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Waits for the end; gives the exit code.
    pub(crate) async fn ends(&mut self) -> i32 {
        let read = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.said.push_str(&line);
                self.said.push('\n');
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, read).await;
        let status = status.unwrap_or_else(|_| panic!("the program does not end:\n{}", self.said));
        status.code().unwrap_or(-1)
    }
}

/// A runner entry that needs nothing but this machine.
pub(crate) fn entry(name: &str, url: &str, token: &str) -> String {
    format!(
        r#"[[runners]]
  name = "{name}"
  url = "{url}"
  token = "{token}"
  executor = "instance"
  [runners.autoscaler]
    plugin = "local"
    max_instances = 1
"#
    )
}
