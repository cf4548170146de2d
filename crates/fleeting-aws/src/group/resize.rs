//! More instances, and the end of some: how the desired capacity is changed.

use std::time::Instant;

use fleeting::{Changed, GroupError, InstanceId};
use futures_util::StreamExt as _;

use super::AwsGroup;
use crate::clients::Clients;
use crate::error::classify;
use crate::lifecycle::is_warm;
use crate::settings::unusable;
use crate::state::number;

/// Terminations under way at once. AWS has no call for several.
const PARALLEL: usize = 8;

impl AwsGroup {
    /// Raises the desired capacity by as much of `n` as the group's maximum allows.
    pub(super) async fn grow(&self, n: u32) -> Changed<u32> {
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

    /// Ends those of `ids` that are members, each with its share of the desired capacity.
    pub(super) async fn shrink(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
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
}
