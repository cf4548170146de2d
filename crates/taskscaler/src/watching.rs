//! Asks instances that run jobs what their cloud has told them of their end.
//!
//! One task for a scaler, whatever it scales. It knows the instances that got a job and are not found idle since: an instance
//! comes with its first job and leaves at the first look after its last one, so that neither a job nor a look costs more with
//! many instances. What the provider has no [`Watch`](fleeting::Watch) for never comes here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleeting::{Doom, Watch, WatchError};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use taskscaler_core::InstanceId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::ReadyUp;
use crate::clock::sleep_until;
use crate::shared::Shared;
use crate::translate::in_core;

/// Time for one look.
const DEADLINE: Duration = Duration::from_secs(4);
/// Looks under way at once.
const PARALLEL: usize = 64;
/// Looks that fail in a row before an instance is asked less often.
const PATIENCE: u32 = 3;
/// Between two looks at an instance that does not answer.
const SLOWLY: Duration = Duration::from_secs(60);

/// What the watcher is told.
pub(crate) enum Word {
    /// A job came to this instance.
    Occupied(InstanceId),
    /// The instance is gone or going.
    Gone(InstanceId),
}

pub(crate) struct Watcher {
    shared: Arc<Shared>,
    ready: Arc<dyn ReadyUp>,
    runner: Arc<str>,
    words: mpsc::UnboundedReceiver<Word>,
    watched: BTreeMap<InstanceId, Watched>,
    due: BTreeSet<(Instant, InstanceId)>,
    looks: FuturesUnordered<BoxFuture<'static, Look>>,
}

/// How it stands with one instance.
enum Watched {
    /// It is asked next at `at`.
    Due { at: Instant, watch: Box<dyn Watch>, failures: u32 },
    /// It is being asked.
    Asked { failures: u32 },
    /// It cannot be asked.
    Blind,
}

/// A look that is over.
struct Look {
    id: InstanceId,
    watch: Box<dyn Watch>,
    seen: Result<Option<Doom>, WatchError>,
}

// === impl Watcher ===

impl Watcher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        ready: Arc<dyn ReadyUp>,
        runner: Arc<str>,
        words: mpsc::UnboundedReceiver<Word>,
    ) -> Self {
        Self {
            shared,
            ready,
            runner,
            words,
            watched: BTreeMap::new(),
            due: BTreeSet::new(),
            looks: FuturesUnordered::new(),
        }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.start_looks();
            let room = self.looks.len() < PARALLEL;
            let next = self.due.first().map(|(at, _)| *at).filter(|_| room);
            tokio::select! {
                word = self.words.recv() => match word {
                    Some(Word::Occupied(id)) => self.occupied(id),
                    Some(Word::Gone(id)) => self.forget(&id),
                    None => return,
                },
                Some(look) = self.looks.next(), if !self.looks.is_empty() => self.looked(look),
                () = sleep_until(next) => {}
            }
        }
    }

    fn occupied(&mut self, id: InstanceId) {
        if self.watched.contains_key(&id) {
            return;
        }
        let Some(watch) = self.shared.group.watch(&fleeting::InstanceId::from(id.as_str())) else { return };
        self.put(id, Instant::now(), watch, 0);
    }

    fn put(&mut self, id: InstanceId, at: Instant, watch: Box<dyn Watch>, failures: u32) {
        self.due.insert((at, id.clone()));
        self.watched.insert(id, Watched::Due { at, watch, failures });
    }

    fn forget(&mut self, id: &InstanceId) {
        if let Some(Watched::Due { at, .. }) = self.watched.remove(id) {
            self.due.remove(&(at, id.clone()));
        }
    }

    fn start_looks(&mut self) {
        let now = Instant::now();
        while self.looks.len() < PARALLEL
            && self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, id)) = self.due.pop_first()
        {
            // Without a job the connection for questions is let go of as well; the next job brings the instance back.
            let Some(Watched::Due { mut watch, failures, .. }) = self.watched.remove(&id) else { continue };
            if !self.shared.lock().core.is_busy(&id) {
                continue;
            }
            self.watched.insert(id.clone(), Watched::Asked { failures });
            let reach = self.ready.reach(&fleeting::InstanceId::from(id.as_str()));
            self.looks.push(
                async move {
                    let seen = match reach {
                        None => Err(WatchError::Failed("no connection is open".to_owned())),
                        Some(reach) => match tokio::time::timeout(DEADLINE, watch.look(&*reach)).await {
                            Ok(seen) => seen,
                            Err(_) => Err(WatchError::Failed(format!("no answer within {DEADLINE:?}"))),
                        },
                    };
                    Look { id, watch, seen }
                }
                .boxed(),
            );
        }
    }

    fn looked(&mut self, look: Look) {
        let Look { id, watch, seen } = look;
        // It went while it was asked.
        let Some(Watched::Asked { failures }) = self.watched.get(&id) else { return };
        let failures = *failures;
        let now = Instant::now();
        match seen {
            Ok(doom) => {
                let doom = doom.map(in_core);
                let now_in_core = self.shared.clock.now();
                if self.shared.lock().core.told(&id, doom.as_ref(), now_in_core) {
                    self.shared.wake.notify_one();
                }
                let at = now + watch.interval();
                self.put(id, at, watch, 0);
            }
            Err(WatchError::Unavailable(why)) => {
                tracing::info!(runner = %self.runner, instance = %id, %why,
                    "the instance cannot be asked for announcements of its end; only listings tell of them");
                self.watched.insert(id, Watched::Blind);
            }
            Err(WatchError::Failed(why)) => {
                tracing::debug!(runner = %self.runner, instance = %id, %why, "the instance could not be asked for announcements");
                let failures = failures.saturating_add(1);
                if failures == PATIENCE {
                    tracing::info!(runner = %self.runner, instance = %id, %why,
                        "the instance does not say what is announced about its end; it is asked once a minute");
                }
                let pause = if failures < PATIENCE { watch.interval() } else { SLOWLY };
                self.put(id, now + pause, watch, failures);
            }
        }
    }
}
