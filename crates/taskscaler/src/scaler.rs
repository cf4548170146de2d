//! A running scaler, as its owner holds it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fleeting::{GroupError, GroupInfo, InstanceGroup};
use status::{Scaling, words};
use taskscaler_core::{Core, InstanceId, NoCapacity, Report};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::claims::Claim;
use crate::engine::Engine;
use crate::observe::{CallKind, CallOutcome, ProviderCall};
use crate::provider;
use crate::shared::{Grant, Granted, Shared};
use crate::voice::moments;
use crate::{AcquireError, Acquisition, MemoryStore, Reservation, Settings, StoreError};

/// Time for the provider to prepare itself (GitLab Runner gives the construction of a scaler a minute).
const INIT_DEADLINE: Duration = Duration::from_secs(60);

/// A running scaler. Clones are handles to the same one. It stops when the last of them is dropped, as by
/// [`shutdown`](Self::shutdown) without deletion.
#[derive(Clone)]
pub struct Taskscaler {
    shared: Arc<Shared>,
    info: Arc<GroupInfo>,
    engine: Arc<tokio::sync::Mutex<Option<JoinHandle<Leftover>>>>,
    delete_at_stop: watch::Sender<bool>,
    _stops: Arc<DropGuard>,
}

/// Why a scaler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The provider refused its configuration, or cannot reach its group.
    #[error("failed to prepare the instance group")]
    Group(#[source] GroupError),
    /// The ledger of an earlier run cannot be read.
    #[error("failed to read the scaler's ledger")]
    Store(#[source] StoreError),
}

/// What a shutdown left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Instances that exist still although they should have been deleted.
    pub instances: Vec<InstanceId>,
}

// === impl Taskscaler ===

impl Taskscaler {
    /// Prepares the group and starts to scale it.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(mut settings: Settings, group: Arc<dyn InstanceGroup>) -> Result<Self, StartError> {
        if let Some(lease) = &settings.lease {
            group.used_by(&lease.owner, lease.valid);
        }
        let began = Instant::now();
        let info =
            provider::bounded(INIT_DEADLINE, "preparing the instance group", group.init(&settings.connector))
                .await;
        let outcome = CallOutcome::of(info.as_ref().err());
        settings.observer.called(&ProviderCall::new(CallKind::Init, outcome, began.elapsed()));
        let info = info.map_err(StartError::Group)?;
        let mut config = settings.core.clone();
        if !group.outlives_process() {
            settings.store = Arc::new(MemoryStore::default());
            config.restores_state = false;
        }
        let ledger = settings.store.load(&info.id).map_err(StartError::Store)?;
        config.group_max_size = Some(info.max_size);
        settings.observer.configured(&config);
        let core = Core::new(config, ledger, settings.clock.now());
        let (watcher, words) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(core, Arc::clone(&group), &settings, watcher));
        tracing::info!(runner = %settings.runner, group = %info.id, provider = %info.provider,
            max_size = info.max_size, "instance group ready");
        let delete_at_stop = watch::Sender::new(false);
        let info = Arc::new(info);
        let stop = delete_at_stop.subscribe();
        let engine = Engine::new(Arc::clone(&shared), group, settings, Arc::clone(&info), stop, words);
        let engine = tokio::spawn(engine.run());
        let stops = Arc::new(shared.stopping.clone().drop_guard());
        let engine = Arc::new(tokio::sync::Mutex::new(Some(engine)));
        Ok(Self { shared, info, engine, delete_at_stop, _stops: stops })
    }

    /// What the provider said of the group.
    #[must_use]
    pub fn group(&self) -> &GroupInfo {
        &self.info
    }

    /// Claims a slot somewhere, before GitLab is asked for a job.
    ///
    /// # Errors
    /// [`NoCapacity`]: there is no slot and none can be made; try again when [`capacity`](Self::capacity) changes.
    pub fn reserve(&self) -> Result<Reservation, NoCapacity> {
        let key = self.shared.reserve()?;
        Ok(Reservation { claim: Claim { key, shared: Arc::clone(&self.shared) } })
    }

    /// Turns a reservation into a slot of an instance, waiting for one if need be.
    ///
    /// # Errors
    /// [`AcquireError`]; the reservation is given back then.
    pub async fn acquire(
        &self,
        reservation: Reservation,
        timeout: Duration,
    ) -> Result<Acquisition, AcquireError> {
        let claim = reservation.claim;
        let mut elsewhere = self.shared.elsewhere.subscribe();
        let lost_group = async move {
            match elsewhere.wait_for(Option::is_some).await.map(|holder| holder.clone()) {
                Ok(Some(holder)) => {
                    AcquireError::HeldElsewhere { group: self.info.id.clone(), holder: holder.to_string() }
                }
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let grant = self.shared.acquire(&claim.key).map_err(|_| AcquireError::ShuttingDown)?;
        let Granted { slot, ears } = match grant {
            Grant::Now(granted) => granted,
            Grant::Later(receiver) => {
                tokio::select! {
                    granted = receiver => granted.map_err(|_| AcquireError::ShuttingDown)?,
                    error = lost_group => return Err(error),
                    () = self.shared.stopping.cancelled() => return Err(AcquireError::ShuttingDown),
                    () = tokio::time::sleep(timeout) => {
                        let why = self.shared.report.borrow().as_deref().map_or_else(String::new, words::waiting);
                        return Err(AcquireError::TimedOut { timeout, why });
                    }
                }
            }
        };
        self.shared.taken(&claim.key, &slot.instance);
        Ok(Acquisition { claim, slot, ears })
    }

    /// Changes whenever a refused reservation may succeed. The value has no meaning.
    #[must_use]
    pub fn capacity(&self) -> watch::Receiver<u64> {
        self.shared.capacity.subscribe()
    }

    /// The newest decision and its reasons; `None` before the first.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.shared.report.subscribe()
    }

    /// One line for each instance: state, slots, uses, why it is there and why it stays or goes.
    #[must_use]
    pub fn instances(&self) -> Vec<taskscaler_core::InstanceLine> {
        self.shared.lock().core.instances(self.shared.clock.now()).collect()
    }

    /// The state of the scaler and its reasons, for people and programs; nothing before the first decision.
    #[must_use]
    pub fn scaling(&self) -> Option<Scaling> {
        let report = self.shared.report.borrow().clone()?;
        let recent = moments(&self.shared.diary);
        let mut scaling = {
            let inner = self.shared.lock();
            let instances = inner.core.instances(self.shared.clock.now());
            Scaling::of(&report, instances, inner.core.config(), recent)
        };
        scaling.group = self.info.id.to_string();
        scaling.provider = self.info.provider.to_string();
        self.shared.lease.lock().unwrap_or_else(PoisonError::into_inner).clone_into(&mut scaling.owner);
        Some(scaling)
    }

    /// Puts another configuration of limits and policies in force.
    pub fn configure(&self, mut config: taskscaler_core::Config) {
        {
            let mut inner = self.shared.lock();
            // The group's own bound is the provider's to tell.
            config.group_max_size = inner.core.config().group_max_size;
            inner.core.configure(config.clone(), self.shared.clock.now());
        }
        self.shared.observer.configured(&config);
        self.shared.wake.notify_one();
    }

    /// Stops: no more claims; with `delete_instances` all instances are deleted and their end is awaited as long as the
    /// settings say. Later calls return at once.
    pub async fn shutdown(&self, delete_instances: bool) -> Leftover {
        self.delete_at_stop.send_replace(delete_instances);
        self.shared.stopping.cancel();
        let Some(engine) = self.engine.lock().await.take() else { return Leftover::default() };
        engine.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the scaler's task ended abnormally");
            Leftover::default()
        })
    }
}

impl std::fmt::Debug for Taskscaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taskscaler").field("group", &self.info.id).finish_non_exhaustive()
    }
}
