//! Calls to the provider, each with a deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fleeting::{Changed, GroupError, HeartbeatError, InstanceGroup, InstanceId, Seen};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::observe::{CallKind, CallOutcome, ProviderCall};

/// What is known of an instance's fate must come quickly: a job waits for it.
const FATE_DEADLINE: Duration = Duration::from_secs(5);

/// The answer of the one call that may be under way.
pub(crate) enum Answer {
    Updated(Result<Vec<Seen>, GroupError>),
    Increased { asked: u32, outcome: Changed<u32> },
    Decreased { asked: Vec<InstanceId>, outcome: Changed<Vec<InstanceId>> },
}

/// A call under way.
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    pub(crate) answer: BoxFuture<'static, Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Update,
    Increase,
    Decrease,
}

// === impl Answer ===

impl Answer {
    /// The call that was answered, for observers.
    pub(crate) fn call(&self, duration: Duration) -> ProviderCall {
        let number = |ids: &[InstanceId]| u32::try_from(ids.len()).unwrap_or(u32::MAX);
        match self {
            Self::Updated(listing) => {
                ProviderCall::new(CallKind::Update, CallOutcome::of(listing.as_ref().err()), duration)
            }
            Self::Increased { asked, outcome } => ProviderCall {
                kind: CallKind::Increase,
                asked: *asked,
                done: outcome.done,
                outcome: CallOutcome::of(outcome.error.as_ref()),
                duration,
            },
            Self::Decreased { asked, outcome } => ProviderCall {
                kind: CallKind::Decrease,
                asked: number(asked),
                done: number(&outcome.done),
                outcome: CallOutcome::of(outcome.error.as_ref()),
                duration,
            },
        }
    }
}

/// Lists the group.
pub(crate) fn update(group: Arc<dyn InstanceGroup>, deadline: Duration) -> Call {
    let answer =
        async move { Answer::Updated(bounded(deadline, "listing the group", group.update()).await) }.boxed();
    Call { kind: Kind::Update, began: Instant::now(), answer }
}

/// Asks for more instances.
pub(crate) fn increase(group: Arc<dyn InstanceGroup>, asked: u32, deadline: Duration) -> Call {
    let answer = async move {
        let outcome = match tokio::time::timeout(deadline, group.increase(asked)).await {
            Ok(outcome) => outcome,
            Err(_) => Changed::partly(0, timed_out("adding instances", deadline)),
        };
        Answer::Increased { asked, outcome }
    }
    .boxed();
    Call { kind: Kind::Increase, began: Instant::now(), answer }
}

/// Deletes instances.
pub(crate) fn decrease(group: Arc<dyn InstanceGroup>, asked: Vec<InstanceId>, deadline: Duration) -> Call {
    let answer = async move {
        let outcome = match tokio::time::timeout(deadline, group.decrease(&asked)).await {
            Ok(outcome) => outcome,
            Err(_) => Changed::partly(Vec::new(), timed_out("deleting instances", deadline)),
        };
        Answer::Decreased { asked, outcome }
    }
    .boxed();
    Call { kind: Kind::Decrease, began: Instant::now(), answer }
}

/// The provider's health check.
pub(crate) async fn heartbeat(
    group: &dyn InstanceGroup,
    id: &InstanceId,
    deadline: Duration,
) -> Result<(), HeartbeatError> {
    match tokio::time::timeout(deadline, group.heartbeat(id)).await {
        Ok(answer) => answer,
        Err(_) => Err(HeartbeatError::Unknown(format!("no answer within {deadline:?}"))),
    }
}

/// What became of an instance, if the provider says so soon.
pub(crate) async fn bounded_fate(group: &dyn InstanceGroup, id: &InstanceId) -> Option<String> {
    tokio::time::timeout(FATE_DEADLINE, group.fate(id)).await.ok().flatten()
}

/// Puts a deadline on a call.
pub(crate) async fn bounded<T>(
    deadline: Duration,
    doing: &str,
    call: impl Future<Output = Result<T, GroupError>>,
) -> Result<T, GroupError> {
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| Err(timed_out(doing, deadline)))
}

fn timed_out(doing: &str, deadline: Duration) -> GroupError {
    GroupError::Transient { message: format!("{doing}: no answer from the provider within {deadline:?}") }
}
