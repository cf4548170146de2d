//! The state that claims, tasks and the engine share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use connect_info::ConnectInfo;
use fleeting::{GroupError, InstanceGroup, with_causes};
use status::Diary;
use taskscaler_core::{ClaimKey, Core, Doom, Event, InstanceId, LedgerChanges, NoCapacity, Report, Slot};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::observe::{CallKind, CallOutcome, ClaimOperation, ProviderCall};
use crate::provider;
use crate::watching::Word;
use crate::{Clock, LedgerStore, LostCause, ScalerObserver, Settings};

/// Credentials that expire sooner than this are fetched anew.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) group: Arc<dyn InstanceGroup>,
    /// "Look again": wakes the engine.
    pub(crate) wake: Notify,
    /// Counts changes after which a refused reservation may succeed.
    pub(crate) capacity: watch::Sender<u64>,
    pub(crate) report: watch::Sender<Option<Arc<Report>>>,
    pub(crate) stopping: CancellationToken,
    inner: Mutex<Inner>,
    connect_infos: Mutex<BTreeMap<InstanceId, Arc<tokio::sync::Mutex<Option<ConnectInfo>>>>>,
    key_prefix: Arc<str>,
    connect_timeout: Duration,
    pub(crate) observer: Arc<dyn ScalerObserver>,
    /// Asks instances with jobs what is announced for them.
    pub(crate) watcher: mpsc::UnboundedSender<Word>,
    /// Whose the group is, for people; empty where groups are not marked.
    pub(crate) lease: Mutex<String>,
    /// Another manager that is known to have the group. Uncertainty passes, and is not told here.
    pub(crate) elsewhere: watch::Sender<Option<Arc<str>>>,
    /// What happened lately, for people.
    pub(crate) diary: Arc<Mutex<Diary>>,
}

pub(crate) struct Inner {
    pub(crate) core: Core,
    store: Arc<dyn LedgerStore>,
    /// What the store failed to keep.
    unsaved: Option<LedgerChanges>,
    waiting: BTreeMap<ClaimKey, oneshot::Sender<Granted>>,
    held: BTreeMap<ClaimKey, Held>,
    keys: KeyMaker,
}

/// A slot that was granted. What happens to its instance is told from then on, also to an owner that looks later.
struct Held {
    instance: InstanceId,
    /// Its owner has it: the claim counts as acquired.
    taken: bool,
    lost: watch::Sender<Option<LostCause>>,
    doom: watch::Sender<Option<Doom>>,
}

/// A slot, and where its owner hears of its instance.
pub(crate) struct Granted {
    pub(crate) slot: Slot,
    pub(crate) ears: Ears,
}

/// Where the owner of a slot hears of its instance.
pub(crate) struct Ears {
    pub(crate) lost: watch::Receiver<Option<LostCause>>,
    pub(crate) doom: watch::Receiver<Option<Doom>>,
}

/// Instances that vanished in this round, to ask the provider for their fate.
pub(crate) struct LostClaim {
    pub(crate) key: ClaimKey,
    pub(crate) slot: Slot,
    pub(crate) cause: String,
}

/// Names claims: 8 bytes in hex from a seeded sequence.
struct KeyMaker {
    state: u64,
}

impl Shared {
    pub(crate) fn new(
        core: Core,
        group: Arc<dyn InstanceGroup>,
        settings: &Settings,
        watcher: mpsc::UnboundedSender<Word>,
    ) -> Self {
        Self {
            clock: settings.clock,
            group,
            wake: Notify::new(),
            capacity: watch::Sender::new(0),
            report: watch::Sender::new(None),
            stopping: CancellationToken::new(),
            inner: Mutex::new(Inner {
                core,
                store: Arc::clone(&settings.store),
                unsaved: None,
                waiting: BTreeMap::new(),
                held: BTreeMap::new(),
                keys: KeyMaker { state: settings.seed },
            }),
            connect_infos: Mutex::new(BTreeMap::new()),
            key_prefix: Arc::clone(&settings.key_prefix),
            connect_timeout: settings.connector.timeout(),
            observer: Arc::clone(&settings.observer),
            watcher,
            lease: Mutex::default(),
            elsewhere: watch::Sender::new(None),
            diary: Arc::default(),
        }
    }

    /// A panic while the lock was held would be a bug of the core; its state is still the best there is.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserve(&self) -> Result<ClaimKey, NoCapacity> {
        let now = self.clock.now();
        let mut inner = self.lock();
        let key = ClaimKey::from(format!("{}-{:016x}", self.key_prefix, inner.keys.next()));
        let outcome = inner.core.reserve(key.clone(), now);
        drop(inner);
        match &outcome {
            Ok(()) => self.observer.claimed(ClaimOperation::Reserve),
            Err(why) => self.observer.refused(why),
        }
        outcome.map(|()| key)
    }

    /// Asks for a slot: at once, or through the receiver.
    pub(crate) fn acquire(&self, key: &ClaimKey) -> Result<Grant, taskscaler_core::UnknownClaim> {
        let now = self.clock.now();
        let mut inner = self.lock();
        let grant = match inner.core.acquire(key, now)? {
            taskscaler_core::Acquire::Granted(slot) => {
                inner.save();
                Grant::Now(inner.hold(key, slot))
            }
            taskscaler_core::Acquire::Pending => {
                let (sender, receiver) = oneshot::channel();
                inner.waiting.insert(key.clone(), sender);
                Grant::Later(receiver)
            }
        };
        drop(inner);
        self.wake.notify_one();
        Ok(grant)
    }

    /// The owner has its slot. Until it is released or requeued, the claim counts as acquired.
    pub(crate) fn taken(&self, key: &ClaimKey, instance: &InstanceId) {
        if let Some(held) = self.lock().held.get_mut(key) {
            held.taken = true;
        }
        self.observer.claimed(ClaimOperation::Acquire);
        // Without a watcher the scaler has ended.
        let _ = self.watcher.send(Word::Occupied(instance.clone()));
    }

    pub(crate) fn release(&self, key: &ClaimKey) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.waiting.remove(key);
        let acquired = inner.held.remove(key).is_some_and(|held| held.taken);
        inner.core.release(key, now);
        drop(inner);
        self.observer.claimed(if acquired { ClaimOperation::Release } else { ClaimOperation::Unreserve });
        self.capacity_changed();
        self.wake.notify_one();
    }

    /// Takes the slot away from a claim, which stays reserved: its instance cannot be used.
    pub(crate) fn requeue(&self, key: &ClaimKey, id: &InstanceId, why: &str) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.held.remove(key);
        inner.core.condemn(id, why.to_owned(), now);
        inner.core.requeue(key, now);
        drop(inner);
        self.observer.claimed(ClaimOperation::Release);
        self.wake.notify_one();
    }

    pub(crate) fn suspect(&self, id: &InstanceId, why: &str) {
        self.lock().core.suspect(id, why.to_owned(), self.clock.now());
        self.wake.notify_one();
    }

    pub(crate) fn capacity_changed(&self) {
        self.capacity.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Hands the core's events to those who wait for them; returns the claims that lost their instance.
    pub(crate) fn deliver(&self, inner: &mut Inner) -> Vec<LostClaim> {
        inner.save();
        let mut lost = Vec::new();
        while let Some(event) = inner.core.poll_event() {
            match event {
                Event::Granted { key, slot } => {
                    let granted = inner.hold(&key, slot);
                    let heard = inner.waiting.remove(&key).is_some_and(|sender| sender.send(granted).is_ok());
                    if !heard {
                        inner.held.remove(&key);
                        inner.core.release(&key, self.clock.now());
                    }
                }
                Event::Doomed { key, doom } => {
                    if let Some(held) = inner.held.get(&key) {
                        held.doom.send_replace(doom);
                    }
                }
                Event::Lost { key, slot, cause } => {
                    lost.push(LostClaim { key, slot, cause: cause.to_string() });
                }
            }
        }
        lost
    }

    /// Tells the job that holds a lost slot, with the instance's fate where the provider knows it.
    pub(crate) async fn tell_lost(&self, claim: LostClaim) {
        let id = fleeting::InstanceId::from(claim.slot.instance.as_str());
        let fate = provider::bounded_fate(&*self.group, &id).await;
        let why = match fate {
            Some(fate) => format!("{} ({fate})", claim.cause),
            None => claim.cause,
        };
        // Meanwhile the claim may have come to another instance.
        let inner = self.lock();
        if let Some(held) = inner.held.get(&claim.key).filter(|held| held.instance == claim.slot.instance) {
            held.lost.send_replace(Some(LostCause { instance: claim.slot.instance, why }));
        }
    }

    /// The provider's answer for one instance, asked once however many jobs want it.
    pub(crate) async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        let cell = {
            let mut infos = self.connect_infos.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(infos.entry(id.clone()).or_default())
        };
        let mut cached = cell.lock().await;
        if let Some(info) = cached.as_ref() {
            let fresh = info.expires.is_none_or(|end| end > SystemTime::now() + EXPIRY_MARGIN);
            if fresh {
                return Ok(info.clone());
            }
            tracing::debug!(instance = %id, "refreshing connect info");
        }
        let provider_id = fleeting::InstanceId::from(id.as_str());
        let began = Instant::now();
        let info = provider::bounded(self.connect_timeout, "fetching connect info", async {
            self.group.connect_info(&provider_id).await
        })
        .await;
        let outcome = CallOutcome::of(info.as_ref().err());
        self.observer.called(&ProviderCall::new(CallKind::ConnectInfo, outcome, began.elapsed()));
        let info = info?;
        *cached = Some(info.clone());
        Ok(info)
    }

    /// Forgets instances for which `keep` says no.
    pub(crate) fn retain_connect_infos(&self, keep: impl Fn(&InstanceId) -> bool) -> Vec<InstanceId> {
        let mut infos = self.connect_infos.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<InstanceId> = infos.keys().filter(|id| !keep(id)).cloned().collect();
        for id in &gone {
            infos.remove(id);
        }
        gone
    }
}

impl Inner {
    /// Begins to tell what becomes of the instance of a slot.
    fn hold(&mut self, key: &ClaimKey, slot: Slot) -> Granted {
        let (lost, doom) =
            (watch::Sender::new(None), watch::Sender::new(self.core.doom(&slot.instance).cloned()));
        let ears = Ears { lost: lost.subscribe(), doom: doom.subscribe() };
        self.held.insert(key.clone(), Held { instance: slot.instance.clone(), taken: false, lost, doom });
        Granted { slot, ears }
    }

    /// Persists what changed, before anybody hears of it.
    pub(crate) fn save(&mut self) {
        if !self.core.ledger_changed() {
            return;
        }
        let mut changes = self.core.take_ledger_changes();
        let failing = self.unsaved.take();
        let failed_before = failing.is_some();
        if let Some(mut earlier) = failing {
            earlier.then(changes);
            changes = earlier;
        }
        match self.store.save(&changes) {
            Ok(()) if failed_before => tracing::info!("the scaler's ledger is kept again"),
            Ok(()) => {}
            Err(error) => {
                if !failed_before {
                    tracing::error!(error = with_causes(&error), "failed to keep the scaler's ledger");
                }
                self.unsaved = Some(changes);
            }
        }
    }
}

pub(crate) enum Grant {
    Now(Granted),
    Later(oneshot::Receiver<Granted>),
}

impl KeyMaker {
    /// SplitMix64: every state gives another value, so names repeat only after 2^64 claims.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
