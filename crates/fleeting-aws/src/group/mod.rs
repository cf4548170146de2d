//! An Auto Scaling group as an instance group.

mod learn;
mod resize;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_autoscaling::types::AutoScalingGroup;
use fleeting::lease::GroupLease;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, Finding, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Os, Seen, Watch,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::calls::details;
use crate::clients::Clients;
use crate::config::AwsConfig;
use crate::connect::{Pusher, addressed, windows_password};
use crate::diagnose;
use crate::keys::Login;
use crate::lifecycle::standing;
use crate::settings::unusable;
use crate::state::{Details, State, desired, number};

/// How often things are asked for that are not part of the group's listing. Each interval bounds the calls of an idle
/// manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Scheduled events (`DescribeInstanceStatus`), while there are instances; default 60 s.
    pub events: Duration,
    /// Interruption notices (`DescribeSpotInstanceRequests`), while there are spot instances; default 15 s.
    pub spot: Duration,
    /// Scaling activities (`DescribeScalingActivities`), while fewer instances are there than asked for; default 20 s.
    pub activities: Duration,
}

/// Instances of one Auto Scaling group.
pub struct AwsGroup {
    config: AwsConfig,
    intervals: Intervals,
    settings: OnceLock<ConnectorSettings>,
    clients: OnceCell<Arc<Clients>>,
    pusher: OnceLock<Arc<Pusher>>,
    state: Mutex<State>,
}

// === impl Intervals ===

impl Default for Intervals {
    fn default() -> Self {
        Self {
            events: Duration::from_secs(60),
            spot: Duration::from_secs(15),
            activities: Duration::from_secs(20),
        }
    }
}

// === impl AwsGroup ===

impl AwsGroup {
    /// The group of this configuration. Nothing is called before it is used.
    #[must_use]
    pub fn new(config: AwsConfig) -> Self {
        Self {
            config,
            intervals: Intervals::default(),
            settings: OnceLock::new(),
            clients: OnceCell::new(),
            pusher: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// A group from its `plugin_config` table.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for a missing name, wrong values and unknown keys.
    pub fn from_plugin_config(table: &Value) -> Result<Self, GroupError> {
        Ok(Self::new(AwsConfig::from_plugin_config(table)?))
    }

    /// Asks for other things more or less often.
    #[must_use]
    pub fn with_intervals(self, intervals: Intervals) -> Self {
        Self { intervals, ..self }
    }

    pub(crate) async fn clients(&self) -> Result<&Arc<Clients>, GroupError> {
        self.clients.get_or_try_init(|| async { Clients::connect(&self.config).await.map(Arc::new) }).await
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // No code can panic while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) fn config(&self) -> &AwsConfig {
        &self.config
    }

    /// The group's region, once it is known.
    pub(crate) fn region(&self) -> Option<&str> {
        let found = self.clients.get().map(|clients| clients.region.as_str());
        found.or(self.config.region.as_deref())
    }

    /// Reads the group and takes the answer in.
    async fn look(&self) -> Result<(AutoScalingGroup, Vec<Seen>, u32), GroupError> {
        let group = self.clients().await?.group(self.name()).await?;
        let now = Instant::now();
        let mut state = self.state();
        state.mark.listed(&group);
        let reading = state.size.read(desired(&group), now);
        if let Some(expected) = reading.drifted_from {
            tracing::warn!(
                group = self.name(),
                expected,
                actual = reading.base,
                "out-of-sync capacity: the desired capacity was changed from outside; going on from there"
            );
        }
        let seen = state.listed(&group, now);
        Ok((group, seen, reading.base))
    }

    /// A member's details: those of the last listing, or asked for now.
    async fn details_of(&self, clients: &Clients, id: &InstanceId) -> Result<Details, GroupError> {
        let not_found =
            || GroupError::NotFound { what: format!("instance `{id}` in group `{}`", self.name()) };
        let listed = |state: &State| {
            let members = state.members.as_ref()?;
            let member = members.get(id)?;
            standing(&member.lifecycle, &member.health, state.ordered.contains(id))
                .filter(|standing| standing.state != InstanceState::Deleting)
        };
        if listed(&self.state()).is_none() {
            self.look().await?;
            if listed(&self.state()).is_none() {
                return Err(not_found());
            }
        }
        if let Some(known) = self.state().details.get(id) {
            return Ok(known.clone());
        }
        let found = clients.instances(std::slice::from_ref(id)).await?;
        let known = found.first().map(details).ok_or_else(not_found)?;
        self.state().details.insert(id.clone(), known.clone());
        Ok(known)
    }
}

impl fmt::Debug for AwsGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsGroup").field("config", &self.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceGroup for AwsGroup {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        let clients = self.clients().await?;
        let group = clients.group(self.name()).await?;
        // A second initialisation has the same result.
        let _ = self.settings.set(settings.clone());
        if !settings.use_static_credentials && self.pusher.get().is_none() {
            let login = match &settings.key_pem {
                Some(key) => Login::configured(key)?,
                None => Login::fresh()?,
            };
            let _ = self.pusher.set(Arc::new(Pusher::new(clients.clone(), Arc::new(login))));
        }
        if let Some(error) = unusable(&group) {
            return Err(error);
        }
        self.say_settings(&group);
        let max_size = number(group.max_size());
        self.state().max_size = Some(max_size);
        Ok(GroupInfo {
            id: format!("aws/{}/{}", clients.region, self.name()),
            max_size,
            provider: concat!("aws ", env!("CARGO_PKG_VERSION")).to_owned(),
            has_heartbeat: true,
        })
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let clients = self.clients().await?;
        let (group, mut seen, _) = self.look().await?;
        self.say_settings(&group);
        if let Err(error) = self.learn(clients, &seen).await {
            tracing::debug!(group = self.name(), %error, "details of new instances are asked for again later");
        }
        self.foresee(clients).await;
        self.explain_shortage(clients).await;
        let state = self.state();
        for line in &mut seen {
            if let Some(doom) = state.announced(&line.id) {
                line.doomed = Some(doom.clone());
            }
        }
        Ok(seen)
    }

    fn max_size(&self) -> Option<u32> {
        self.state().max_size
    }

    async fn increase(&self, n: u32) -> Changed<u32> {
        if n == 0 { Changed::all(0) } else { self.grow(n).await }
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        if ids.is_empty() { Changed::all(Vec::new()) } else { self.shrink(ids).await }
    }

    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        let clients = self.clients().await?;
        let details = self.details_of(clients, id).await?;
        let fixed = self.settings.get().cloned().unwrap_or_default();
        let mut info = addressed(id, &fixed, &details);
        if fixed.use_static_credentials {
            return Ok(info);
        }
        if info.settings.os == Some(Os::Windows) {
            if info.settings.password.is_none() {
                info.settings.password = windows_password(clients, &info, id).await?;
            }
            return Ok(info);
        }
        if let Some(pusher) = self.pusher.get() {
            // A password may be meant for `sudo` alone, so the key comes first, as with GitLab Runner.
            let another_way = fixed.key_pem.is_some() || fixed.password.is_some();
            pusher.equip(&mut info, &details.zone, another_way);
        }
        Ok(info)
    }

    /// By the group's last listing, so that it costs no call: EC2's status checks are part of the health that the group
    /// tells.
    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        let state = self.state();
        let Some(members) = &state.members else {
            return Err(HeartbeatError::Unknown("the group was not listed yet".to_owned()));
        };
        let Some(member) = members.get(id) else {
            return Err(HeartbeatError::Unhealthy(format!("it is not a member of group `{}`", self.name())));
        };
        if !member.health.eq_ignore_ascii_case("healthy") {
            return Err(HeartbeatError::Unhealthy(format!("the group says {}", member.health)));
        }
        match member.lifecycle.as_str() {
            // A member that is ending still serves its job; that no other goes there is told by the listing.
            "InService" | "Terminating:Wait" | "EnteringStandby" | "Detaching" => Ok(()),
            state => {
                Err(HeartbeatError::Unhealthy(format!("its lifecycle state is {state} ({})", member.zone)))
            }
        }
    }

    /// Spot instances are asked themselves: nobody hears of an interruption earlier. What is announced for others comes days ahead,
    /// with the listing.
    fn watch(&self, id: &InstanceId) -> Option<Box<dyn Watch>> {
        let spot = self.state().details.get(id).is_some_and(|details| details.spot);
        let watch = self.config.metadata.watch(id).filter(|_| spot)?;
        Some(Box::new(watch))
    }

    async fn fate(&self, id: &InstanceId) -> Option<String> {
        self.what_became_of(id).await
    }

    async fn diagnose(&self) -> Vec<Finding> {
        let clients = match self.clients().await {
            Ok(clients) => clients,
            Err(error) => return vec![diagnose::no_clients(&error, &self.config)],
        };
        // Also shows whose the group is.
        if let Err(error) = self.look().await {
            tracing::debug!(group = self.name(), %error, "the group cannot be listed");
        }
        let drifts = self.state().size.drifts;
        diagnose::all(clients, &self.config, drifts).await
    }

    fn lease(&self) -> Option<&dyn GroupLease> {
        Some(self)
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        Ok(())
    }
}
