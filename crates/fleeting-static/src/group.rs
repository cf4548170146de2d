//! The pool as an instance group.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, Finding, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Seen, Severity,
};
use serde_json::Value;

use crate::claims::Claims;
use crate::config::{self, Machine};
use crate::diagnose;

/// Separates the machine from the time of use in an instance's name.
const USE: char = '#';

/// A group over machines that already exist.
pub struct StaticGroup {
    machines: BTreeMap<String, Machine>,
    /// What `init` learned: how to dial each machine.
    prepared: OnceLock<BTreeMap<String, ConnectInfo>>,
    pool: Mutex<BTreeMap<String, Usage>>,
    /// The machines are this group's while it is initialised.
    claims: Mutex<Option<Claims>>,
}

/// How a machine is and was used.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    /// How often it was taken into use.
    times: u64,
    in_use: bool,
}

// === impl StaticGroup ===

impl StaticGroup {
    /// A group over these machines, by name.
    #[must_use]
    pub fn new(machines: BTreeMap<String, Machine>) -> Self {
        let pool = machines.keys().map(|name| (name.clone(), Usage::default())).collect();
        Self { machines, prepared: OnceLock::new(), pool: Mutex::new(pool), claims: Mutex::default() }
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

    fn pool(&self) -> MutexGuard<'_, BTreeMap<String, Usage>> {
        // No code can panic while it holds the lock half-way through a change.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StaticGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticGroup").field("pool", &*self.pool()).finish_non_exhaustive()
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
            let (claims, shared) = Claims::take(prepared.values())?;
            *self.claims() = Some(claims);
            for machine in shared {
                tracing::warn!(
                    machine,
                    "the machine is in use by another runner entry: together they may give it more jobs than either allows"
                );
            }
            // A second preparation at the same time has the same result.
            let _ = self.prepared.set(prepared);
        }
        Ok(GroupInfo {
            id: format!("static/{}", self.machines.keys().map(String::as_str).collect::<Vec<_>>().join(",")),
            max_size: u32::try_from(self.machines.len()).unwrap_or(u32::MAX),
            provider: concat!("static ", env!("CARGO_PKG_VERSION")).to_owned(),
            has_heartbeat: false,
        })
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let pool = self.pool();
        let in_use = pool.iter().filter(|(_, usage)| usage.in_use);
        Ok(in_use.map(|(name, usage)| Seen::new(id(name, usage.times), InstanceState::Running)).collect())
    }

    /// Takes free machines into use, lower names first.
    async fn increase(&self, n: u32) -> Changed<u32> {
        if self.prepared.get().is_none() {
            let message = "the group is used before it was initialised".to_owned();
            return Changed::partly(0, GroupError::Configuration { message });
        }
        let mut granted = 0;
        for usage in self.pool().values_mut().filter(|usage| !usage.in_use).take(n as usize) {
            usage.in_use = true;
            usage.times += 1;
            granted += 1;
        }
        if granted == n {
            return Changed::all(granted);
        }
        let message = format!("all {} machines of plugin_config.instances are in use", self.machines.len());
        Changed::partly(granted, GroupError::LimitReached { message })
    }

    /// Returns machines to the pool.
    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        let mut pool = self.pool();
        let mut accepted = Vec::with_capacity(ids.len());
        let mut foreign = Vec::new();
        for id in ids {
            let own = split(id).and_then(|(name, time)| Some((pool.get_mut(name)?, time)));
            match own {
                Some((usage, time)) if time >= 1 && time <= usage.times => {
                    // An earlier time of use is over already, whatever the machine does now.
                    if time == usage.times {
                        usage.in_use = false;
                    }
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
        let usage = self.pool().get(name).copied().ok_or_else(not_found)?;
        if !usage.in_use || usage.times != time {
            return Err(not_found());
        }
        let prepared = self.prepared.get().and_then(|prepared| prepared.get(name)).cloned();
        let mut info = prepared.ok_or_else(not_found)?;
        // Connections are kept by the name of the instance, which is one use of the machine.
        info.instance = id.as_str().to_owned();
        Ok(info)
    }

    /// Dials every machine.
    async fn diagnose(&self) -> Vec<Finding> {
        let mut findings = Vec::with_capacity(self.machines.len());
        for (name, machine) in &self.machines {
            let prepared = self.prepared.get().and_then(|prepared| prepared.get(name)).cloned();
            let info = prepared.unwrap_or_else(|| addressed(name, machine, &ConnectorSettings::default()));
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

    /// Always healthy: whether the machine answers is found out by dialling it, which the scaler does by itself.
    async fn heartbeat(&self, _: &InstanceId) -> Result<(), HeartbeatError> {
        Ok(())
    }

    /// No: the pool starts anew with each process.
    fn outlives_process(&self) -> bool {
        false
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        self.claims().take();
        Ok(())
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
