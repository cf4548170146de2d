//! The number of instances follows what is wanted.

use chrono::{DateTime, Utc};

use super::{Effect, World, delta};
use crate::instance::Stage;
use crate::options::Options;

const DIFFERENCE: &str =
    "an instance was started in response to a difference between desired and actual capacity";
const NO_ROOM: &str = "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient \
                       t3.large capacity in the Availability Zone you requested (eu-west-1a). Launching EC2 instance failed.";

impl World {
    pub(super) fn replace_unhealthy(&mut self, name: &str, now: DateTime<Utc>, options: &Options) {
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
    pub(super) fn shrink(&mut self, name: &str, now: DateTime<Utc>, options: &Options) {
        let Some(group) = self.groups.get(name) else { return };
        if group.suspended("Terminate") {
            return;
        }
        let mut too_much = self.live_weight(name).saturating_sub(group.desired);
        let mut spare = Vec::new();
        for instance in self.members(name).filter(|i| i.stage.is_live() && !i.protected) {
            if instance.kind.weight <= too_much {
                too_much -= instance.kind.weight;
                spare.push(instance.id.clone());
            }
        }
        for id in spare {
            self.retire(&id, "a user request explicitly set group desired capacity.", now, options);
        }
    }

    /// Launches what is missing.
    pub(super) fn grow(
        &mut self,
        name: &str,
        now: DateTime<Utc>,
        options: &Options,
        effects: &mut Vec<Effect>,
    ) {
        let live = self.members(name).filter(|instance| instance.stage.is_live()).count();
        let weight = self.live_weight(name);
        let Some(group) = self.groups.get_mut(name) else { return };
        let mut missing = group.desired.saturating_sub(weight);
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
        let mut number = 0;
        while missing > 0 {
            if let Some((id, weight)) = self.warm_up(name, now, options) {
                missing = missing.saturating_sub(weight);
                effects.push(Effect::Start(id));
                continue;
            }
            if self.room() == 0 {
                let Some(group) = self.groups.get_mut(name) else { return };
                group.retry_at = Some(now + delta(options.launch_retry));
                let description =
                    "Launching a new EC2 instance.  Status Reason: Could not launch On-Demand Instances.";
                group.note(now, description, DIFFERENCE, Some(NO_ROOM));
                return;
            }
            let zone = self.zone(name, live + number);
            number += 1;
            let id = self.launch(Some(name), &zone, now, options.boot_delay);
            let weight = self.instances.get(&id).map_or(1, |instance| instance.kind.weight);
            missing = missing.saturating_sub(weight);
            if let Some(group) = self.groups.get_mut(name) {
                group.missing_since = None;
                group.note(now, &format!("Launching a new EC2 instance: {id}"), DIFFERENCE, None);
            }
            effects.push(Effect::Start(id));
        }
    }

    /// Takes an instance of the warm pool into service, and says what it counts for.
    pub(super) fn warm_up(
        &mut self,
        name: &str,
        now: DateTime<Utc>,
        options: &Options,
    ) -> Option<(String, u32)> {
        let id = self.members(name).find(|instance| instance.stage == Stage::Warmed)?.id.clone();
        let instance = self.instances.get_mut(&id)?;
        instance.stage = Stage::Pending(now + delta(options.boot_delay));
        let weight = instance.kind.weight;
        let group = self.groups.get_mut(name)?;
        group.missing_since = None;
        group.note(now, &format!("Launching a new EC2 instance from warm pool: {id}"), DIFFERENCE, None);
        Some((id, weight))
    }

    /// Launches what the warm pool lacks, as far as there is room.
    pub(super) fn fill_pool(&mut self, name: &str, now: DateTime<Utc>, options: &Options) {
        let lacking = usize::try_from(self.pool_lacks(name)).unwrap_or(usize::MAX).min(self.room());
        for number in 0..lacking {
            let zone = self.zone(name, number);
            let id = self.launch(Some(name), &zone, now, options.boot_delay);
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.stage = Stage::WarmedPending(now + delta(options.boot_delay));
            }
            if let Some(group) = self.groups.get_mut(name) {
                let description = format!("Launching a new EC2 instance into warm pool: {id}");
                group.note(now, &description, "an instance was started to fill the warm pool", None);
            }
        }
    }
}
