//! The cloud: groups, instances, and what time does to them.

mod sizes;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::instance::{Instance, Stage};
use crate::kinds::{HookResult, Kind};
use crate::metadata::Announced;
use crate::options::{GroupOptions, Options};

/// All that exists. Pure: `step` is told the time, and says what is to be done to the real things behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) capacity: Option<u32>,
    pub(crate) next: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) options: GroupOptions,
    pub(crate) desired: u32,
    /// By key.
    pub(crate) tags: BTreeMap<String, String>,
    /// Newest last.
    pub(crate) activities: Vec<Activity>,
    /// No launch is tried before.
    retry_at: Option<DateTime<Utc>>,
    /// Since when instances are missing.
    missing_since: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Activity {
    pub(crate) at: DateTime<Utc>,
    pub(crate) description: String,
    pub(crate) cause: String,
    pub(crate) status: &'static str,
    pub(crate) message: Option<String>,
}

/// What has to happen to the real thing behind an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Start(String),
    Stop(String),
}

// === impl Group ===

impl Group {
    pub(crate) fn new(options: GroupOptions) -> Self {
        Self {
            desired: options.min,
            options,
            tags: BTreeMap::new(),
            activities: Vec::new(),
            retry_at: None,
            missing_since: None,
        }
    }

    /// Writes an activity down; one with a message has failed.
    fn note(&mut self, at: DateTime<Utc>, description: &str, cause: &str, failure: Option<&str>) {
        self.activities.push(Activity {
            at,
            description: description.to_owned(),
            cause: cause.to_owned(),
            status: if failure.is_some() { "Failed" } else { "Successful" },
            message: failure.map(str::to_owned),
        });
    }

    fn suspended(&self, process: &str) -> bool {
        self.options.suspended.iter().any(|name| name == process)
    }
}

// === impl World ===

impl World {
    pub(crate) fn members<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Instance> {
        self.instances.values().filter(move |instance| {
            instance.group.as_deref() == Some(group) && instance.stage != Stage::Terminated
        })
    }

    /// Lets everything happen that is due.
    pub(crate) fn step(&mut self, now: DateTime<Utc>, options: &Options) -> Vec<Effect> {
        let mut effects = Vec::new();
        let names: Vec<String> = self.groups.keys().cloned().collect();
        self.take_back(now, options);
        self.ripen(now, options, &mut effects);
        for name in &names {
            self.replace_unhealthy(name, now, options);
            self.shrink(name, now, options);
            self.grow(name, now, options, &mut effects);
            self.fill_pool(name, now, options);
        }
        effects
    }

    /// When something happens by itself next.
    pub(crate) fn next_due(&self) -> Option<DateTime<Utc>> {
        let ripening = self.instances.values().filter_map(|instance| instance.stage.until());
        let retries = self.groups.values().filter_map(|group| group.retry_at);
        let taken = self.instances.values().filter_map(taken_at);
        ripening.chain(retries).chain(taken).min()
    }

    /// True if the group is not as its settings say, so that a step may change something.
    pub(crate) fn is_unsettled(&self, name: &str) -> bool {
        let Some(group) = self.groups.get(name) else { return false };
        self.live_weight(name) != group.desired || self.pool_lacks(name) > 0
    }

    /// What the instances count for in the desired capacity.
    fn live_weight(&self, name: &str) -> u32 {
        self.members(name).filter(|instance| instance.stage.is_live()).map(|i| i.kind.weight).sum()
    }

    /// Instances that the warm pool should have and has not.
    fn pool_lacks(&self, name: &str) -> u32 {
        let pool = self.groups.get(name).and_then(|group| group.options.warm_pool.as_ref());
        let warm = self.members(name).filter(|instance| instance.stage.is_warm()).count();
        pool.map_or(0, |pool| pool.size.saturating_sub(u32::try_from(warm).unwrap_or(u32::MAX)))
    }

    /// Instances for which the cloud has room.
    fn room(&self) -> usize {
        let in_use = self.instances.values().filter(|instance| instance.stage != Stage::Terminated).count();
        self.capacity.map_or(usize::MAX, |capacity| capacity as usize).saturating_sub(in_use)
    }

    /// What the next instance of a group is.
    fn next_kind(&self, name: &str) -> Kind {
        let options = self.groups.get(name).map(|group| &group.options);
        let Some(policy) = options.and_then(|options| options.mixed.as_ref()) else {
            let spot = options.is_some_and(|options| options.spot);
            return Kind { instance_type: "t3.large".to_owned(), weight: 1, spot };
        };
        let live = || self.members(name).filter(|instance| instance.stage.is_live());
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let on_demand = number(live().filter(|instance| !instance.kind.spot).count());
        policy.kind(self.next, on_demand, number(live().count()))
    }

    /// Makes an instance. `group`: whose member it is.
    pub(crate) fn launch(
        &mut self,
        group: Option<&str>,
        zone: &str,
        now: DateTime<Utc>,
        boot: Duration,
    ) -> String {
        let kind = match group {
            Some(name) => self.next_kind(name),
            None => Kind { instance_type: "t3.large".to_owned(), weight: 1, spot: false },
        };
        self.next += 1;
        let id = format!("i-{:017x}", self.next);
        let protected =
            group.and_then(|name| self.groups.get(name)).is_some_and(|group| group.options.protected);
        self.instances.insert(
            id.clone(),
            Instance {
                id: id.clone(),
                group: group.map(str::to_owned),
                zone: zone.to_owned(),
                kind,
                launched: now,
                stage: Stage::Pending(now + delta(boot)),
                health: "Healthy",
                protected,
                address: None,
                spot_mark: None,
                event: None,
                announced: Announced::default(),
                reason: None,
            },
        );
        id
    }

    /// Begins to end an instance; its group notes why.
    pub(crate) fn terminate(&mut self, id: &str, cause: &str, now: DateTime<Utc>, options: &Options) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if !instance.stage.is_live() && !instance.stage.is_warm() {
            return;
        }
        let group = instance.group.as_ref().and_then(|name| self.groups.get_mut(name));
        let hook = group.as_ref().and_then(|group| group.options.terminating_hook);
        instance.stage = match hook {
            Some(held) => Stage::TerminatingWait(now + delta(held)),
            None => Stage::Terminating(now + delta(options.terminate_delay)),
        };
        if let Some(group) = group {
            let cause = format!("At {} {cause}", now.format("%Y-%m-%dT%H:%M:%SZ"));
            group.note(now, &format!("Terminating EC2 instance: {id}"), &cause, None);
        }
    }

    /// Ends an instance that is no longer wanted. With a reuse policy it goes back to the warm pool.
    pub(crate) fn retire(&mut self, id: &str, cause: &str, now: DateTime<Utc>, options: &Options) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let group = instance.group.as_ref().and_then(|name| self.groups.get_mut(name));
        let reuses = |group: &&mut Group| group.options.warm_pool.as_ref().is_some_and(|pool| pool.reuse);
        let Some(group) = group.filter(reuses).filter(|_| instance.stage.is_live()) else {
            return self.terminate(id, cause, now, options);
        };
        instance.stage = Stage::WarmedPending(now + delta(options.terminate_delay));
        let description = format!("Returning EC2 instance to warm pool: {id}");
        group.note(now, &description, cause, None);
    }

    /// Ends the time for which a hook holds an instance. False if none does.
    pub(crate) fn complete_hook(
        &mut self,
        id: &str,
        result: HookResult,
        now: DateTime<Utc>,
        options: &Options,
    ) -> bool {
        let Some(instance) = self.instances.get_mut(id) else { return false };
        match (instance.stage, result) {
            (Stage::PendingWait(_), HookResult::Continue) => instance.stage = Stage::InService,
            (Stage::PendingWait(_), HookResult::Abandon) => self.abandon(id, now, options),
            (Stage::TerminatingWait(_), _) => {
                instance.stage = Stage::Terminating(now + delta(options.terminate_delay));
            }
            (
                Stage::WarmedPending(_)
                | Stage::Warmed
                | Stage::Pending(_)
                | Stage::InService
                | Stage::Terminating(_)
                | Stage::Terminated,
                _,
            ) => return false,
        }
        true
    }

    /// A starting instance is not wanted by its hook: it ends without being held once more.
    fn abandon(&mut self, id: &str, now: DateTime<Utc>, options: &Options) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.stage = Stage::Terminating(now + delta(options.terminate_delay));
        if let Some(group) = instance.group.as_ref().and_then(|name| self.groups.get_mut(name)) {
            let cause = "an instance was taken out of service in response to a launch lifecycle action being abandoned.";
            group.note(now, &format!("Terminating EC2 instance: {id}"), cause, None);
        }
    }

    /// Ends spot instances whose notice is over, whatever a hook says. The groups find that they are gone.
    fn take_back(&mut self, now: DateTime<Utc>, options: &Options) {
        for instance in self.instances.values_mut() {
            let Some(at) = taken_at(instance).filter(|at| *at <= now) else { continue };
            instance.stage = Stage::Terminating(at + delta(options.terminate_delay));
            if let Some(group) = instance.group.as_ref().and_then(|name| self.groups.get_mut(name)) {
                let at = at.format("%Y-%m-%dT%H:%M:%SZ");
                let cause = format!(
                    "At {at} an instance was taken out of service in response to an EC2 health check indicating it has been \
                     terminated or stopped."
                );
                group.note(now, &format!("Terminating EC2 instance: {}", instance.id), &cause, None);
            }
        }
    }

    fn ripen(&mut self, now: DateTime<Utc>, options: &Options, effects: &mut Vec<Effect>) {
        let mut abandoned = Vec::new();
        for instance in self.instances.values_mut() {
            let group = instance.group.as_ref().and_then(|name| self.groups.get(name));
            // Each stage follows the one before at its own time, however late somebody looks.
            while let Some(at) = instance.stage.until().filter(|at| *at <= now) {
                instance.stage = match instance.stage {
                    Stage::Pending(_) => match group.and_then(|group| group.options.launching_hook) {
                        Some(held) => Stage::PendingWait(at + delta(held)),
                        None => Stage::InService,
                    },
                    Stage::PendingWait(_) => {
                        match group.map_or(HookResult::Continue, |group| group.options.launching_default) {
                            HookResult::Continue => Stage::InService,
                            HookResult::Abandon => {
                                abandoned.push(instance.id.clone());
                                break;
                            }
                        }
                    }
                    Stage::WarmedPending(_) => {
                        // What served before is stopped, and has another address when it comes again.
                        if instance.address.take().is_some() {
                            effects.push(Effect::Stop(instance.id.clone()));
                        }
                        Stage::Warmed
                    }
                    Stage::TerminatingWait(_) => Stage::Terminating(at + delta(options.terminate_delay)),
                    Stage::Terminating(_) => {
                        effects.push(Effect::Stop(instance.id.clone()));
                        Stage::Terminated
                    }
                    done @ (Stage::Warmed | Stage::InService | Stage::Terminated) => done,
                };
            }
        }
        for id in abandoned {
            self.abandon(&id, now, options);
        }
    }

    /// The zone of a group's instance with this number.
    fn zone(&self, name: &str, number: usize) -> String {
        let zones = self.groups.get(name).map(|group| &group.options.zones);
        let zone = zones.and_then(|zones| zones.get(number % zones.len().max(1)));
        zone.cloned().unwrap_or_else(|| "eu-west-1a".to_owned())
    }
}

/// When a spot instance that was interrupted is taken.
fn taken_at(instance: &Instance) -> Option<DateTime<Utc>> {
    let serving = instance.stage.is_live() || matches!(instance.stage, Stage::TerminatingWait(_));
    instance.announced.taken.filter(|_| serving)
}

pub(crate) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests;
