//! An Auto Scaling group as an instance group.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_autoscaling::types::{AutoScalingGroup, ScalingActivityStatusCode};
use fleeting::lease::GroupLease;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, Finding, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Os, Seen, Severity, Watch,
};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::calls::details;
use crate::clients::Clients;
use crate::config::AwsConfig;
use crate::connect::{Pusher, addressed, windows_password};
use crate::diagnose;
use crate::error::{classify, launch_failure};
use crate::keys::Login;
use crate::lifecycle::{is_warm, standing};
use crate::settings::{of_settings, unusable};
use crate::state::{Details, State, desired, number};

/// Terminations under way at once. AWS has no call for several.
const PARALLEL: usize = 8;

/// Activities that are read to find out what became of an instance, or why none comes.
const ACTIVITIES: i32 = 50;

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

    /// Says what of the group's settings will go wrong, once for as long as it stays so.
    fn say_settings(&self, group: &AutoScalingGroup) {
        let findings = of_settings(group).into_iter();
        let bad: Vec<Finding> = findings.filter(|finding| finding.severity >= Severity::Warning).collect();
        let said = {
            let mut state = self.state();
            let bad = bad.iter().map(|finding| finding.check.clone()).collect();
            std::mem::replace(&mut state.said, bad)
        };
        for finding in bad.iter().filter(|finding| !said.contains(&finding.check)) {
            tracing::warn!(
                group = self.name(),
                check = finding.check,
                leads_to = finding.leads_to,
                repair = finding.repair,
                "{}",
                finding.what
            );
        }
    }

    /// Learns addresses and systems of members that run, all in one call.
    async fn learn(&self, clients: &Clients, seen: &[Seen]) -> Result<(), GroupError> {
        let unknown: Vec<InstanceId> = {
            let state = self.state();
            let running = seen.iter().filter(|seen| seen.state == InstanceState::Running);
            running.filter(|seen| !state.details.contains_key(&seen.id)).map(|seen| seen.id.clone()).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let found = clients.instances(&unknown).await?;
        let mut state = self.state();
        for instance in &found {
            let known = details(instance);
            // An address may come later than the state.
            if let Some(id) =
                instance.instance_id().filter(|_| known.private.is_some() || known.public.is_some())
            {
                state.details.insert(InstanceId::from(id), known);
            }
        }
        Ok(())
    }

    /// Asks what AWS has announced to take away.
    async fn foresee(&self, clients: &Clients) {
        let (events, spot) = {
            let mut state = self.state();
            let now = Instant::now();
            let some = state.members.as_ref().is_some_and(|members| !members.is_empty());
            let any_spot = state.details.values().any(|details| details.spot);
            let events = some && state.events.due(now, self.intervals.events);
            (events, any_spot && state.spot.due(now, self.intervals.spot))
        };
        if events {
            match clients.scheduled_events().await {
                Ok(found) => self.state().announced = found,
                Err(error) => self.state().events.postpone(Instant::now(), blind("scheduled events", &error)),
            }
        }
        if spot {
            match clients.spot_notices().await {
                Ok(found) => self.state().spot_announced = found,
                Err(error) => self.state().spot.postpone(Instant::now(), blind("spot interruptions", &error)),
            }
        }
    }

    /// Finds out why instances do not come.
    async fn explain_shortage(&self, clients: &Clients) {
        let due = {
            let mut state = self.state();
            let now = Instant::now();
            // The first look is not at once: an instance takes a moment to be listed.
            let waited = state
                .shortage
                .since
                .is_some_and(|since| now.duration_since(since) >= self.intervals.activities / 4);
            waited && state.shortage.look.due(now, self.intervals.activities)
        };
        if !due {
            return;
        }
        let activities = match clients.activities(self.name(), ACTIVITIES).await {
            Ok(activities) => activities,
            Err(error) => {
                self.state().shortage.look.postpone(Instant::now(), blind("scaling activities", &error));
                return;
            }
        };
        // Newest first: a launch that succeeded after the failure makes it history.
        let last = activities.iter().find(|activity| {
            activity.description().is_some_and(|text| text.starts_with("Launching"))
                && matches!(
                    activity.status_code(),
                    Some(ScalingActivityStatusCode::Failed | ScalingActivityStatusCode::Cancelled)
                        | Some(ScalingActivityStatusCode::Successful)
                )
        });
        let why = last
            .filter(|activity| activity.status_code() != Some(&ScalingActivityStatusCode::Successful))
            .map(|activity| {
                let words = activity.status_message().unwrap_or("a launch failed without a reason");
                launch_failure("", words).unwrap_or_else(|| GroupError::Transient {
                    message: format!("the group cannot launch: {words}"),
                })
            });
        let mut state = self.state();
        if let Some(why) = why.as_ref().filter(|why| state.shortage.why.as_ref() != Some(*why)) {
            tracing::warn!(group = self.name(), error = %why, "instances that were asked for do not come");
        }
        state.shortage.why = why;
    }

    /// Raises the desired capacity by as much of `n` as the group's maximum allows.
    async fn grow(&self, n: u32) -> Changed<u32> {
        let clients = match self.clients().await {
            Ok(clients) => clients,
            Err(error) => return Changed::partly(0, error),
        };
        let (group, _, base) = match self.look().await {
            Ok(looked) => looked,
            Err(error) => return Changed::partly(0, error),
        };
        if let Some(error) = unusable(&group) {
            return Changed::partly(0, error);
        }
        if let Err(taken) = self.state().mark.check() {
            return Changed::partly(0, taken);
        }
        self.explain_shortage(clients).await;
        if let Some(why) = self.state().shortage.why.clone() {
            // The group goes on trying for what was asked for already; more would come all at once, later.
            return Changed::partly(0, why);
        }
        let max = number(group.max_size());
        let granted = n.min(max.saturating_sub(base));
        let full = || GroupError::LimitReached {
            message: format!(
                "Auto Scaling group `{0}` has max size {max} and desired capacity {base}, {n} more are wanted; raise it: \
                 aws autoscaling update-auto-scaling-group --auto-scaling-group-name {0} --max-size {1}",
                self.name(),
                base.saturating_add(n)
            ),
        };
        if granted == 0 {
            return Changed::partly(0, full());
        }
        let target = base + granted;
        self.state().size.uncertain();
        let answer = clients
            .autoscaling
            .set_desired_capacity()
            .auto_scaling_group_name(self.name())
            .desired_capacity(i32::try_from(target).unwrap_or(i32::MAX))
            .honor_cooldown(false)
            .send()
            .await;
        if let Err(error) = answer {
            return Changed::partly(0, classify("autoscaling:SetDesiredCapacity", &error));
        }
        self.state().size.wrote(target, Instant::now());
        if granted == n { Changed::all(n) } else { Changed::partly(granted, full()) }
    }

    /// Ends one member together with its share of the desired capacity.
    async fn end(&self, clients: &Clients, id: &InstanceId) -> Result<(), GroupError> {
        let answer = clients
            .autoscaling
            .terminate_instance_in_auto_scaling_group()
            .instance_id(id.as_str())
            .should_decrement_desired_capacity(true)
            .send()
            .await;
        let Err(error) = answer else {
            let mut state = self.state();
            state.ordered.insert(id.clone());
            state.size.lowered_by_one(Instant::now());
            return Ok(());
        };
        let error = classify("autoscaling:TerminateInstanceInAutoScalingGroup", &error);
        if let GroupError::LimitReached { message } = error {
            let name = self.name();
            let lower = "aws autoscaling update-auto-scaling-group --min-size 0 --auto-scaling-group-name";
            return Err(GroupError::LimitReached {
                message: format!("{message} (lower it: {lower} {name})"),
            });
        }
        // It went by itself in between.
        if matches!(error, GroupError::NotFound { .. }) { Ok(()) } else { Err(error) }
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
        if ids.is_empty() {
            return Changed::all(Vec::new());
        }
        let clients = match self.clients().await {
            Ok(clients) => clients,
            Err(error) => return Changed::partly(Vec::new(), error),
        };
        // The call that ends an instance names no group: it would end a member of any other one just as well.
        if let Err(error) = self.look().await {
            return Changed::partly(Vec::new(), error);
        }
        if let Err(taken) = self.state().mark.check() {
            return Changed::partly(Vec::new(), taken);
        }
        let mut foreign = Vec::new();
        let mut to_end = Vec::new();
        let mut accepted = vec![false; ids.len()];
        {
            let state = self.state();
            for (index, id) in ids.iter().enumerate() {
                let member = state.members.as_ref().and_then(|members| members.get(id));
                match member {
                    Some(member) => {
                        let lifecycle = member.lifecycle.as_str();
                        // One that went to the warm pool is out of the group's capacity, and not the scaler's to end.
                        let out = lifecycle.starts_with("Terminat") || is_warm(&member.lifecycle);
                        if out || state.ordered.contains(id) {
                            accepted[index] = true;
                        } else {
                            to_end.push((index, id.clone()));
                        }
                    }
                    None if state.is_known(id) => accepted[index] = true,
                    None => foreign.push(format!("`{id}`")),
                }
            }
        }
        for (index, id) in ids.iter().enumerate() {
            if accepted[index] {
                self.state().ordered.insert(id.clone());
            }
        }
        let mut error = None;
        let mut ending = futures_util::stream::iter(to_end)
            .map(|(index, id)| async move { (index, self.end(clients, &id).await) })
            .buffer_unordered(PARALLEL);
        while let Some((index, outcome)) = ending.next().await {
            match outcome {
                Ok(()) => accepted[index] = true,
                Err(throttled @ GroupError::Throttled { .. }) => {
                    // The rest would only be throttled as well.
                    error = Some(throttled);
                    break;
                }
                Err(other) => error = Some(other),
            }
        }
        drop(ending);
        let done =
            ids.iter().zip(accepted).filter(|(_, accepted)| *accepted).map(|(id, _)| id.clone()).collect();
        if error.is_none() && !foreign.is_empty() {
            let what = format!("instance {} in group `{}`", foreign.join(", "), self.name());
            error = Some(GroupError::NotFound { what });
        }
        Changed { done, error }
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
        if info.settings.password.is_none()
            && let Some(pusher) = self.pusher.get()
        {
            pusher.equip(&mut info, &details.zone, fixed.key_pem.is_some());
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
        let clients = self.clients().await.ok()?;
        let announced = self.state().announced(id).map(|doom| doom.why.clone());
        let (activities, instances) = tokio::join!(
            clients.activities(self.name(), ACTIVITIES),
            clients.instances(std::slice::from_ref(id))
        );
        let activity = activities.ok().and_then(|activities| {
            let mut ends = activities.iter().filter(|activity| {
                activity
                    .description()
                    .is_some_and(|text| text.starts_with("Terminating") && text.contains(id.as_str()))
            });
            ends.next().and_then(|activity| activity.cause().map(|cause| cause.trim().to_owned()))
        });
        let state = instances.ok().and_then(|instances| {
            let instance = instances.first()?;
            let reason = instance.state_reason().and_then(|reason| reason.message());
            reason.or(instance.state_transition_reason()).filter(|text| !text.is_empty()).map(str::to_owned)
        });
        let mut parts: Vec<String> = Vec::new();
        for part in [announced, state, activity].into_iter().flatten() {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        (!parts.is_empty()).then(|| parts.join("; "))
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

/// Something that is only worth knowing cannot be asked for: says so once in a while, and for how long not to ask.
fn blind(what: &str, error: &GroupError) -> Duration {
    if error.needs_operator() {
        tracing::warn!(%error, "{what} are not seen");
        return Duration::from_secs(3600);
    }
    tracing::debug!(%error, "{what} are not seen for a minute");
    Duration::from_secs(60)
}
