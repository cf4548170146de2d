//! The instance group.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Os, Protocol, Seen,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::keeper::{self, Orders};
use crate::keys::Login;
use crate::protocol::Ready;

/// How many fates are remembered.
const FATES: usize = 1000;
/// How long [`InstanceGroup::shutdown`] waits for deletions that are under way.
const SETTLE: Duration = Duration::from_secs(10);

/// A group of instances that are processes of this machine.
///
/// Instances live for as long as this value and the process that holds it.
pub struct LocalGroup {
    shared: Arc<Shared>,
}

/// What the group and the keepers of its instances share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Part of every name, so that names stay unique over all runs.
    nonce: String,
    prepared: OnceLock<Prepared>,
    state: Mutex<State>,
    changed: Notify,
    /// Cancelled when the group is dropped.
    pub(crate) closing: CancellationToken,
    /// How many keepers there are: one per instance, until nothing is left of it.
    keepers: watch::Sender<usize>,
}

/// What `init` made.
pub(crate) struct Prepared {
    pub(crate) login: Login,
    pub(crate) username: String,
    pub(crate) program: PathBuf,
    pub(crate) work_dir: PathBuf,
    /// The work directory is our own and goes with its last instance.
    pub(crate) temporary: bool,
    settings: ConnectorSettings,
}

/// Counts one keeper for as long as it lives.
pub(crate) struct KeeperCount(Arc<Shared>);

#[derive(Default)]
struct State {
    made: u64,
    living: BTreeMap<InstanceId, Living>,
    fates: VecDeque<(InstanceId, String)>,
}

struct Living {
    state: InstanceState,
    ready: Option<Ready>,
    orders: Orders,
}

// === impl LocalGroup ===

impl LocalGroup {
    /// A group without instances; nothing is started before `init`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shared = Shared {
            config,
            nonce: format!("{:06x}", rand::random::<u32>() & 0x00ff_ffff),
            prepared: OnceLock::new(),
            state: Mutex::default(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
            keepers: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A group from its `plugin_config` table.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for wrong values and unknown keys.
    pub fn from_plugin_config(table: &serde_json::Value) -> Result<Self, GroupError> {
        Ok(Self::new(Config::from_plugin_config(table)?))
    }

    /// Kills an instance without warning, as if its machine had lost power. False if there is none of this name that
    /// runs.
    pub fn kill(&self, id: &InstanceId) -> bool {
        let state = self.shared.state();
        let running = state.living.get(id).filter(|living| living.state == InstanceState::Running);
        running.inspect(|living| living.orders.kill.notify_one()).is_some()
    }

    /// Waits until deletions and deaths under way are over and have left nothing behind.
    pub async fn settled(&self) {
        let mut keepers = self.shared.keepers.subscribe();
        // The sender lives as long as the group, so that this cannot fail.
        let _ = keepers.wait_for(|keepers| *keepers <= self.shared.state().undisturbed()).await;
    }
}

impl Drop for LocalGroup {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl fmt::Debug for LocalGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let living: Vec<_> = self.shared.state().living.keys().cloned().collect();
        f.debug_struct("LocalGroup")
            .field("config", &self.shared.config)
            .field("living", &living)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceGroup for LocalGroup {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        if self.shared.prepared.get().is_none() {
            let prepared = Prepared::new(&self.shared.config, &self.shared.nonce, settings)?;
            // A second preparation at the same time is harmless: one of the two is kept.
            let _ = self.shared.prepared.set(prepared);
        }
        Ok(GroupInfo {
            id: format!("local/{}", self.shared.config.name),
            max_size: self.shared.config.max_size,
            provider: concat!("local ", env!("CARGO_PKG_VERSION")).to_owned(),
            has_heartbeat: true,
        })
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let state = self.shared.state();
        Ok(state.living.iter().map(|(id, living)| Seen::new(id.as_str(), living.state)).collect())
    }

    fn max_size(&self) -> Option<u32> {
        Some(self.shared.config.max_size)
    }

    async fn increase(&self, n: u32) -> Changed<u32> {
        if self.shared.prepared.get().is_none() {
            return Changed::partly(0, not_initialised());
        }
        let mut state = self.shared.state();
        let room = u64::from(self.shared.config.max_size).saturating_sub(state.living.len() as u64);
        let granted = u32::try_from(room).unwrap_or(u32::MAX).min(n);
        for _ in 0..granted {
            state.made += 1;
            let number = state.made;
            let id = InstanceId::from(format!("{}{number}", self.shared.prefix()));
            let orders = Orders::default();
            let living = Living { state: InstanceState::Creating, ready: None, orders: orders.clone() };
            state.living.insert(id.clone(), living);
            let counted = self.shared.count_keeper();
            tokio::spawn(keeper::keep(Arc::clone(&self.shared), id, number, orders, counted));
        }
        drop(state);
        if granted == n {
            return Changed::all(granted);
        }
        let message = format!("plugin_config.max_size is {}", self.shared.config.max_size);
        Changed::partly(granted, GroupError::LimitReached { message })
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        let mut state = self.shared.state();
        let (own, foreign): (Vec<_>, Vec<_>) =
            ids.iter().cloned().partition(|id| self.shared.is_own(id, state.made));
        for id in &own {
            if let Some(living) = state.living.get_mut(id) {
                living.state = InstanceState::Deleting;
                living.orders.delete.cancel();
            }
        }
        if foreign.is_empty() {
            return Changed::all(own);
        }
        let names: Vec<_> = foreign.iter().map(|id| format!("`{id}`")).collect();
        Changed::partly(own, GroupError::NotFound { what: format!("instance {}", names.join(", ")) })
    }

    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        let prepared = self.shared.prepared.get().ok_or_else(not_initialised)?;
        let not_found = || GroupError::NotFound { what: format!("instance `{id}`") };
        let ready = {
            let state = self.shared.state();
            let living = state.living.get(id).ok_or_else(not_found)?;
            match (living.state, &living.ready) {
                (InstanceState::Running, Some(ready)) => ready.clone(),
                (InstanceState::Deleting | InstanceState::Deleted, _) => return Err(not_found()),
                (InstanceState::Running | InstanceState::Creating | InstanceState::Timeout, _) => {
                    return Err(GroupError::Transient { message: format!("instance `{id}` is not running") });
                }
            }
        };
        let mut settings = prepared.settings.clone();
        settings.username = Some(prepared.username.clone());
        settings.key_pem = Some(prepared.login.key_pem.clone());
        settings.password = None;
        settings.os.get_or_insert(if cfg!(target_os = "macos") { Os::Darwin } else { Os::Linux });
        settings.arch.get_or_insert_with(|| go_arch(std::env::consts::ARCH).to_owned());
        settings.protocol = Some(Protocol::Ssh);
        settings.host_key = Some(ready.host_key);
        let mut info = ConnectInfo::new(id.as_str(), settings);
        info.internal_addr = Some(format!("127.0.0.1:{}", ready.port));
        Ok(info)
    }

    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        let state = self.shared.state();
        match state.living.get(id).map(|living| living.state) {
            Some(InstanceState::Running) => Ok(()),
            Some(
                other @ (InstanceState::Creating
                | InstanceState::Deleting
                | InstanceState::Deleted
                | InstanceState::Timeout),
            ) => Err(HeartbeatError::Unknown(format!("instance `{id}` is {other:?}").to_lowercase())),
            None => match state.fate(id) {
                Some(fate) => Err(HeartbeatError::Unhealthy(fate)),
                None => Err(HeartbeatError::Unknown(format!("instance `{id}` not found"))),
            },
        }
    }

    async fn fate(&self, id: &InstanceId) -> Option<String> {
        self.shared.state().fate(id)
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// No: an instance ends with the process that started it.
    fn outlives_process(&self) -> bool {
        false
    }

    /// Waits, within a bound, for deletions under way. Instances stay, for as long as this value does.
    async fn shutdown(&self) -> Result<(), GroupError> {
        tokio::time::timeout(SETTLE, self.settled()).await.map_err(|_| GroupError::Transient {
            message: format!("deletions are not over after {} s", SETTLE.as_secs()),
        })
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn count_keeper(self: &Arc<Self>) -> KeeperCount {
        self.keepers.send_modify(|keepers| *keepers += 1);
        KeeperCount(Arc::clone(self))
    }

    /// What `init` made; present wherever there is an instance.
    pub(crate) fn prepared(&self) -> Option<&Prepared> {
        self.prepared.get()
    }

    /// Sets the state of an instance that is not being deleted.
    pub(crate) fn set_state(&self, id: &InstanceId, to: InstanceState, ready: Option<Ready>) {
        if let Some(living) = self.state().living.get_mut(id)
            && living.state != InstanceState::Deleting
        {
            living.state = to;
            living.ready = ready;
        }
        self.changed.notify_one();
    }

    pub(crate) fn gone(&self, id: &InstanceId, fate: String) {
        let mut state = self.state();
        state.living.remove(id);
        state.fates.push_back((id.clone(), fate));
        while state.fates.len() > FATES {
            state.fates.pop_front();
        }
        drop(state);
        self.changed.notify_one();
    }

    fn prefix(&self) -> String {
        format!("{}-{}-", self.config.name, self.nonce)
    }

    /// Whether this group ever made an instance of this name.
    fn is_own(&self, id: &InstanceId, made: u64) -> bool {
        let number = id.as_str().strip_prefix(&self.prefix()).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number >= 1 && number <= made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code can panic while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl KeeperCount ===

impl Drop for KeeperCount {
    fn drop(&mut self) {
        self.0.keepers.send_modify(|keepers| *keepers -= 1);
    }
}

// === impl State ===

impl State {
    fn fate(&self, id: &InstanceId) -> Option<String> {
        self.fates.iter().rev().find(|(gone, _)| gone == id).map(|(_, fate)| fate.clone())
    }

    /// Instances whose keepers have nothing to end.
    fn undisturbed(&self) -> usize {
        self.living.values().filter(|living| living.state != InstanceState::Deleting).count()
    }
}

// === impl Prepared ===

impl Prepared {
    fn new(config: &Config, nonce: &str, settings: &ConnectorSettings) -> Result<Self, GroupError> {
        if let Some(protocol @ (Protocol::Winrm | Protocol::WinrmHttps)) = settings.protocol {
            let message = format!("connector_config.protocol is {protocol}, but local instances speak ssh");
            return Err(GroupError::Configuration { message });
        }
        let program = program(config)?;
        let (work_dir, temporary) = match &config.work_dir {
            Some(dir) => (dir.clone(), false),
            None => (std::env::temp_dir().join(format!("drover-{}-{nonce}", config.name)), true),
        };
        make_dir(&work_dir, temporary)?;
        let username = settings.username.clone().unwrap_or_else(|| "drover".to_owned());
        let login = Login::new(settings)?;
        Ok(Self { login, username, program, work_dir, temporary, settings: settings.clone() })
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.temporary {
            // Fails, as it should, while instances still end in there; the last of them removes it then.
            let _ = std::fs::remove_dir(&self.work_dir);
        }
    }
}

fn program(config: &Config) -> Result<PathBuf, GroupError> {
    let bad = |message| GroupError::Configuration { message };
    match &config.program {
        Some(program) => {
            let about = |what: &str| bad(format!("plugin_config.program: `{}` {what}", program.display()));
            let metadata =
                std::fs::metadata(program).map_err(|error| about(&format!("is unusable: {error}")))?;
            if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
                return Err(about("is not an executable file"));
            }
            Ok(program.clone())
        }
        // The link leads to the running program also after the file has been replaced by an upgrade.
        None if cfg!(target_os = "linux") => Ok("/proc/self/exe".into()),
        None => std::env::current_exe().map_err(|error| bad(format!("own program not found: {error}"))),
    }
}

fn make_dir(dir: &Path, temporary: bool) -> Result<(), GroupError> {
    let bad = |error: std::io::Error| GroupError::Configuration {
        message: format!("plugin_config.work_dir: cannot make `{}`: {error}", dir.display()),
    };
    if !dir.is_absolute() {
        return Err(bad(std::io::Error::other("it must be an absolute path")));
    }
    // A temporary one must be new: its name could be somebody's trap. The mode is set at creation.
    std::fs::DirBuilder::new().recursive(!temporary).mode(0o700).create(dir).map_err(bad)
}

fn not_initialised() -> GroupError {
    GroupError::Configuration { message: "the group is used before it was initialised".to_owned() }
}

/// Rust's name of an architecture in Go's naming.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
