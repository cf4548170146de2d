//! What the tests of this crate share: a group of real instances, a client, and a look at the machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_fleeting_local::{Config, LocalGroup};
use fleeting::{ConnectInfo, ConnectorSettings, ExposeSecret, InstanceGroup, InstanceId, InstanceState};
use russh::client::{self, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};

/// Any wait of a test ends with a failure after this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn config(work_dir: &std::path::Path) -> Config {
    Config {
        program: Some(env!("CARGO_BIN_EXE_drover-local-instance").into()),
        work_dir: Some(work_dir.to_owned()),
        ..Config::default()
    }
}

/// A group with instances that run.
pub(crate) struct World {
    pub(crate) group: LocalGroup,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ids: Vec<InstanceId>,
}

impl World {
    pub(crate) async fn with(n: u32) -> Self {
        Self::configured(n, |config| config).await
    }

    pub(crate) async fn configured(n: u32, change: impl FnOnce(Config) -> Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = LocalGroup::new(change(config(dir.path())));
        group.init(&ConnectorSettings::default()).await.unwrap();
        assert_eq!(group.increase(n).await.error, None);
        let ids = until(&group, "all instances run", |listing| {
            let running = listing.iter().filter(|(_, state)| *state == InstanceState::Running);
            let running: Vec<_> = running.map(|(id, _)| id.clone()).collect();
            (running.len() == n as usize).then_some(running)
        })
        .await;
        Self { group, dir, ids }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.group.connect_info(&self.ids[0]).await.unwrap()).await
    }

    pub(crate) fn instance_dir(&self) -> PathBuf {
        self.dir.path().join(self.ids[0].as_str())
    }
}

/// Waits for a listing that satisfies the condition.
pub(crate) async fn until<T>(
    group: &LocalGroup,
    what: &str,
    condition: impl Fn(&[(InstanceId, InstanceState)]) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            let listing = group.update().await.unwrap();
            let listing: Vec<_> = listing.into_iter().map(|seen| (seen.id, seen.state)).collect();
            if let Some(value) = condition(&listing) {
                return value;
            }
            group.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not reached: {what}"))
}

/// Waits for something outside of this process.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not reached: {what}"));
}

pub(crate) fn is_alive(pid: i32) -> bool {
    // A zombie answers signals, but is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Processes whose working directory is this one or below.
pub(crate) fn processes_in(dir: &std::path::Path) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        // The link of a directory that is gone ends in " (deleted)".
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        is_alive(*pid) && cwd.to_string_lossy().starts_with(&*dir.to_string_lossy())
    })
    .collect()
}

/// A plain SSH client.
pub(crate) struct Client {
    pub(crate) handle: Handle<Trust>,
}

pub(crate) struct Trust(String);

impl client::Handler for Trust {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        Ok(key.fingerprint(HashAlg::Sha256).to_string() == self.0)
    }
}

/// What a command came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<u32>,
    pub(crate) signal: Option<String>,
}

impl Client {
    pub(crate) async fn connect(info: &ConnectInfo) -> Self {
        Self::try_connect(info).await.unwrap()
    }

    pub(crate) async fn try_connect(info: &ConnectInfo) -> Result<Self, String> {
        let target = info.target(false).unwrap();
        let trust = Trust(info.settings.host_key.clone().unwrap());
        let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
        let mut handle = client::connect(config, (target.host, target.port), trust)
            .await
            .map_err(|error| error.to_string())?;
        let key = info.settings.key_pem.as_ref().unwrap().expose_secret();
        let key = russh::keys::decode_secret_key(key, None).unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let user = info.settings.username.clone().unwrap();
        let login = handle.authenticate_publickey(user, key).await.map_err(|error| error.to_string())?;
        if login.success() { Ok(Self { handle }) } else { Err("login refused".to_owned()) }
    }

    pub(crate) async fn start(&self, command: &str) -> Channel<client::Msg> {
        let channel = self.handle.channel_open_session().await.unwrap();
        channel.exec(true, command).await.unwrap();
        channel
    }

    pub(crate) async fn run(&self, command: &str, stdin: impl Into<Bytes>) -> Outcome {
        let channel = self.start(command).await;
        channel.data_bytes(stdin).await.unwrap();
        channel.eof().await.unwrap();
        finish(channel).await
    }
}

pub(crate) async fn finish(mut channel: Channel<client::Msg>) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = async {
        while let Some(message) = channel.wait().await {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says nothing about the outcome")]
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { ext: 1, data } => stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => outcome.code = Some(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    outcome.signal = Some(format!("{signal_name:?}"))
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the command ends");
    outcome.stdout = String::from_utf8(stdout).unwrap();
    outcome.stderr = String::from_utf8(stderr).unwrap();
    outcome
}

/// Reads up to the end of the first line of output.
pub(crate) async fn first_line(channel: &mut Channel<client::Msg>) -> String {
    let mut line = String::new();
    let read = async {
        while !line.ends_with('\n') {
            if let ChannelMsg::Data { data } = channel.wait().await.expect("the command goes on") {
                line.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a line comes");
    line.trim().to_owned()
}
