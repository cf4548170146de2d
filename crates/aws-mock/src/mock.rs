//! The stand-in as a whole: started, steered and looked at.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fault::{ActiveFault, ErrorAnswer, Fault, Service};
use crate::identity::Identities;
use crate::kinds::HookResult;
use crate::metadata::{self, Metadata, MetadataFault};
use crate::options::{GroupOptions, Options};
use crate::server;
use crate::world::{Effect, Group, World, delta};

/// How often time is looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(10);

/// From the announcement to the end of a spot instance.
pub(crate) const SPOT_NOTICE: Duration = Duration::from_secs(120);

/// A running stand-in for AWS. It ends when it is dropped.
#[derive(Debug)]
pub struct AwsMock {
    url: String,
    metadata_url: String,
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

/// One instance, as its cloud sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Its name.
    pub id: String,
    /// The group whose member it is.
    pub group: Option<String>,
    /// Availability zone.
    pub zone: String,
    /// Lifecycle state in the terms of Auto Scaling.
    pub lifecycle: &'static str,
    /// For example `t3.large`.
    pub instance_type: String,
    /// It is a spot instance.
    pub spot: bool,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) metadata: Metadata,
    pub(crate) identities: Identities,
    state: Mutex<Shared>,
    /// Held while time passes, so that an instance has its address before anybody sees it run.
    advancing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Shared {
    world: World,
    /// How far the clock was put forward.
    offset: TimeDelta,
    faults: Vec<ActiveFault>,
    calls: BTreeMap<String, u64>,
    /// What was, for listings that lag behind.
    history: VecDeque<(DateTime<Utc>, World)>,
}

// === impl AwsMock ===

impl AwsMock {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// No port could be had.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Arc::new(Inner {
            state: Mutex::new(Shared {
                world: World { capacity: options.capacity, ..World::default() },
                ..Shared::default()
            }),
            options,
            metadata: Metadata::default(),
            identities: Identities::default(),
            advancing: tokio::sync::Mutex::default(),
        });
        let serving = tokio::spawn(server::serve(listener, inner.clone()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let metadata_url = format!("http://{}/{{instance}}", listener.local_addr()?);
        let informing = tokio::spawn(metadata::serve(listener, inner.clone()));
        let ticking = tokio::spawn({
            let inner = inner.clone();
            async move {
                let mut ticks = tokio::time::interval(TICK);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    if inner.is_due() {
                        inner.advance().await;
                    }
                }
            }
        });
        Ok(Self { url, metadata_url, inner, tasks: vec![serving, informing, ticking] })
    }

    /// Where it listens; the `endpoint` of `plugin_config`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes a group.
    pub fn add_group(&self, options: GroupOptions) {
        self.inner.change(|world, _| {
            world.groups.insert(options.name.clone(), Group::new(options));
        });
    }

    /// Changes the settings of a group.
    pub fn change_group(&self, name: &str, change: impl FnOnce(&mut GroupOptions)) {
        self.inner.change(|world, _| {
            if let Some(group) = world.groups.get_mut(name) {
                change(&mut group.options);
            }
        });
    }

    /// Makes the calls that are signed with this access key those of an identity, as `GetCallerIdentity` tells. The others are
    /// those of the user `runner`.
    pub fn name_key(&self, access_key: &str, arn: &str) {
        self.inner.identities.name(access_key, arn);
    }

    /// Sets the desired capacity, as an operator would.
    pub fn set_desired(&self, group: &str, desired: u32) {
        self.inner.change(|world, _| {
            if let Some(group) = world.groups.get_mut(group) {
                group.desired = desired;
            }
        });
    }

    /// The desired capacity of a group.
    #[must_use]
    pub fn desired(&self, group: &str) -> u32 {
        self.inner.look(|world| world.groups.get(group).map_or(0, |group| group.desired))
    }

    /// The value of a tag of a group.
    #[must_use]
    pub fn tag(&self, group: &str, key: &str) -> Option<String> {
        self.inner.look(|world| world.groups.get(group)?.tags.get(key).cloned())
    }

    /// Writes a tag of a group, or removes it.
    pub fn set_tag(&self, group: &str, key: &str, value: Option<&str>) {
        self.inner.change(|world, _| {
            let Some(group) = world.groups.get_mut(group) else { return };
            match value {
                Some(value) => group.tags.insert(key.to_owned(), value.to_owned()),
                None => group.tags.remove(key),
            };
        });
    }

    /// Members of a group that are not gone.
    #[must_use]
    pub fn members(&self, group: &str) -> Vec<InstanceView> {
        self.instances().into_iter().filter(|instance| instance.group.as_deref() == Some(group)).collect()
    }

    /// Every instance that is not gone.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceView> {
        self.inner.look(|world| {
            let all = world.instances.values().map(|instance| InstanceView {
                id: instance.id.clone(),
                group: instance.group.clone(),
                zone: instance.zone.clone(),
                lifecycle: instance.stage.lifecycle(),
                instance_type: instance.kind.instance_type.clone(),
                spot: instance.kind.spot,
            });
            all.filter(|instance| instance.lifecycle != "Terminated").collect()
        })
    }

    /// How many instances there ever were.
    #[must_use]
    pub fn launched(&self) -> usize {
        self.inner.look(|world| world.instances.len())
    }

    /// Makes an instance of no group, and says its name.
    pub fn launch_foreign(&self) -> String {
        let boot = self.inner.options.boot_delay;
        self.inner.change(|world, now| world.launch(None, "eu-west-1a", now, boot))
    }

    /// Ends an instance as the Auto Scaling service or an operator would; the desired capacity stays, so that a member
    /// is replaced. `cause` is what the group's activity says.
    pub fn terminate(&self, instance: &str, cause: &str) {
        self.inner.change_with(|world, now, options| world.terminate(instance, cause, now, options));
    }

    /// Ends an instance because the group is spread unevenly over its zones.
    pub fn rebalance(&self, instance: &str) {
        self.terminate(
            instance,
            "instances were launched to balance instances in zones eu-west-1b with other zones resulting in more than \
             desired number of instances in the group. an instance was taken out of service in response to an AZRebalance.",
        );
    }

    /// Completes the hook that holds an instance, as an operator's automation would. False if none does.
    pub fn complete_hook(&self, instance: &str, result: HookResult) -> bool {
        self.inner.change_with(|world, now, options| world.complete_hook(instance, result, now, options))
    }

    /// Where the metadata service of an instance is, with `{instance}` in place of its name; the `metadata_endpoint` of
    /// `plugin_config`.
    #[must_use]
    pub fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    /// Breaks the metadata services of all instances, or repairs them with `None`.
    pub fn break_metadata(&self, fault: impl Into<Option<MetadataFault>>) {
        self.inner.metadata.set_fault(fault.into());
    }

    /// How often the metadata service of an instance was asked anything.
    #[must_use]
    pub fn metadata_requests(&self, instance: &str) -> u64 {
        self.inner.metadata.asked(instance)
    }

    /// Announces that a spot instance will be taken, with the two minutes that AWS gives.
    pub fn interrupt(&self, instance: &str) {
        self.interrupt_in(instance, SPOT_NOTICE);
    }

    /// Announces that a spot instance will be taken after this time, in its metadata and in its spot request; and takes it then.
    pub fn interrupt_in(&self, instance: &str, notice: Duration) {
        self.inner.change(|world, now| {
            if let Some(instance) = world.instances.get_mut(instance) {
                instance.announced.taken = Some(now + delta(notice));
                instance.spot_mark = Some("marked-for-termination".to_owned());
                instance.reason = Some((
                    "Server.SpotInstanceTermination".to_owned(),
                    "Server.SpotInstanceTermination: Spot instance termination".to_owned(),
                ));
            }
        });
    }

    /// Time until a spot instance that was interrupted is taken; none for others. Zero once it is.
    #[must_use]
    pub fn left(&self, instance: &str) -> Option<Duration> {
        let taken = self.inner.look(|world| world.instances.get(instance)?.announced.taken)?;
        Some((taken - self.inner.now()).to_std().unwrap_or_default())
    }

    /// Advises to leave a spot instance, in its metadata.
    pub fn recommend_rebalance(&self, instance: &str) {
        self.inner.change(|world, now| {
            if let Some(instance) = world.instances.get_mut(instance) {
                instance.announced.advised = Some(now);
            }
        });
    }

    /// Schedules maintenance in ten days, for example `instance-retirement`.
    pub fn schedule_event(&self, instance: &str, code: &str) {
        self.schedule_event_in(instance, code, Duration::from_secs(864_000));
    }

    /// Schedules maintenance after this time, for example `instance-stop`. Nothing happens then.
    pub fn schedule_event_in(&self, instance: &str, code: &str, notice: Duration) {
        self.inner.change(|world, now| {
            if let Some(instance) = world.instances.get_mut(instance) {
                instance.announced.event_at = Some(now + delta(notice));
                instance.event = Some(code.to_owned());
            }
        });
    }

    /// Calls scheduled maintenance off.
    pub fn cancel_event(&self, instance: &str) {
        self.inner.change(|world, _| {
            if let Some(instance) = world.instances.get_mut(instance) {
                (instance.announced.event_at, instance.event) = (None, None);
            }
        });
    }

    /// Makes the group hold a member for unhealthy.
    pub fn make_unhealthy(&self, instance: &str) {
        self.inner.change(|world, _| {
            if let Some(instance) = world.instances.get_mut(instance) {
                instance.health = "Unhealthy";
            }
        });
    }

    /// Changes for how many instances there is room.
    pub fn set_capacity(&self, capacity: Option<u32>) {
        self.inner.change(|world, _| world.capacity = capacity);
    }

    /// Breaks the next `times` calls of an action, such as `SetDesiredCapacity`; all with `None`.
    pub fn fail(&self, action: &str, fault: Fault, times: Option<u32>) {
        let fault = ActiveFault { action: action.to_owned(), fault, left: times };
        self.inner.shared().faults.push(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.inner.shared().faults.clear();
    }

    /// Puts the clock forward.
    pub async fn advance(&self, by: Duration) {
        self.inner.shared().offset += delta(by);
        self.inner.advance().await;
    }

    /// Calls since the start, by action. Refused ones count too.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.inner.shared().calls.clone()
    }

    /// Calls of one action since the start.
    #[must_use]
    pub fn calls_of(&self, action: &str) -> u64 {
        self.inner.shared().calls.get(action).copied().unwrap_or(0)
    }
}

impl Drop for AwsMock {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

// === impl Inner ===

impl Inner {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.shared().offset
    }

    fn is_due(&self) -> bool {
        let now = self.now();
        let shared = self.shared();
        // What was changed by hand shows when a call comes; what ripens does so by itself.
        shared.world.next_due().is_some_and(|at| at <= now)
            || shared.world.groups.keys().any(|name| shared.world.is_unsettled(name))
    }

    /// Lets everything happen that is due, and the real things behind the instances follow.
    pub(crate) async fn advance(&self) {
        let _alone = self.advancing.lock().await;
        let now = self.now();
        let effects = {
            let mut shared = self.shared();
            let effects = shared.world.step(now, &self.options);
            shared.remember(now, &self.options);
            effects
        };
        for effect in effects {
            match effect {
                Effect::Start(id) => {
                    let address = self.options.backend.start(&id).await;
                    let mut shared = self.shared();
                    let number = shared.world.instances.keys().position(|name| *name == id).unwrap_or(0);
                    if let Some(instance) = shared.world.instances.get_mut(&id) {
                        let made_up = || format!("10.0.{}.{}", number / 250, number % 250 + 1);
                        instance.address = Some(address.unwrap_or_else(made_up));
                    }
                    shared.remember(now, &self.options);
                }
                Effect::Stop(id) => self.options.backend.stop(&id).await,
            }
        }
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World, DateTime<Utc>) -> T) -> T {
        let now = self.now();
        let mut shared = self.shared();
        let out = change(&mut shared.world, now);
        shared.remember(now, &self.options);
        out
    }

    pub(crate) fn change_with<T>(&self, change: impl FnOnce(&mut World, DateTime<Utc>, &Options) -> T) -> T {
        self.change(|world, now| change(world, now, &self.options))
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared().world)
    }

    /// The world as listings show it: some time ago.
    pub(crate) fn look_back<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        let then = self.now() - delta(self.options.lag);
        let shared = self.shared();
        let past = shared.history.iter().rev().find(|(at, _)| *at <= then).or(shared.history.front());
        match past {
            Some((_, world)) if !self.options.lag.is_zero() => look(world),
            Some(_) | None => look(&shared.world),
        }
    }

    /// Counts a call, and says how it fails if it does.
    pub(crate) fn arrived(&self, service: Service, action: &str) -> Result<(), ErrorAnswer> {
        let mut shared = self.shared();
        *shared.calls.entry(action.to_owned()).or_default() += 1;
        let hit = shared
            .faults
            .iter_mut()
            .find(|fault| (fault.action == action || fault.action == "*") && fault.left != Some(0));
        let Some(hit) = hit else { return Ok(()) };
        hit.left = hit.left.map(|left| left - 1);
        Err(hit.fault.answer(service, action))
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("options", &self.options).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn remember(&mut self, now: DateTime<Utc>, options: &Options) {
        if options.lag.is_zero() {
            return;
        }
        self.history.push_back((now, self.world.clone()));
        let old = now - delta(options.lag);
        while self.history.get(1).is_some_and(|(at, _)| *at <= old) {
            self.history.pop_front();
        }
    }
}
