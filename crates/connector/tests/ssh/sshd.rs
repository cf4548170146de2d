//! A real OpenSSH server on a free loopback port, as an ordinary process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use connect_info::{ConnectInfo, ConnectorSettings, SecretString};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::ports::free_port;

/// An OpenSSH server with keys of its own. Its processes end with it.
pub(crate) struct Sshd {
    folder: TempDir,
    port: u16,
    extra: String,
    server: Option<Child>,
}

impl Sshd {
    /// Keys and a port, but no server yet. `extra` is added to its configuration.
    pub(crate) fn prepare(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        keygen(&folder.path().join("host"), &["-t", "ed25519"]);
        keygen(&folder.path().join("id"), &["-t", "ed25519"]);
        fs::copy(folder.path().join("id.pub"), folder.path().join("authorized")).unwrap();
        Self { folder, port: free_port(), extra: extra.to_owned(), server: None }
    }

    /// A running server; connections are accepted a few milliseconds later.
    pub(crate) fn start(extra: &str) -> Self {
        let mut sshd = Self::prepare(extra);
        sshd.launch();
        sshd
    }

    pub(crate) fn launch(&mut self) {
        // The server of a system that was never booted lacks its folder for privilege separation.
        let _ = fs::create_dir_all("/run/sshd");
        let folder = self.folder.path().display();
        // Commands must not depend on what the start-up files of the user's shell do.
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n\
             StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\nSetEnv HOME={folder}\n{}\n",
            self.port, self.extra
        );
        let path = self.path("config");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(self.path("log")).unwrap();
        let server = Command::new(program())
            .args(["-D", "-e", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("tests need OpenSSH's sshd (Debian: apt-get install openssh-server)");
        self.server = Some(server);
    }

    /// Whether nothing that serves connections, or was started through them, is running at this moment.
    pub(crate) fn is_idle(&self) -> bool {
        let server = self.server.as_ref().map(|server| server.id().cast_signed());
        let processes = server.map(descendants).unwrap_or_default();
        processes.iter().all(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'))
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How to log in with the server's first key.
    pub(crate) fn info(&self) -> ConnectInfo {
        self.info_with(&fs::read_to_string(self.path("id")).unwrap())
    }

    /// How to log in with the private key `pem`.
    pub(crate) fn info_with(&self, pem: &str) -> ConnectInfo {
        let settings = ConnectorSettings {
            username: Some(user()),
            key_pem: Some(SecretString::from(pem.to_owned())),
            timeout: Some(std::time::Duration::from_secs(20)),
            ..ConnectorSettings::default()
        };
        let mut info = ConnectInfo::new("i-1", settings);
        info.internal_addr = Some(format!("127.0.0.1:{}", self.port));
        info
    }

    /// Makes another key, lets it in, and gives its private half.
    pub(crate) fn authorize(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.path(name);
        keygen(&path, arguments);
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        fs::write(self.path("authorized"), public).unwrap();
        fs::read_to_string(path).unwrap()
    }

    /// Replaces the host key, as when an instance is rebuilt under its name.
    pub(crate) fn change_host_key(&mut self) {
        self.stop();
        for name in ["host", "host.pub"] {
            fs::remove_file(self.path(name)).unwrap();
        }
        keygen(&self.path("host"), &["-t", "ed25519"]);
        self.launch();
    }

    /// The server's fingerprint as `ssh-keygen` prints it.
    pub(crate) fn fingerprint(&self) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.path("host.pub")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    /// The processes that serve connections, and what runs in them.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let Some(server) = &self.server else { return Vec::new() };
        descendants(server.id().cast_signed())
    }

    /// Sends a signal to all processes that serve connections.
    pub(crate) fn signal_children(&self, signal: Signal) {
        for child in self.children() {
            let _ = kill(child, signal);
        }
    }

    /// Ends the server and its connections.
    pub(crate) fn stop(&mut self) {
        let children = self.children();
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        for child in children {
            let _ = kill(child, Signal::SIGKILL);
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Name of the user who runs the tests.
pub(crate) fn user() -> String {
    User::from_uid(geteuid()).unwrap().unwrap().name
}

pub(crate) fn keygen(path: &Path, arguments: &[&str]) {
    let done = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(path).args(arguments).status();
    assert!(done.expect("tests need ssh-keygen").success(), "ssh-keygen {arguments:?} failed");
}

/// `sshd` insists on being started by its full path.
fn program() -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join("sshd"))
        .find(|path| path.exists())
        .expect("tests need OpenSSH's sshd (Debian: apt-get install openssh-server)")
}

fn descendants(root: i32) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // "pid (name) state parent ...", and the name may contain anything.
        let parent = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|text| text.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            found.push(Pid::from_raw(*child));
            next.push(*child);
        }
    }
    found
}
