//! Which machines are in use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use connector::DialOptions;
use fleeting::ConnectInfo;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::holding::{Holding, Unusable};
use crate::lock::Lock;

/// How long a machine that could not be used is left alone, unless locks last for less.
const REST: Duration = Duration::from_secs(30);

/// Of so many machines it is said why they cannot be used.
const REASONS: usize = 4;

/// The machines by name, and what they are used for.
pub(crate) struct Pool {
    machines: Mutex<BTreeMap<String, Usage>>,
    changed: Notify,
    /// A machine was taken or returned, for [`close`](Pool::close).
    settled: Notify,
    closed: AtomicBool,
}

/// How a machine is and was used.
#[derive(Debug, Default)]
struct Usage {
    /// How often it was taken into use.
    times: u64,
    standing: Standing,
    /// Why it is left alone. The task looks after it, and ends that.
    trouble: Option<(String, Background)>,
}

#[derive(Debug, Default)]
enum Standing {
    #[default]
    Free,
    /// It is dialled and locked.
    Taking,
    /// In use, without a lock of which anything is known.
    Used,
    /// In use, and locked.
    Held(Arc<Holding>, Background),
    /// Its lock is being removed.
    Returning,
}

/// A task that ends with this value.
#[derive(Debug)]
struct Background(AbortHandle);

// === impl Pool ===

impl Pool {
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        let machines = names.map(|name| (name, Usage::default())).collect();
        Self {
            machines: Mutex::new(machines),
            changed: Notify::new(),
            settled: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Usage>> {
        // No code can panic while it holds the lock half-way through a change.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when a listing may differ from the last one.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Machines in use, and how often each was.
    pub(crate) fn in_use(&self) -> Vec<(String, u64)> {
        let machines = self.machines();
        let in_use = machines.iter().filter(|(_, usage)| usage.standing.is_use());
        in_use.map(|(name, usage)| (name.clone(), usage.times)).collect()
    }

    pub(crate) fn is_in_use(&self, name: &str, time: u64) -> bool {
        self.machines().get(name).is_some_and(|usage| usage.standing.is_use() && usage.times == time)
    }

    /// True for the present use of a machine and for every earlier one.
    pub(crate) fn was_used(&self, name: &str, time: u64) -> bool {
        self.machines().get(name).is_some_and(|usage| (1..=usage.times).contains(&time))
    }

    /// What keeps a machine in use, if it is locked.
    pub(crate) fn holding(&self, name: &str, time: u64) -> Option<Arc<Holding>> {
        let machines = self.machines();
        match machines.get(name).filter(|usage| usage.times == time).map(|usage| &usage.standing) {
            Some(Standing::Held(holding, _)) => Some(Arc::clone(holding)),
            Some(Standing::Free | Standing::Taking | Standing::Used | Standing::Returning) | None => None,
        }
    }

    /// Takes so many free machines into use, unseen.
    pub(crate) fn use_unlocked(&self, n: usize) -> u32 {
        let mut granted = 0;
        let mut machines = self.machines();
        for usage in machines.values_mut().filter(|usage| matches!(usage.standing, Standing::Free)).take(n) {
            usage.standing = Standing::Used;
            usage.times += 1;
            granted += 1;
        }
        granted
    }

    /// Machines that are in use or can be, as far as is known.
    pub(crate) fn usable(&self) -> usize {
        self.machines().values().filter(|usage| usage.trouble.is_none()).count()
    }

    /// So many free machines that are worth a try; each has to be [taken](Self::take).
    pub(crate) fn begin(&self, n: usize) -> Vec<String> {
        let mut machines = self.machines();
        let free = machines
            .iter_mut()
            .filter(|(_, usage)| matches!(usage.standing, Standing::Free) && usage.trouble.is_none());
        free.take(n)
            .map(|(name, usage)| {
                usage.standing = Standing::Taking;
                name.clone()
            })
            .collect()
    }

    /// Reaches a machine and takes its lock, if there is to be one. Returns whether it is in use now.
    pub(crate) async fn take(
        self: Arc<Self>,
        name: String,
        info: ConnectInfo,
        options: DialOptions,
        lock: Option<Lock>,
        renewal: Duration,
    ) -> bool {
        // Whatever happens on the way, the machine does not stay half taken.
        let mut attempt = Attempt { pool: Arc::clone(&self), name: name.clone(), over: false };
        let taken = Holding::take(info.clone(), options.clone(), lock.clone()).await;
        {
            // `close` marks the pool before it looks for locks to remove: one that comes now is seen by it, or not kept.
            let mut machines = self.machines();
            if !self.closed.load(Ordering::Relaxed) {
                attempt.over = true;
                let Some(usage) = machines.get_mut(&name) else { return false };
                let granted = match taken {
                    Ok(holding) => {
                        let holding = Arc::new(holding);
                        usage.times += 1;
                        let renewing = tokio::spawn(renew(
                            Arc::clone(&holding),
                            Arc::downgrade(&self),
                            name.clone(),
                            usage.times,
                            renewal,
                        ));
                        usage.standing = Standing::Held(holding, Background(renewing.abort_handle()));
                        true
                    }
                    Err(why) => {
                        usage.standing = Standing::Free;
                        let text = format!("machine `{name}` {why}");
                        tracing::warn!(
                            machine = name,
                            "the machine {why}; it is not used until that changes"
                        );
                        let recovering =
                            recover(Arc::downgrade(&self), name, info, options, lock, REST.min(renewal));
                        usage.trouble = Some((text, Background(tokio::spawn(recovering).abort_handle())));
                        false
                    }
                };
                drop(machines);
                self.settled.notify_one();
                return granted;
            }
        }
        if let Ok(holding) = &taken
            && let Err(why) = holding.release().await
        {
            tracing::warn!(machine = name, "the lock of the machine stays until it lapses: it {why}");
        }
        false
    }

    /// A machine that could not be used can be, or cannot for this reason.
    fn looked_at(&self, name: &str, outcome: Result<(), Unusable>) -> bool {
        let usable = outcome.is_ok();
        if let Some(usage) = self.machines().get_mut(name) {
            match (outcome, &mut usage.trouble) {
                (Ok(()), trouble) => {
                    tracing::info!(machine = name, "the machine can be used again");
                    *trouble = None;
                }
                (Err(why), Some((text, _))) => *text = format!("machine `{name}` {why}"),
                (Err(_), None) => {}
            }
        }
        if usable {
            self.changed.notify_one();
        }
        usable
    }

    /// Why free machines are not used.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.machines()
            .values()
            .filter_map(|usage| usage.trouble.as_ref())
            .map(|(why, _)| why.clone())
            .collect()
    }

    /// How many machines cannot be used, and the reasons of the first few; none if all can.
    pub(crate) fn lacking(&self) -> Option<String> {
        let troubles = self.troubles();
        let total = self.machines().len();
        if troubles.is_empty() {
            return None;
        }
        let usable = match total - troubles.len() {
            0 => format!("none of {total} machines can be used"),
            usable => format!("only {usable} of {total} machines can be used"),
        };
        let more = match troubles.len().saturating_sub(REASONS) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Some(format!("{usable}: {}{more}", troubles[..troubles.len().min(REASONS)].join("; ")))
    }

    fn is_settled(&self) -> bool {
        let busy = |usage: &Usage| matches!(usage.standing, Standing::Taking | Standing::Returning);
        !self.machines().values().any(busy)
    }

    /// The use of a machine is over. Its lock is removed by a task of its own; until then nobody takes the machine.
    pub(crate) fn give_back(self: Arc<Self>, name: &str, time: u64) {
        let mut machines = self.machines();
        // An earlier time of use is over already, whatever the machine does now.
        let Some(usage) = machines.get_mut(name).filter(|usage| usage.times == time) else { return };
        match std::mem::take(&mut usage.standing) {
            Standing::Free | Standing::Used => {}
            other @ (Standing::Taking | Standing::Returning) => usage.standing = other,
            Standing::Held(holding, renewing) => {
                drop(renewing);
                usage.standing = Standing::Returning;
                drop(machines);
                let name = name.to_owned();
                tokio::spawn(async move {
                    if let Err(why) = holding.release().await {
                        tracing::warn!(
                            machine = name,
                            "the lock of the machine stays until it lapses: it {why}"
                        );
                    }
                    self.freed(&name);
                });
            }
        }
    }

    fn freed(&self, name: &str) {
        if let Some(usage) = self.machines().get_mut(name) {
            usage.standing = Standing::Free;
        }
        self.changed.notify_one();
        self.settled.notify_one();
    }

    /// Removes all locks. Returns those that stay, and why.
    pub(crate) async fn close(self: Arc<Self>, patience: Duration) -> Vec<String> {
        self.closed.store(true, Ordering::Relaxed);
        let mut held = Vec::new();
        for (name, usage) in self.machines().iter_mut() {
            if let Standing::Held(holding, _) = &usage.standing {
                held.push((name.clone(), Arc::clone(holding)));
                usage.standing = Standing::Used;
            }
        }
        let releases = held.into_iter().map(|(name, holding)| async move {
            let released = tokio::time::timeout(patience, holding.release()).await;
            let released =
                released.unwrap_or_else(|_| Err(Unusable::Dead(format!("nothing within {patience:?}"))));
            released.err().map(|why| format!("machine `{name}` {why}"))
        });
        let settled = async {
            while !self.is_settled() {
                self.settled.notified().await;
            }
        };
        let (left, settled) =
            tokio::join!(futures_util::future::join_all(releases), tokio::time::timeout(patience, settled));
        let late = settled.is_err().then(|| "some machines are being returned still".to_owned());
        left.into_iter().flatten().chain(late).collect()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.machines().iter().map(|(name, usage)| (name, usage.standing.is_use())))
            .finish()
    }
}

impl Standing {
    fn is_use(&self) -> bool {
        match self {
            Self::Used | Self::Held(..) => true,
            Self::Free | Self::Taking | Self::Returning => false,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A machine that is being taken.
struct Attempt {
    pool: Arc<Pool>,
    name: String,
    over: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.over {
            self.pool.freed(&self.name);
        }
    }
}

/// Looks at a machine that could not be used, until it can be.
async fn recover(
    pool: Weak<Pool>,
    name: String,
    info: ConnectInfo,
    options: DialOptions,
    lock: Option<Lock>,
    every: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let outcome = Holding::look(info.clone(), options.clone(), lock.clone()).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.looked_at(&name, outcome) {
            return;
        }
    }
}

/// Keeps a lock from lapsing for as long as the machine is in use. What it finds out is told by the next health check.
async fn renew(holding: Arc<Holding>, pool: Weak<Pool>, name: String, time: u64, every: Duration) {
    if !holding.is_locked() {
        return;
    }
    let mut said = None;
    loop {
        tokio::time::sleep(every).await;
        let Err(why) = holding.check().await else {
            said = None;
            continue;
        };
        let Some(pool) = pool.upgrade() else { return };
        if pool.is_in_use(&name, time) && said.as_ref() != Some(&why) {
            tracing::warn!(machine = name, "the lock of the machine is not renewed: it {why}");
        }
        said = Some(why);
    }
}
