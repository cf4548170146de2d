//! Runners without room wait for their executors to have some.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Event;
use crate::dispatch::RunnerIndex;

/// Those who wait: at most one for each runner, however often the runner finds no room meanwhile.
#[derive(Debug, Default)]
pub(super) struct Listening(BTreeMap<RunnerIndex, AbortHandle>);

// === impl Listening ===

impl Listening {
    /// Has [`Event::Room`] sent when `capacity` changes next. One that waits already hears of everything that `capacity` does.
    pub(super) fn listen(
        &mut self,
        runner: RunnerIndex,
        mut capacity: watch::Receiver<u64>,
        tasks: &mut JoinSet<()>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        if self.0.get(&runner).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let events = events.clone();
        let task = tasks.spawn(async move {
            if capacity.changed().await.is_ok() {
                // Nobody to tell: the manager has ended.
                let _ = events.send(Event::Room(runner));
            }
        });
        self.0.insert(runner, task);
    }

    /// The runner's event has come, or the runner goes: nobody waits for it any more.
    pub(super) fn forget(&mut self, runner: RunnerIndex) {
        if let Some(task) = self.0.remove(&runner) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_has_no_room_many_times_hears_of_room_once() {
        let (changes, capacity) = watch::channel(0);
        let (events, mut inbox) = mpsc::unbounded_channel();
        let (mut listening, mut tasks) = (Listening::default(), JoinSet::new());
        let runner = RunnerIndex(1);
        for _ in 0..30 {
            let mut capacity = capacity.clone();
            capacity.borrow_and_update();
            listening.listen(runner, capacity, &mut tasks, &events);
        }
        assert_eq!(tasks.len(), 1);
        changes.send_replace(1);
        assert!(matches!(inbox.recv().await, Some(Event::Room(woken)) if woken == runner));
        listening.forget(runner);
        while tasks.join_next().await.is_some() {}
        assert!(inbox.try_recv().is_err());
        listening.listen(runner, changes.subscribe(), &mut tasks, &events);
        changes.send_replace(2);
        assert!(matches!(inbox.recv().await, Some(Event::Room(_))), "it is woken again the next time");
    }

    #[tokio::test]
    async fn an_executor_that_has_ended_wakes_nobody() {
        let (changes, capacity) = watch::channel(0);
        let (events, mut inbox) = mpsc::unbounded_channel();
        let (mut listening, mut tasks) = (Listening::default(), JoinSet::new());
        listening.listen(RunnerIndex(1), capacity, &mut tasks, &events);
        drop(changes);
        while tasks.join_next().await.is_some() {}
        assert!(inbox.try_recv().is_err());
    }
}
