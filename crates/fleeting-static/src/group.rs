//! The pool as an instance group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connector::{DialOptions, HostKeys};
use fleeting::lease::Owner;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, Finding, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Seen, Severity,
};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use crate::claims::Claims;
use crate::config::{self, Machine};
use crate::diagnose;
use crate::holding::Unusable;
use crate::lock::Lock;
use crate::pool::Pool;

/// How long an increase goes on looking for machines that can be used, beside the last one that it tries.
const SEARCH: Duration = Duration::from_secs(20);

/// How long the locks of machines may take to be removed at the end.
const RELEASE: Duration = Duration::from_secs(10);

/// Separates the machine from the time of use in an instance's name.
const USE: char = '#';

/// A group over machines that already exist.
pub struct StaticGroup {
    machines: BTreeMap<String, Machine>,
    /// What `init` learned: how to dial each machine.
    prepared: OnceLock<BTreeMap<String, ConnectInfo>>,
    pool: Arc<Pool>,
    /// Who uses the machines, and how long a lock lasts that is not renewed.
    owner: OnceLock<(Owner, Duration)>,
    host_keys: HostKeys,
    /// The machines are this group's while it is initialised.
    claims: Mutex<Option<Claims>>,
    /// Machines that another entry of this manager had first. Its lock is theirs, too.
    shared: OnceLock<BTreeSet<String>>,
}

// === impl StaticGroup ===

impl StaticGroup {
    /// A group over these machines, by name.
    #[must_use]
    pub fn new(machines: BTreeMap<String, Machine>) -> Self {
        let pool = Arc::new(Pool::new(machines.keys().cloned()));
        Self {
            machines,
            prepared: OnceLock::new(),
            pool,
            owner: OnceLock::new(),
            host_keys: HostKeys::default(),
            claims: Mutex::default(),
            shared: OnceLock::new(),
        }
    }

    /// A group from its `plugin_config` table: `instances` maps names to `username`, `password`, `timeout`,
    /// `external_addr` and `internal_addr` (as in GitLab's static plugin), `key_path`, `host_key`, `protocol_port`, `os`
    /// and `arch`.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for wrong values, unknown keys and machines without an address.
    pub fn from_plugin_config(table: &Value) -> Result<Self, GroupError> {
        Ok(Self::new(config::machines(table)?))
    }

    fn claims(&self) -> MutexGuard<'_, Option<Claims>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self, machine: &str) -> Option<ConnectInfo> {
        self.prepared.get()?.get(machine).cloned()
    }

    fn options(&self, info: &ConnectInfo) -> DialOptions {
        DialOptions {
            use_external_addr: info.settings.use_external_addr,
            spare_sessions: 0,
            host_keys: self.host_keys.clone(),
            // These machines run for long: a login that is refused now is refused a minute later.
            login_retries: 0,
            ..DialOptions::default()
        }
    }

    /// Reaches and locks machines that are free, some at once, until there are enough or none is left to try.
    async fn take(&self, n: u32, owner: &Owner, valid: Duration) -> u32 {
        let started = Instant::now();
        let mut granted = 0;
        while granted < n && started.elapsed() < SEARCH {
            let candidates = self.pool.begin((n - granted) as usize);
            if candidates.is_empty() {
                break;
            }
            // In tasks of their own: what was begun is brought to its end, also when nobody waits for it any more.
            let tries = candidates.into_iter().filter_map(|machine| {
                let info = self.info(&machine)?;
                let options = self.options(&info);
                let shared = self.shared.get().is_some_and(|shared| shared.contains(&machine));
                let lock = (!shared).then(|| Lock::new(owner, valid));
                Some(tokio::spawn(Arc::clone(&self.pool).take(machine, info, options, lock, valid / 3)))
            });
            granted +=
                join_all(tries).await.into_iter().filter(|taken| matches!(taken, Ok(true))).count() as u32;
        }
        granted
    }

    /// Why there are not as many machines as were asked for.
    fn shortage(&self) -> GroupError {
        let troubles = self.pool.troubles();
        if troubles.is_empty() {
            let message =
                format!("all {} machines of plugin_config.instances are in use", self.machines.len());
            return GroupError::LimitReached { message };
        }
        GroupError::NoCapacity { message: troubles.join("; ") }
    }
}

impl fmt::Debug for StaticGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticGroup").field("pool", &self.pool).finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceGroup for StaticGroup {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        if self.prepared.get().is_none() {
            let mut prepared = BTreeMap::new();
            for (name, machine) in &self.machines {
                let mut info = addressed(name, machine, settings);
                info.settings.key_pem = machine.read_key(name)?.or(info.settings.key_pem);
                prepared.insert(name.clone(), info);
            }
            let user = self.owner.get().map(|(owner, _)| (owner.manager.clone(), owner.entry.clone()));
            let (claims, shared) = Claims::take(prepared.values(), user)?;
            *self.claims() = Some(claims);
            for machine in &shared {
                tracing::warn!(
                    machine,
                    "the machine is in use by another runner entry: together they may give it more jobs than either allows"
                );
            }
            // A second preparation at the same time has the same result.
            let _ = self.shared.set(shared.into_iter().collect());
            let _ = self.prepared.set(prepared);
        }
        Ok(GroupInfo {
            id: format!("static/{}", self.machines.keys().map(String::as_str).collect::<Vec<_>>().join(",")),
            max_size: u32::try_from(self.machines.len()).unwrap_or(u32::MAX),
            provider: concat!("static ", env!("CARGO_PKG_VERSION")).to_owned(),
            has_heartbeat: true,
        })
    }

    fn used_by(&self, owner: &Owner, valid: Duration) {
        // One group has one user.
        let _ = self.owner.set((owner.clone(), valid));
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let in_use = self.pool.in_use();
        Ok(in_use.iter().map(|(name, times)| Seen::new(id(name, *times), InstanceState::Running)).collect())
    }

    /// Machines that do not answer, or that somebody else uses, cannot be had.
    fn max_size(&self) -> Option<u32> {
        Some(u32::try_from(self.pool.usable()).unwrap_or(u32::MAX))
    }

    fn lacking(&self) -> Option<String> {
        self.pool.lacking()
    }

    /// Takes free machines into use, lower names first. With an owner, each is dialled and locked before; those that do not
    /// answer, or that somebody else uses, are left alone until a look at them says otherwise.
    async fn increase(&self, n: u32) -> Changed<u32> {
        if self.prepared.get().is_none() {
            let message = "the group is used before it was initialised".to_owned();
            return Changed::partly(0, GroupError::Configuration { message });
        }
        let granted = match self.owner.get() {
            Some((owner, valid)) => self.take(n, owner, *valid).await,
            None => self.pool.use_unlocked(n as usize),
        };
        if granted >= n { Changed::all(granted) } else { Changed::partly(granted, self.shortage()) }
    }

    /// Returns machines to the pool, and removes their locks.
    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        let mut accepted = Vec::with_capacity(ids.len());
        let mut foreign = Vec::new();
        for id in ids {
            match split(id) {
                Some((name, time)) if self.pool.was_used(name, time) => {
                    Arc::clone(&self.pool).give_back(name, time);
                    accepted.push(id.clone());
                }
                Some(_) | None => foreign.push(format!("`{id}`")),
            }
        }
        if foreign.is_empty() {
            return Changed::all(accepted);
        }
        Changed::partly(accepted, GroupError::NotFound { what: format!("instance {}", foreign.join(", ")) })
    }

    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        let not_found = || GroupError::NotFound { what: format!("instance `{id}`") };
        let (name, time) = split(id).ok_or_else(not_found)?;
        if !self.pool.is_in_use(name, time) {
            return Err(not_found());
        }
        let mut info = self.info(name).ok_or_else(not_found)?;
        // Connections are kept by the name of the instance, which is one use of the machine.
        info.instance = id.as_str().to_owned();
        Ok(info)
    }

    /// Dials every machine.
    async fn diagnose(&self) -> Vec<Finding> {
        let mut findings = Vec::with_capacity(self.machines.len());
        for (name, machine) in &self.machines {
            let info =
                self.info(name).unwrap_or_else(|| addressed(name, machine, &ConnectorSettings::default()));
            findings.push(match machine.read_key(name) {
                Ok(_) => diagnose::machine(&info).await,
                Err(error) => {
                    Finding::new(Severity::Error, format!("static/machine/{name}"), error.to_string())
                        .leads_to("the entry takes no jobs")
                        .repair(format!(
                            "chmod 600 {}   # as the owner, who is the user who runs drover",
                            machine.key_path.as_deref().unwrap_or(Path::new("FILE")).display()
                        ))
                }
            });
        }
        findings
    }

    /// Dials the machine; if it is locked, logs in, and the lock must still be one's own.
    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        let unhealthy = |why: String| Err(HeartbeatError::Unhealthy(why));
        let Some((name, time)) = split(id).filter(|(name, time)| self.pool.is_in_use(name, *time)) else {
            return unhealthy(format!("`{id}` is not in use"));
        };
        let checked = match (self.pool.holding(name, time), self.info(name)) {
            (Some(holding), _) => holding.check().await,
            (None, Some(info)) => {
                let external = info.settings.use_external_addr;
                diagnose::greets(&info, external).await.map_err(Unusable::Dead)
            }
            (None, None) => return Err(HeartbeatError::Unknown("the group is not initialised".to_owned())),
        };
        checked.map_err(|why| HeartbeatError::Unhealthy(format!("machine `{name}` {why}")))
    }

    /// No: the pool starts anew with each process.
    fn outlives_process(&self) -> bool {
        false
    }

    async fn changed(&self) {
        self.pool.changed().await;
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        self.claims().take();
        let left = Arc::clone(&self.pool).close(RELEASE).await;
        if left.is_empty() {
            return Ok(());
        }
        let what = left.join("; ");
        Err(GroupError::Transient { message: format!("locks of machines stay until they lapse: {what}") })
    }
}

/// How to dial a machine, but for its key.
fn addressed(name: &str, machine: &Machine, settings: &ConnectorSettings) -> ConnectInfo {
    let mut info = ConnectInfo::new(name, machine.settings(settings));
    info.external_addr.clone_from(&machine.external_addr);
    info.internal_addr.clone_from(&machine.internal_addr);
    info
}

fn id(machine: &str, time: u64) -> String {
    format!("{machine}{USE}{time}")
}

/// The machine and the time of use; machines may have the separator in their own names.
fn split(id: &InstanceId) -> Option<(&str, u64)> {
    let (name, time) = id.as_str().rsplit_once(USE)?;
    Some((name, time.parse().ok()?))
}
