//! What a group remembers between calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use aws_sdk_autoscaling::types::{AutoScalingGroup, LifecycleState};
use fleeting::{Doom, DoomKind, GroupError, InstanceId, Os, Seen};

use crate::lease::Mark;
use crate::lifecycle::{is_warm, standing};
use crate::size::Size;

/// Why an instance that was ended before gets no job.
const RETURNED: &str =
    "it was ended before, and the group's warm pool has given it back (instance reuse policy)";

/// Names of instances that are gone, kept so that ending one again is accepted.
const REMEMBERED: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) size: Size,
    pub(crate) mark: Mark,
    /// Of the last listing.
    pub(crate) max_size: Option<u32>,
    /// The last listing; `None` before the first.
    pub(crate) members: Option<BTreeMap<InstanceId, Member>>,
    /// Checks of the settings that are said to go wrong.
    pub(crate) said: BTreeSet<String>,
    /// Members whose end this process has asked for, and which the group has put into its warm pool.
    returned: BTreeSet<InstanceId>,
    /// Members whose end this process has asked for.
    pub(crate) ordered: BTreeSet<InstanceId>,
    /// Every member ever listed, oldest first.
    known: BTreeSet<InstanceId>,
    known_order: VecDeque<InstanceId>,
    pub(crate) details: BTreeMap<InstanceId, Details>,
    /// Instances that AWS has announced to take.
    pub(crate) announced: BTreeMap<InstanceId, Doom>,
    pub(crate) spot_announced: BTreeMap<InstanceId, Doom>,
    pub(crate) shortage: Shortage,
    pub(crate) events: Pace,
    pub(crate) spot: Pace,
}

/// One line of the group's listing.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) lifecycle: LifecycleState,
    pub(crate) health: String,
    pub(crate) zone: String,
}

/// What does not change in an instance's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) os: Os,
    pub(crate) arch: &'static str,
    pub(crate) private: Option<String>,
    pub(crate) public: Option<String>,
    pub(crate) zone: String,
    pub(crate) spot: bool,
}

/// When something that costs a call is due again.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Option<Instant>,
}

/// Instances that were asked for and do not come.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// Since when fewer are there than asked for.
    pub(crate) since: Option<Instant>,
    /// What AWS gives as the reason.
    pub(crate) why: Option<GroupError>,
    pub(crate) look: Pace,
}

// === impl State ===

impl State {
    /// Takes in a listing and gives it back in the scaler's terms.
    pub(crate) fn listed(&mut self, group: &AutoScalingGroup, now: Instant) -> Vec<Seen> {
        self.max_size = group.max_size().and_then(|size| u32::try_from(size).ok());
        let mut members = BTreeMap::new();
        for instance in group.instances() {
            let Some(id) = instance.instance_id() else { continue };
            let lifecycle = instance.lifecycle_state().cloned();
            members.insert(
                InstanceId::from(id),
                Member {
                    lifecycle: lifecycle.unwrap_or(LifecycleState::Pending),
                    health: instance.health_status().unwrap_or("Healthy").to_owned(),
                    zone: instance.availability_zone().unwrap_or_default().to_owned(),
                },
            );
        }
        for id in members.keys() {
            if self.known.insert(id.clone()) {
                self.known_order.push_back(id.clone());
            }
        }
        while self.known_order.len() > REMEMBERED
            && let Some(oldest) = self.known_order.pop_front()
        {
            if members.contains_key(&oldest) {
                self.known_order.push_back(oldest);
                break;
            }
            self.known.remove(&oldest);
        }
        self.ordered.retain(|id| members.contains_key(id));
        for (id, _) in members.iter().filter(|(_, member)| is_warm(&member.lifecycle)) {
            // It may come again with the same name, another address, and what its jobs left there.
            if self.ordered.remove(id) {
                self.returned.insert(id.clone());
            }
            self.details.remove(id);
        }
        self.returned.retain(|id| members.contains_key(id));
        self.details.retain(|id, _| members.contains_key(id));
        let live = members.values().filter(|member| is_live(&member.lifecycle)).count();
        if u32::try_from(live).unwrap_or(u32::MAX) >= desired(group) {
            self.shortage = Shortage::default();
        } else {
            self.shortage.since.get_or_insert(now);
        }
        let mut seen = Vec::with_capacity(members.len());
        for (id, member) in &members {
            let ordered = self.ordered.contains(id);
            let Some(standing) = standing(&member.lifecycle, &member.health, ordered) else { continue };
            let returned = || Doom::new(DoomKind::Ending, RETURNED);
            let returned = self.returned.contains(id).then(returned);
            let doomed = self.announced(id).cloned().or(returned).or(standing.doomed);
            seen.push(Seen { id: id.clone(), state: standing.state, doomed });
        }
        self.members = Some(members);
        seen
    }

    /// What AWS has announced for an instance: an interruption goes before maintenance, which is days ahead.
    pub(crate) fn announced(&self, id: &InstanceId) -> Option<&Doom> {
        self.spot_announced.get(id).or_else(|| self.announced.get(id))
    }

    /// True if the instance is or was one of the group's.
    pub(crate) fn is_known(&self, id: &InstanceId) -> bool {
        self.known.contains(id)
    }
}

// === impl Pace ===

impl Pace {
    /// True if it is due; it then becomes due again after `interval`.
    pub(crate) fn due(&mut self, now: Instant, interval: Duration) -> bool {
        let due = self.next.is_none_or(|next| now >= next);
        if due {
            self.next = Some(now + interval);
        }
        due
    }

    /// Not before this long from now.
    pub(crate) fn postpone(&mut self, now: Instant, by: Duration) {
        self.next = Some(now + by);
    }
}

/// A member that the desired capacity counts.
pub(crate) fn is_live(lifecycle: &LifecycleState) -> bool {
    let name = lifecycle.as_str();
    name == "InService" || name.starts_with("Pending")
}

pub(crate) fn desired(group: &AutoScalingGroup) -> u32 {
    number(group.desired_capacity())
}

pub(crate) fn number(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}
