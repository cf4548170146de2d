//! What is asked beside the group's listing: what its instances are, what is announced for them, why others do not come, and what
//! became of those that are gone.

use std::time::{Duration, Instant};

use aws_sdk_autoscaling::types::{AutoScalingGroup, ScalingActivityStatusCode};
use fleeting::{Finding, GroupError, InstanceId, InstanceState, Seen, Severity};

use super::AwsGroup;
use crate::calls::details;
use crate::clients::Clients;
use crate::error::launch_failure;
use crate::settings::of_settings;

/// Activities that are read to find out what became of an instance, or why none comes.
const ACTIVITIES: i32 = 50;

impl AwsGroup {
    /// Says what of the group's settings will go wrong, once for as long as it stays so.
    pub(super) fn say_settings(&self, group: &AutoScalingGroup) {
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
    pub(super) async fn learn(&self, clients: &Clients, seen: &[Seen]) -> Result<(), GroupError> {
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
    pub(super) async fn foresee(&self, clients: &Clients) {
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
    pub(super) async fn explain_shortage(&self, clients: &Clients) {
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

    /// Why an instance went, as far as AWS tells.
    pub(super) async fn what_became_of(&self, id: &InstanceId) -> Option<String> {
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
