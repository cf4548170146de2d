//! The cloud: groups, instances, and what time does to them.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

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

#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) group: Option<String>,
    pub(crate) zone: String,
    pub(crate) launched: DateTime<Utc>,
    pub(crate) stage: Stage,
    pub(crate) health: &'static str,
    pub(crate) protected: bool,
    pub(crate) address: Option<String>,
    pub(crate) spot_mark: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) reason: Option<(String, String)>,
}

/// Where in its life an instance is, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Pending(DateTime<Utc>),
    PendingWait(DateTime<Utc>),
    InService,
    TerminatingWait(DateTime<Utc>),
    Terminating(DateTime<Utc>),
    Terminated,
}

/// What has to happen to the real thing behind an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Start(String),
    Stop(String),
}

// === impl Stage ===

impl Stage {
    pub(crate) fn lifecycle(self) -> &'static str {
        match self {
            Self::Pending(_) => "Pending",
            Self::PendingWait(_) => "Pending:Wait",
            Self::InService => "InService",
            Self::TerminatingWait(_) => "Terminating:Wait",
            Self::Terminating(_) => "Terminating",
            Self::Terminated => "Terminated",
        }
    }

    /// Name and code of EC2's state.
    pub(crate) fn ec2(self) -> (&'static str, u8) {
        match self {
            Self::Pending(_) => ("pending", 0),
            Self::PendingWait(_) | Self::InService | Self::TerminatingWait(_) => ("running", 16),
            Self::Terminating(_) => ("shutting-down", 32),
            Self::Terminated => ("terminated", 48),
        }
    }

    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Pending(_) | Self::PendingWait(_) | Self::InService)
    }

    fn until(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Pending(at) | Self::PendingWait(at) | Self::TerminatingWait(at) | Self::Terminating(at) => {
                Some(at)
            }
            Self::InService | Self::Terminated => None,
        }
    }
}

// === impl Group ===

impl Group {
    pub(crate) fn new(options: GroupOptions) -> Self {
        Self { desired: options.min, options, activities: Vec::new(), retry_at: None, missing_since: None }
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
        self.ripen(now, options, &mut effects);
        for name in &names {
            self.replace_unhealthy(name, now, options);
            self.shrink(name, now, options);
            self.grow(name, now, options, &mut effects);
        }
        effects
    }

    /// When something happens by itself next.
    pub(crate) fn next_due(&self) -> Option<DateTime<Utc>> {
        let ripening = self.instances.values().filter_map(|instance| instance.stage.until());
        let retries = self.groups.values().filter_map(|group| group.retry_at);
        ripening.chain(retries).min()
    }

    /// Makes an instance. `group`: whose member it is.
    pub(crate) fn launch(
        &mut self,
        group: Option<&str>,
        zone: &str,
        now: DateTime<Utc>,
        boot: Duration,
    ) -> String {
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
                launched: now,
                stage: Stage::Pending(now + delta(boot)),
                health: "Healthy",
                protected,
                address: None,
                spot_mark: None,
                event: None,
                reason: None,
            },
        );
        id
    }

    /// Begins to end an instance; its group notes why.
    pub(crate) fn terminate(&mut self, id: &str, cause: &str, now: DateTime<Utc>, options: &Options) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if !instance.stage.is_live() {
            return;
        }
        let group = instance.group.as_ref().and_then(|name| self.groups.get_mut(name));
        let hook = group.as_ref().and_then(|group| group.options.terminating_hook);
        instance.stage = match hook {
            Some(held) => Stage::TerminatingWait(now + delta(held)),
            None => Stage::Terminating(now + delta(options.terminate_delay)),
        };
        if let Some(group) = group {
            group.activities.push(Activity {
                at: now,
                description: format!("Terminating EC2 instance: {id}"),
                cause: format!("At {} {cause}", now.format("%Y-%m-%dT%H:%M:%SZ")),
                status: "Successful",
                message: None,
            });
        }
    }

    fn ripen(&mut self, now: DateTime<Utc>, options: &Options, effects: &mut Vec<Effect>) {
        for instance in self.instances.values_mut() {
            let group = instance.group.as_ref().and_then(|name| self.groups.get(name));
            // Each stage follows the one before at its own time, however late somebody looks.
            while let Some(at) = instance.stage.until().filter(|at| *at <= now) {
                instance.stage = match instance.stage {
                    Stage::Pending(_) => match group.and_then(|group| group.options.launching_hook) {
                        Some(held) => Stage::PendingWait(at + delta(held)),
                        None => Stage::InService,
                    },
                    Stage::PendingWait(_) => Stage::InService,
                    Stage::TerminatingWait(_) => Stage::Terminating(at + delta(options.terminate_delay)),
                    Stage::Terminating(_) => {
                        effects.push(Effect::Stop(instance.id.clone()));
                        Stage::Terminated
                    }
                    done @ (Stage::InService | Stage::Terminated) => done,
                };
            }
        }
    }

    fn replace_unhealthy(&mut self, name: &str, now: DateTime<Utc>, options: &Options) {
        if self.groups.get(name).is_none_or(|group| group.suspended("ReplaceUnhealthy")) {
            return;
        }
        let sick: Vec<String> = self
            .members(name)
            .filter(|instance| instance.health == "Unhealthy" && instance.stage.is_live())
            .map(|instance| instance.id.clone())
            .collect();
        for id in sick {
            self.terminate(
                &id,
                "an instance was taken out of service in response to an EC2 health check.",
                now,
                options,
            );
        }
    }

    /// Ends what is too much, unless it is protected.
    fn shrink(&mut self, name: &str, now: DateTime<Utc>, options: &Options) {
        let Some(group) = self.groups.get(name) else { return };
        if group.suspended("Terminate") {
            return;
        }
        let (desired, live) =
            (group.desired as usize, self.members(name).filter(|i| i.stage.is_live()).count());
        let spare: Vec<String> = self
            .members(name)
            .filter(|instance| instance.stage.is_live() && !instance.protected)
            .map(|instance| instance.id.clone())
            .take(live.saturating_sub(desired))
            .collect();
        for id in spare {
            self.terminate(&id, "a user request explicitly set group desired capacity.", now, options);
        }
    }

    /// Launches what is missing.
    fn grow(&mut self, name: &str, now: DateTime<Utc>, options: &Options, effects: &mut Vec<Effect>) {
        let live = self.members(name).filter(|instance| instance.stage.is_live()).count();
        let in_use = self.instances.values().filter(|instance| instance.stage != Stage::Terminated).count();
        let capacity = self.capacity.map_or(usize::MAX, |capacity| capacity as usize);
        let mut room = capacity.saturating_sub(in_use);
        let Some(group) = self.groups.get_mut(name) else { return };
        let missing = (group.desired as usize).saturating_sub(live);
        if missing == 0 || group.suspended("Launch") {
            (group.missing_since, group.retry_at) = (None, None);
            return;
        }
        let since = *group.missing_since.get_or_insert(now);
        let first = since + delta(options.launch_delay);
        if now < group.retry_at.map_or(first, |retry| retry.max(first)) {
            group.retry_at.get_or_insert(first);
            return;
        }
        group.retry_at = None;
        for number in 0..missing {
            if room == 0 {
                let Some(group) = self.groups.get_mut(name) else { return };
                group.retry_at = Some(now + delta(options.launch_retry));
                group.activities.push(Activity {
                    at: now,
                    description: "Launching a new EC2 instance.  Status Reason: Could not launch On-Demand Instances."
                        .to_owned(),
                    cause: "an instance was started in response to a difference between desired and actual capacity"
                        .to_owned(),
                    status: "Failed",
                    message: Some(
                        "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have \
                         sufficient t3.large capacity in the Availability Zone you requested (eu-west-1a). Launching EC2 \
                         instance failed."
                            .to_owned(),
                    ),
                });
                return;
            }
            room -= 1;
            let zone = self
                .groups
                .get(name)
                .map(|group| &group.options.zones)
                .and_then(|zones| zones.get((live + number) % zones.len().max(1)).cloned())
                .unwrap_or_else(|| "eu-west-1a".to_owned());
            let id = self.launch(Some(name), &zone, now, options.boot_delay);
            if let Some(group) = self.groups.get_mut(name) {
                group.missing_since = None;
                group.activities.push(Activity {
                    at: now,
                    description: format!("Launching a new EC2 instance: {id}"),
                    cause: "an instance was started in response to a difference between desired and actual capacity"
                        .to_owned(),
                    status: "Successful",
                    message: None,
                });
            }
            effects.push(Effect::Start(id));
        }
    }
}

pub(crate) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn options() -> Options {
        let (boot_delay, terminate_delay) = (Duration::from_secs(10), Duration::from_secs(5));
        Options { boot_delay, terminate_delay, launch_retry: Duration::from_secs(30), ..Options::default() }
    }

    fn world(desired: u32) -> World {
        let mut world = World::default();
        world.groups.insert("g".to_owned(), Group { desired, ..Group::new(GroupOptions::new("g")) });
        world
    }

    fn states(world: &World) -> Vec<&'static str> {
        world.members("g").map(|instance| instance.stage.lifecycle()).collect()
    }

    #[test]
    fn what_is_missing_boots_and_what_is_ended_from_outside_is_replaced() {
        let (mut world, options) = (world(2), options());
        assert_eq!(world.step(at(0), &options).len(), 2);
        assert_eq!(states(&world), ["Pending", "Pending"]);
        world.step(at(10), &options);
        assert_eq!(states(&world), ["InService", "InService"]);
        let first = world.members("g").next().unwrap().id.clone();
        world.terminate(&first, "for a test", at(11), &options);
        assert_eq!(world.step(at(11), &options), [Effect::Start("i-00000000000000003".to_owned())]);
        assert_eq!(states(&world), ["Terminating", "InService", "Pending"]);
        assert_eq!(world.step(at(16), &options), [Effect::Stop(first)]);
        assert_eq!(states(&world), ["InService", "Pending"]);
    }

    #[test]
    fn protected_instances_survive_a_lower_size_and_others_do_not() {
        let (mut world, options) = (world(2), options());
        world.step(at(0), &options);
        world.instances.values_mut().next().unwrap().protected = false;
        world.groups.get_mut("g").unwrap().desired = 0;
        world.step(at(1), &options);
        assert_eq!(states(&world), ["Terminating", "Pending"]);
    }

    #[test]
    fn a_launch_without_room_is_an_activity_and_is_tried_again() {
        let (mut world, options) = (world(2), options());
        world.capacity = Some(1);
        world.step(at(0), &options);
        let failed =
            |world: &World| world.groups["g"].activities.iter().filter(|a| a.status == "Failed").count();
        assert_eq!((states(&world).len(), failed(&world)), (1, 1));
        world.step(at(29), &options);
        assert_eq!(failed(&world), 1);
        world.step(at(30), &options);
        assert_eq!(failed(&world), 2);
        world.capacity = None;
        world.step(at(60), &options);
        assert_eq!(states(&world).len(), 2);
    }

    #[test]
    fn the_same_steps_give_the_same_names() {
        let run = || {
            let (mut world, options) = (world(3), options());
            world.step(at(0), &options);
            world
                .members("g")
                .map(|instance| (instance.id.clone(), instance.zone.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        assert_eq!(run()[1], ("i-00000000000000002".to_owned(), "eu-west-1b".to_owned()));
    }
}
