//! An OpenSSH server on loopback: a machine that a manager reaches as it reaches those of clouds.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::{User, geteuid};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const START_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running server. It ends with this value.
#[derive(Debug)]
pub(crate) struct Machine {
    port: u16,
    user: String,
    key: PathBuf,
    _server: Child,
}

// === impl Machine ===

impl Machine {
    /// Starts one with keys of its own, which lie in `folder` with the files of its jobs.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let user = User::from_uid(geteuid()).ok().flatten().context("the user has no name")?.name;
        for key in ["host", "id"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key))
                .status()
                .await
                .context("failed to run ssh-keygen: it is in OpenSSH's client package")?;
            anyhow::ensure!(made.success(), "ssh-keygen made no key");
        }
        // The server of a system that was never booted lacks its folder for privilege separation; where it cannot be made, it is there.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // A home of its own, where the mark of who uses a machine lies: others may have this machine as one of theirs.
        let shown = folder.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/id.pub\nStrictModes no\n\
             UsePAM no\nPidFile none\nMaxStartups 200\nMaxSessions 200\nSetEnv HOME={shown}\n"
        );
        std::fs::write(folder.join("sshd_config"), config).context("failed to write a configuration")?;
        let server = Command::new(program()?)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("sshd.log"))?)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start sshd")?;
        let end = Instant::now() + START_PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() >= end {
                bail!("sshd does not listen: {}", std::fs::read_to_string(folder.join("sshd.log"))?);
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(Self { port, user, key: folder.join("id"), _server: server })
    }

    /// The tables of a runner entry that lead there, for Drover and GitLab Runner alike. `[runners.autoscaler]` comes first, so
    /// that keys of it can stand in front.
    pub(crate) fn tables(&self) -> String {
        let Self { port, user, key, .. } = self;
        let key = key.display();
        format!(
            r#"    plugin = "fleeting-plugin-static"
    max_instances = 1
    [runners.autoscaler.plugin_config.instances.machine]
      username = "{user}"
      internal_addr = "127.0.0.1:{port}"
      external_addr = "127.0.0.1:{port}"
    [runners.autoscaler.connector_config]
      username = "{user}"
      key_path = "{key}"
      use_static_credentials = true
"#
        )
    }
}

/// `sshd` insists on being started by its full path.
fn program() -> anyhow::Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join("sshd"))
        .find(|path| path.is_file())
        .context("there is no sshd: install OpenSSH's server")
}
