//! A real OpenSSH server on a free loopback port: an instance that is reached as those of clouds are.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::machine;
use crate::ports::free_port;

/// An OpenSSH server with keys of its own. Its processes end with it.
pub struct Sshd {
    folder: TempDir,
    port: u16,
    extra: String,
    /// Whoever logs in finds the first of each at the place of the second.
    mounts: Vec<(PathBuf, PathBuf)>,
    server: Option<Child>,
}

// === impl Sshd ===

impl Sshd {
    /// A running server; connections are accepted a few milliseconds later.
    #[must_use]
    pub fn start() -> Self {
        Self::configured("")
    }

    /// The same with lines added to its configuration.
    ///
    /// # Panics
    /// When OpenSSH is not installed, or does not start.
    #[must_use]
    pub fn configured(extra: &str) -> Self {
        let mut sshd = Self::prepare(extra);
        sshd.launch();
        sshd
    }

    /// A machine with files of its own: whoever logs in finds `own`, which is made below the home folder, at the place of `shared`,
    /// an existing folder that is the same for several such machines.
    ///
    /// # Panics
    /// When OpenSSH does not start, or the tests may not mount.
    #[must_use]
    pub fn with_folder(own: &str, shared: &Path) -> Self {
        let mut sshd = Self::prepare("");
        let own = sshd.path(own);
        std::fs::create_dir_all(&own).expect("the folder can be written to");
        sshd.mounts.push((own, shared.to_owned()));
        sshd.launch();
        sshd
    }

    /// A machine with one more user, who logs in with a password. `hash` is that of `crypt(3)`.
    ///
    /// # Panics
    /// When OpenSSH does not start, or the tests may not mount.
    #[must_use]
    pub fn with_user(name: &str, hash: &str) -> Self {
        let mut sshd = Self::prepare("PasswordAuthentication yes\nPermitRootLogin yes");
        let folder = sshd.folder.path().display().to_string();
        // With the number of the user who runs the tests, because nobody else may use what is theirs.
        let number = geteuid().as_raw();
        let shadowed = [
            ("passwd", format!("{name}:x:{number}:{number}::{folder}:/bin/bash\n")),
            ("shadow", format!("{name}:{hash}:19000:0:99999:7:::\n")),
        ];
        for (file, line) in shadowed {
            let system = Path::new("/etc").join(file);
            let rest = std::fs::read_to_string(&system).expect("the users of the system can be read");
            std::fs::write(sshd.path(file), line + &rest).expect("the folder can be written to");
            sshd.mounts.push((sshd.path(file), system));
        }
        sshd.launch();
        sshd
    }

    fn prepare(extra: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        keygen(&folder.path().join("host"));
        keygen(&folder.path().join("id"));
        let port = free_port();
        Self { folder, port, extra: extra.to_owned(), mounts: Vec::new(), server: None }
    }

    /// Starts the server, again after [`stop`](Self::stop).
    ///
    /// # Panics
    /// When OpenSSH is not installed, or does not start.
    pub fn launch(&mut self) {
        // The server of a system that was never booted lacks its folder for privilege separation.
        let _ = std::fs::create_dir_all("/run/sshd");
        let folder = self.folder.path().display();
        // Commands must not depend on what the start-up files of the user's shell do.
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/id.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\nSetEnv HOME={folder}\n{}\n",
            self.port, self.extra
        );
        let path = self.path("config");
        std::fs::write(&path, config).expect("the folder can be written to");
        let log = std::fs::File::create(self.path("log")).expect("the folder can be written to");
        let mut command = Command::new(program());
        if !self.mounts.is_empty() {
            // Seen by this server and what it starts, and by nobody else.
            let script = "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit 1; shift 2; done; shift; exec \"$@\"";
            command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script, "sh"]);
            command.args(self.mounts.iter().flat_map(|(own, shared)| [own, shared])).arg("--").arg(program());
        }
        let server = command
            .args(["-D", "-e", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("tests need OpenSSH's sshd (Debian: apt-get install openssh-server)");
        self.server = Some(server);
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The private key that it lets in.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.path("id")
    }

    /// The home folder of whoever logs in.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// Name of the user who runs the tests, and as whom one logs in.
    ///
    /// # Panics
    /// When the user has no name.
    #[must_use]
    pub fn user() -> String {
        User::from_uid(geteuid()).ok().flatten().expect("the user has a name").name
    }

    /// The processes that serve connections, and what runs in them.
    #[must_use]
    pub fn children(&self) -> Vec<i32> {
        let server = self.server.as_ref().map(|server| server.id().cast_signed());
        server.map(machine::descendants).unwrap_or_default()
    }

    /// Kills the server, its connections and what runs in them, as when the power goes off.
    pub fn stop(&mut self) {
        let children = self.children();
        if let Some(mut server) = self.server.take() {
            // A server that has ended by itself is just as well.
            let _ = server.kill();
            let _ = server.wait();
        }
        for child in children {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keygen(path: &Path) {
    let done = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(done.expect("tests need ssh-keygen (Debian: apt-get install openssh-client)").success());
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
