//! The instance group.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerSummaryStateEnum as State;
use fleeting::lease::{GroupLease, Owner};
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, Finding, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Os, Protocol, Seen, Severity,
};
use futures_util::future::join_all;
use tokio::sync::Notify;

use crate::Config;
use crate::containers::{Containers, Listed};
use crate::lease::{Mark, Marks};
use crate::login::Login;

/// How many fates are remembered.
const FATES: usize = 1000;
const DEFAULT_USER: &str = "root";

/// A group of instances that are containers of one engine.
pub struct DockerGroup {
    config: Config,
    /// Part of every name, so that names stay unique over all runs.
    nonce: String,
    shared: Arc<Shared>,
    prepared: OnceLock<Prepared>,
    /// The group is to be marked, and its mark is listed.
    leased: AtomicBool,
    mark: Mutex<Mark>,
}

struct Prepared {
    containers: Arc<Containers>,
    marks: Marks,
    login: Option<Login>,
    settings: ConnectorSettings,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Changes>,
    changed: Notify,
}

/// What is under way in this process, and not to be seen at the engine.
#[derive(Default)]
struct Changes {
    made: u64,
    creating: BTreeSet<InstanceId>,
    deleting: BTreeSet<InstanceId>,
    fates: VecDeque<(InstanceId, String)>,
}

// === impl DockerGroup ===

impl DockerGroup {
    /// A group; the engine is not asked for anything before `init`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            nonce: format!("{:06x}", rand::random::<u32>() & 0x00ff_ffff),
            shared: Arc::default(),
            prepared: OnceLock::new(),
            leased: AtomicBool::new(false),
            mark: Mutex::default(),
        }
    }

    /// A group from its `plugin_config` table.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for wrong values and unknown keys.
    pub fn from_plugin_config(table: &serde_json::Value) -> Result<Self, GroupError> {
        Ok(Self::new(Config::from_plugin_config(table)?))
    }

    fn prepared(&self) -> Result<&Prepared, GroupError> {
        self.prepared
            .get()
            .ok_or_else(|| GroupError::Transient { message: "the group is not initialised".to_owned() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Address of the engine.
    pub(crate) fn host(&self) -> &str {
        &self.config.host
    }

    pub(crate) fn marks(&self) -> Result<&Marks, GroupError> {
        Ok(&self.prepared()?.marks)
    }

    pub(crate) fn mark(&self) -> MutexGuard<'_, Mark> {
        // No code can panic while it holds the lock half-way through a change.
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whose the group is, if it is marked at all.
    async fn read_mark(&self) -> Result<(), GroupError> {
        if self.leased.load(Ordering::Relaxed) {
            let read = self.marks()?.read().await?;
            self.mark().listed(read);
        }
        Ok(())
    }

    /// The group's containers right before a change, if it is still one's own.
    async fn list_to_change(&self) -> Result<Vec<Listed>, GroupError> {
        self.read_mark().await?;
        self.mark().check()?;
        self.prepared()?.containers.list().await
    }

    fn no_engine(&self, error: &GroupError) -> Finding {
        Finding::new(Severity::Error, "docker/engine", error.to_string())
            .leads_to("no instance is started, and the entry takes no jobs")
            .repair(format!("docker -H {} version   # as the user who runs drover", self.config.host))
    }

    /// True for names that this group gives.
    fn is_name_of_ours(&self, id: &InstanceId) -> bool {
        let rest = id.as_str().strip_prefix(&self.config.name).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.split_once('-')).is_some_and(|(nonce, number)| {
            let hex = nonce.len() == 6 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
            let made = self.shared.changes().made;
            // Of this run it is known which were given; of others, that they may have been.
            hex && number
                .parse::<u64>()
                .is_ok_and(|number| nonce != self.nonce || (1..=made).contains(&number))
        })
    }
}

impl fmt::Debug for DockerGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerGroup").field("config", &self.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceGroup for DockerGroup {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        if self.prepared.get().is_none() {
            let containers = Arc::new(Containers::new(&self.config)?);
            let version = containers.version().await?;
            tracing::debug!(host = self.config.host, version, "engine of the instance group");
            let login = Login::new(settings)?;
            // A second preparation at the same time is harmless: one of the two is kept.
            let marks = containers.marks();
            let _ = self.prepared.set(Prepared { containers, marks, login, settings: settings.clone() });
        }
        Ok(GroupInfo {
            id: format!("docker/{}", self.config.name),
            max_size: self.config.max_size,
            provider: concat!("docker ", env!("CARGO_PKG_VERSION")).to_owned(),
            has_heartbeat: true,
        })
    }

    fn used_by(&self, _: &Owner, _: Duration) {
        self.leased.store(true, Ordering::Relaxed);
    }

    fn lease(&self) -> Option<&dyn GroupLease> {
        Some(self)
    }

    /// Looks at the engine, at the containers there, and whose they are.
    async fn diagnose(&self) -> Vec<Finding> {
        let containers = match Containers::new(&self.config) {
            Ok(containers) => containers,
            Err(error) => return vec![self.no_engine(&error)],
        };
        let version = match containers.version().await {
            Ok(version) => version,
            Err(error) => return vec![self.no_engine(&error)],
        };
        let host = &self.config.host;
        let mut findings =
            vec![Finding::good("docker/engine", format!("the engine at {host} answers, version {version}"))];
        findings.push(match containers.has_image().await {
            Ok(true) => Finding::good("docker/image", format!("the engine has `{}`", self.config.image)),
            Ok(false) => Finding::new(
                Severity::Notice,
                "docker/image",
                format!("the engine at {host} does not have the image `{}`", self.config.image),
            )
            .leads_to("the first instance waits until it is pulled, without a login")
            .repair(format!("docker -H {host} pull {}", self.config.image)),
            Err(error) => Finding::new(Severity::Warning, "docker/image", error.to_string())
                .leads_to("instances may not start"),
        });
        match containers.marks().read().await {
            Ok(read) => self.mark().listed(read),
            Err(error) => findings.push(
                Finding::new(Severity::Warning, "docker/lease", error.to_string())
                    .leads_to("another manager cannot see that the group is in use"),
            ),
        }
        findings
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let containers = &self.prepared()?.containers;
        self.read_mark().await?;
        let listed = containers.list().await?;
        let mut removals = Vec::new();
        let mut seen = Vec::with_capacity(listed.len());
        {
            let mut changes = self.shared.changes();
            for Listed { id, state, status } in listed {
                let creating = changes.creating.contains(&id);
                let deleting = changes.deleting.contains(&id);
                let state = match state {
                    State::EXITED | State::DEAD | State::REMOVING | State::STOPPING if !deleting => {
                        tracing::warn!(instance = %id, status, "the container of the instance has ended");
                        changes.remember(id.clone(), format!("its container ended: {status}"));
                        removals.push(id.clone());
                        InstanceState::Deleting
                    }
                    // What nobody starts any more: the manager that made it died in between.
                    State::CREATED if !creating && !deleting => {
                        removals.push(id.clone());
                        InstanceState::Deleting
                    }
                    _ if deleting => InstanceState::Deleting,
                    State::CREATED | State::EMPTY => InstanceState::Creating,
                    State::RUNNING
                    | State::PAUSED
                    | State::RESTARTING
                    | State::EXITED
                    | State::REMOVING
                    | State::DEAD
                    | State::STOPPING => InstanceState::Running,
                };
                seen.push(Seen::new(id.as_str(), state));
            }
            for id in &changes.creating {
                if !seen.iter().any(|line| line.id == *id) {
                    seen.push(Seen::new(id.as_str(), InstanceState::Creating));
                }
            }
            for id in &removals {
                changes.deleting.insert(id.clone());
            }
        }
        for id in removals {
            tokio::spawn(remove(Arc::clone(&self.shared), Arc::clone(containers), id));
        }
        Ok(seen)
    }

    fn max_size(&self) -> Option<u32> {
        Some(self.config.max_size)
    }

    async fn increase(&self, n: u32) -> Changed<u32> {
        if n == 0 {
            return Changed::all(0);
        }
        let prepared = match self.prepared() {
            Ok(prepared) => prepared,
            Err(error) => return Changed::partly(0, error),
        };
        let listed = match self.list_to_change().await {
            Ok(listed) => listed,
            Err(error) => return Changed::partly(0, error),
        };
        let mut making = Vec::new();
        let granted = {
            let mut changes = self.shared.changes();
            let present: BTreeSet<_> = listed
                .into_iter()
                .map(|container| container.id)
                .chain(changes.creating.iter().cloned())
                .collect();
            let room = u64::from(self.config.max_size).saturating_sub(present.len() as u64);
            let granted = u32::try_from(room).unwrap_or(u32::MAX).min(n);
            for _ in 0..granted {
                changes.made += 1;
                let id = InstanceId::from(format!("{}-{}-{}", self.config.name, self.nonce, changes.made));
                changes.creating.insert(id.clone());
                // A task of its own, so that a dropped call leaves nothing half made.
                making.push(tokio::spawn(make(
                    Arc::clone(&self.shared),
                    Arc::clone(&prepared.containers),
                    id,
                )));
            }
            granted
        };
        let mut done = 0;
        let mut error = None;
        for made in join_all(making).await {
            match made {
                Ok(Ok(())) => done += 1,
                Ok(Err(why)) => error = Some(why),
                Err(panic) => error = Some(GroupError::transient("creating an instance", &panic)),
            }
        }
        let full = || GroupError::LimitReached {
            message: format!("plugin_config.max_size is {}", self.config.max_size),
        };
        match error.or_else(|| (granted < n).then(full)) {
            None => Changed::all(done),
            Some(error) => Changed::partly(done, error),
        }
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        if ids.is_empty() {
            return Changed::all(Vec::new());
        }
        let prepared = match self.prepared() {
            Ok(prepared) => prepared,
            Err(error) => return Changed::partly(Vec::new(), error),
        };
        let listed: BTreeSet<InstanceId> = match self.list_to_change().await {
            Ok(listed) => listed.into_iter().map(|container| container.id).collect(),
            Err(error) => return Changed::partly(Vec::new(), error),
        };
        let (mut accepted, mut foreign) = (Vec::new(), Vec::new());
        for id in ids {
            if listed.contains(id) || self.shared.changes().creating.contains(id) {
                if self.shared.changes().deleting.insert(id.clone()) {
                    tokio::spawn(remove(
                        Arc::clone(&self.shared),
                        Arc::clone(&prepared.containers),
                        id.clone(),
                    ));
                }
                accepted.push(id.clone());
            } else if self.is_name_of_ours(id) {
                accepted.push(id.clone());
            } else {
                foreign.push(format!("`{id}`"));
            }
        }
        if foreign.is_empty() {
            return Changed::all(accepted);
        }
        Changed::partly(accepted, GroupError::NotFound { what: format!("instance {}", foreign.join(", ")) })
    }

    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        let prepared = self.prepared()?;
        if self.shared.changes().deleting.contains(id) {
            return Err(GroupError::NotFound { what: format!("instance `{id}`") });
        }
        let address = prepared.containers.address(id).await?;
        let mut settings = prepared.settings.clone();
        let user = settings.username.get_or_insert_with(|| DEFAULT_USER.to_owned()).clone();
        if let Some(login) = &prepared.login {
            let path = self.config.authorized_keys.clone().unwrap_or_else(|| match user.as_str() {
                "root" => "/root/.ssh/authorized_keys".to_owned(),
                user => format!("/home/{user}/.ssh/authorized_keys"),
            });
            prepared.containers.admit(id, login, &path).await?;
            settings.key_pem = Some(login.key_pem.clone());
            settings.password = None;
        }
        if settings.host_key.is_none() {
            settings.host_key = prepared.containers.host_key(id).await;
        }
        settings.os.get_or_insert(Os::Linux);
        settings.protocol = Some(Protocol::Ssh);
        // The port is part of the address; a configured one is that of another way in.
        settings.protocol_port = None;
        let mut info = ConnectInfo::new(id.as_str(), settings);
        info.internal_addr = Some(address.clone());
        info.external_addr = Some(address);
        Ok(info)
    }

    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        let prepared = self.prepared().map_err(|error| HeartbeatError::Unknown(error.to_string()))?;
        match prepared.containers.address(id).await {
            Ok(_) => Ok(()),
            Err(GroupError::NotFound { what }) => Err(HeartbeatError::Unhealthy(format!("{what} not found"))),
            Err(error) => Err(HeartbeatError::Unknown(error.to_string())),
        }
    }

    async fn fate(&self, id: &InstanceId) -> Option<String> {
        self.shared.changes().fates.iter().find(|(known, _)| known == id).map(|(_, fate)| fate.clone())
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        Ok(())
    }
}

// === impl Shared ===

impl Shared {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Changes ===

impl Changes {
    fn remember(&mut self, id: InstanceId, fate: String) {
        if self.fates.len() == FATES {
            self.fates.pop_front();
        }
        self.fates.push_back((id, fate));
    }
}

async fn make(shared: Arc<Shared>, containers: Arc<Containers>, id: InstanceId) -> Result<(), GroupError> {
    let made = containers.make(&id).await;
    if let Err(error) = &made {
        tracing::warn!(instance = %id, %error, "cannot create an instance");
    }
    let unwanted = {
        let mut changes = shared.changes();
        changes.creating.remove(&id);
        changes.deleting.contains(&id)
    };
    if unwanted && made.is_ok() {
        // It was deleted while it was made; that removal may have come too early.
        remove(Arc::clone(&shared), containers, id).await;
    }
    shared.changed.notify_one();
    made
}

async fn remove(shared: Arc<Shared>, containers: Arc<Containers>, id: InstanceId) {
    if let Err(error) = containers.remove(&id).await {
        // It is listed again, and deleted again.
        tracing::warn!(instance = %id, %error, "cannot delete an instance");
    }
    let making = shared.changes().creating.contains(&id);
    if !making {
        shared.changes().deleting.remove(&id);
    }
    shared.changed.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_and_other_runs_are_recognised() {
        let group = DockerGroup::new(Config::new("big", "ci:1"));
        group.shared.changes().made = 2;
        let ours = |name: &str| group.is_name_of_ours(&InstanceId::from(name));
        assert!(ours(&format!("big-{}-2", group.nonce)));
        assert!(!ours(&format!("big-{}-3", group.nonce)), "not given yet");
        assert!(!ours("big-zzzzzz-1") && !ours("big-1") && !ours("bigger-0a1b2c-1"));
    }
}
