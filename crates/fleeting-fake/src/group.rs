//! The cloud as an instance group.

use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, Seen, Watch,
};

use crate::FakeCloud;
use crate::machine::Health;
use crate::record::Request;
use crate::state::{Admission, Aftermath, State};

#[async_trait]
impl InstanceGroup for FakeCloud {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        let effect = |state: &mut State, _| {
            state.settings = settings.clone();
            Ok(GroupInfo {
                id: format!("fake/{}", state.setup.name),
                max_size: state.setup.max_size,
                provider: concat!("fake ", env!("CARGO_PKG_VERSION")).to_owned(),
                has_heartbeat: state.setup.heartbeat,
            })
        };
        self.call(Request::Init, effect, |_| 1).await
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        self.call(Request::Update, |state, now| Ok(state.listing(now)), Vec::len).await
    }

    fn max_size(&self) -> Option<u32> {
        Some(self.with(|state, _| state.setup.max_size))
    }

    async fn increase(&self, n: u32) -> Changed<u32> {
        let answer = self
            .call(Request::Increase(n), |state, now| Ok(state.increase(n, now)), |c| c.done as usize)
            .await;
        answer.unwrap_or_else(|error| Changed::partly(0, error))
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        if ids.is_empty() {
            return Changed::all(Vec::new());
        }
        let request = Request::Decrease(ids.to_vec());
        let answer = self.call(request, |state, now| Ok(state.decrease(ids, now)), |c| c.done.len()).await;
        answer.unwrap_or_else(|error| Changed::partly(Vec::new(), error))
    }

    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        let request = Request::ConnectInfo(id.clone());
        self.call(request, |state, now| state.connect_info(id, now), |_| 1).await
    }

    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        let effect = |state: &mut State, now| {
            Ok(state.machine(id).filter(|m| !m.is_gone(now)).map(|m| m.health.clone()))
        };
        let answer = self.call(Request::Heartbeat(id.clone()), effect, |_| 1).await;
        match answer {
            Ok(Some(Health::Healthy)) => Ok(()),
            Ok(Some(Health::Unhealthy(why))) => Err(HeartbeatError::Unhealthy(why)),
            Ok(Some(Health::Unknown(why))) => Err(HeartbeatError::Unknown(why)),
            Ok(None) => Err(HeartbeatError::Unknown(format!("instance `{id}` not found"))),
            Err(error) => Err(HeartbeatError::Unknown(error.to_string())),
        }
    }

    fn watch(&self, id: &InstanceId) -> Option<Box<dyn Watch>> {
        let watch = self.with(|state, _| state.setup.watch.clone())?;
        watch(id)
    }

    async fn fate(&self, id: &InstanceId) -> Option<String> {
        let (asked, takes) = self.with(|state, now| (now, state.setup.fate_after));
        self.sleep_until(asked + takes).await;
        let now = self.now();
        self.instance(id).filter(|instance| instance.gone_at.is_some_and(|gone| gone <= now))?.fate
    }

    async fn changed(&self) {
        if !self.with(|state, _| state.setup.hints) {
            pending::<()>().await;
        }
        self.next_hint().await;
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        self.call(Request::Shutdown, |_, _| Ok(()), |()| 1).await
    }
}

impl FakeCloud {
    /// The way of every call: recorded, slow, refused or let in, recorded again.
    async fn call<T>(
        &self,
        request: Request,
        effect: impl FnOnce(&mut State, Duration) -> Result<T, GroupError> + Send,
        count: impl FnOnce(&T) -> usize + Send,
    ) -> Result<T, GroupError>
    where
        T: Outcome + Send,
    {
        let operation = request.operation();
        let (call, arrived, latency) = self.with(|state, now| {
            let (call, latency) = state.arrive(request, now);
            (call, now, latency)
        });
        if !latency.is_zero() {
            self.sleep_until(arrived + latency).await;
        }
        let entered = self.with(|state, now| match state.admit(operation, now) {
            Admission::Enter(aftermath) => Some((effect(state, now), aftermath)),
            Admission::Refuse(error) => Some((Err(error), Aftermath::Answer)),
            Admission::Hang => None,
        });
        let answer = match entered {
            Some((answer, Aftermath::Answer)) => answer,
            Some((_, Aftermath::Fail(error))) => Err(error),
            Some((_, Aftermath::Hang)) | None => pending().await,
        };
        self.with(|state, now| match &answer {
            Ok(value) => state.answered(call, now, count(value), value.error()),
            Err(error) => state.answered(call, now, 0, Some(error.to_string())),
        });
        answer
    }
}

/// Errors that travel inside a successful answer.
trait Outcome {
    fn error(&self) -> Option<String> {
        None
    }
}

impl Outcome for () {}
impl Outcome for GroupInfo {}
impl Outcome for ConnectInfo {}
impl Outcome for Vec<Seen> {}

impl<T> Outcome for Changed<T> {
    fn error(&self) -> Option<String> {
        self.error.as_ref().map(ToString::to_string)
    }
}

impl Outcome for Option<Health> {
    fn error(&self) -> Option<String> {
        match self {
            Some(Health::Healthy) => None,
            Some(Health::Unhealthy(why) | Health::Unknown(why)) => Some(why.clone()),
            None => Some("not found".to_owned()),
        }
    }
}
