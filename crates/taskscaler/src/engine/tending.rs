//! What is done with single instances, beside the loop: they are made ready, and their health is checked.

use std::sync::Arc;

use connect_info::ConnectInfo;
use fleeting::{HeartbeatError, with_causes};
use status::Kind as MomentKind;
use taskscaler_core::{Health, InstanceId};
use tokio::time::Instant;

use super::CALL_DEADLINE;
use crate::observe::{CallKind, CallOutcome, ProviderCall};
use crate::shared::Shared;
use crate::voice::note;
use crate::{Settings, provider};

/// Makes one instance ready and tells the core.
pub(super) async fn ready_up(shared: Arc<Shared>, settings: Settings, id: InstanceId) {
    let outcome = match shared.connect_info(&id).await {
        Ok(info) => make_ready(&settings, info).await,
        Err(error) => Err(format!("getting instance connect info: {}", with_causes(&error))),
    };
    if let Err(why) = &outcome {
        note(&shared.diary, &shared.clock, MomentKind::Error, format!("{id} did not become ready: {why}"));
        tracing::warn!(runner = %settings.runner, instance = %id, %why, "instance did not become ready");
    }
    shared.lock().core.readied(&id, outcome, shared.clock.now());
    shared.capacity_changed();
    shared.wake.notify_one();
}

async fn make_ready(settings: &Settings, info: ConnectInfo) -> Result<(), String> {
    let limit = settings.connector.timeout() + CALL_DEADLINE;
    match tokio::time::timeout(limit, settings.ready.ready_up(info)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("not ready within {}", go_duration::format(limit))),
    }
}

/// Checks the health of one instance, at the provider and over the connection, and tells the core.
pub(super) async fn check(shared: Arc<Shared>, settings: Settings, id: InstanceId, ask_provider: bool) {
    let provider_id = fleeting::InstanceId::from(id.as_str());
    let asked = if ask_provider {
        let began = Instant::now();
        let answer = provider::heartbeat(&*shared.group, &provider_id, CALL_DEADLINE).await;
        let outcome = CallOutcome::of_heartbeat(&answer);
        shared.observer.called(&ProviderCall::new(CallKind::Heartbeat, outcome, began.elapsed()));
        answer
    } else {
        Ok(())
    };
    let answer = match asked {
        Ok(()) => settings.ready.probe(&provider_id).await,
        Err(error) => Err(error),
    };
    let health = match answer {
        Ok(()) => Health::Healthy,
        Err(HeartbeatError::Unhealthy(why)) => Health::Unhealthy(why),
        Err(HeartbeatError::Unknown(why)) => Health::Unknown(why),
    };
    shared.lock().core.health(&id, health, shared.clock.now());
    shared.wake.notify_one();
}
