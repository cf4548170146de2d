//! How a cloud is set up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleeting::{ConnectInfo, GroupError, InstanceId, Watch};

use crate::{Delay, FakeCloud, Operation};

/// Answers `connect_info` in place of the built-in dummy.
pub(crate) type Connect = Arc<dyn Fn(&InstanceId) -> Result<ConnectInfo, GroupError> + Send + Sync>;

/// Makes the watch of an instance.
pub(crate) type Watched = Arc<dyn Fn(&InstanceId) -> Option<Box<dyn Watch>> + Send + Sync>;

/// Settings of a [`FakeCloud`]; see [`FakeCloud::builder`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) max_size: u32,
    pub(crate) appear: Delay,
    pub(crate) boot: Delay,
    pub(crate) boot_failure_rate: f64,
    pub(crate) life: Option<Delay>,
    pub(crate) notice: Option<Duration>,
    pub(crate) delete: Delay,
    pub(crate) keep_deleted: Duration,
    pub(crate) stubborn: u32,
    pub(crate) latency: BTreeMap<Operation, Delay>,
    pub(crate) rate_limit: Option<(usize, Duration)>,
    pub(crate) running: u32,
    pub(crate) heartbeat: bool,
    pub(crate) hints: bool,
    pub(crate) tokio_clock: bool,
    pub(crate) connect: Option<Connect>,
    pub(crate) watch: Option<Watched>,
    pub(crate) fate_after: Duration,
}

// === impl Builder ===

impl Default for Builder {
    fn default() -> Self {
        Self {
            name: "build".to_owned(),
            seed: 0,
            max_size: 1000,
            appear: Delay::NONE,
            boot: Delay::NONE,
            boot_failure_rate: 0.0,
            life: None,
            notice: None,
            delete: Delay::NONE,
            keep_deleted: Duration::ZERO,
            stubborn: 0,
            latency: BTreeMap::new(),
            rate_limit: None,
            running: 0,
            heartbeat: true,
            hints: false,
            tokio_clock: false,
            connect: None,
            watch: None,
            fate_after: Duration::ZERO,
        }
    }
}

impl Builder {
    /// Name of the group; its identity is `fake/<name>`. Default `build`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Seed of every random choice. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Most instances that may exist at once; more are refused with [`GroupError::LimitReached`]. Default 1000.
    pub fn max_size(mut self, max_size: u32) -> Self {
        self.max_size = max_size;
        self
    }

    /// From an accepted request until the instance shows up in listings as creating. Default none.
    pub fn appear_delay(mut self, delay: impl Into<Delay>) -> Self {
        self.appear = delay.into();
        self
    }

    /// From showing up until running. Default none.
    pub fn boot_delay(mut self, delay: impl Into<Delay>) -> Self {
        self.boot = delay.into();
        self
    }

    /// Share of instances (0.0 to 1.0) that end in state timeout at the time when they should be running. Default 0.
    pub fn boot_failure_rate(mut self, rate: f64) -> Self {
        self.boot_failure_rate = rate;
        self
    }

    /// Instances die by themselves after this life time, counted from running. Default: they live for ever.
    pub fn sudden_death(mut self, life: impl Into<Delay>) -> Self {
        self.life = Some(life.into());
        self
    }

    /// Like [`sudden_death`](Self::sudden_death), with the instance listed as doomed for `notice` before its end.
    pub fn spot(mut self, life: impl Into<Delay>, notice: Duration) -> Self {
        self.life = Some(life.into());
        self.notice = Some(notice);
        self
    }

    /// From an accepted deletion until the instance is gone; meanwhile it is listed as deleting. Default none.
    pub fn delete_delay(mut self, delay: impl Into<Delay>) -> Self {
        self.delete = delay.into();
        self
    }

    /// For how long an instance that is gone is still listed, as deleted. Default not at all.
    pub fn keep_deleted(mut self, keep: Duration) -> Self {
        self.keep_deleted = keep;
        self
    }

    /// The first `times` deletions of each instance are accepted and have no effect. Default 0.
    pub fn ignore_deletions(mut self, times: u32) -> Self {
        self.stubborn = times;
        self
    }

    /// How long a call takes. The effect comes at the end of it. Default none.
    pub fn latency(mut self, operation: Operation, delay: impl Into<Delay>) -> Self {
        self.latency.insert(operation, delay.into());
        self
    }

    /// At most `calls` within any span of `per`, all operations together; more are throttled, with the time to wait.
    pub fn rate_limit(mut self, calls: usize, per: Duration) -> Self {
        self.rate_limit = Some((calls, per));
        self
    }

    /// So many instances are running from the start. Default 0.
    pub fn running(mut self, instances: u32) -> Self {
        self.running = instances;
        self
    }

    /// Whether the group says that heartbeats are worth calling. Default true.
    pub fn heartbeat(mut self, heartbeat: bool) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Whether [`changed`](fleeting::InstanceGroup::changed) gives hints. Default false, as with most clouds.
    pub fn hints(mut self, hints: bool) -> Self {
        self.hints = hints;
        self
    }

    /// Time also passes as tokio's clock does, which a test can pause. Default: only
    /// [`FakeCloud::advance`] moves time.
    pub fn tokio_clock(mut self) -> Self {
        self.tokio_clock = true;
        self
    }

    /// How `connect_info` answers for running instances, for example the address of a real server of the test.
    pub fn connect(
        mut self,
        connect: impl Fn(&InstanceId) -> Result<ConnectInfo, GroupError> + Send + Sync + 'static,
    ) -> Self {
        self.connect = Some(Arc::new(connect));
        self
    }

    /// How instances are asked what is announced for them. Default: they cannot be asked.
    pub fn watch(
        mut self,
        watch: impl Fn(&InstanceId) -> Option<Box<dyn Watch>> + Send + Sync + 'static,
    ) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// How long it takes to find out what became of an instance. Default none.
    pub fn fate_after(mut self, time: Duration) -> Self {
        self.fate_after = time;
        self
    }

    /// The cloud, at time zero.
    #[must_use]
    pub fn build(self) -> FakeCloud {
        FakeCloud::new(self)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("seed", &self.seed)
            .field("max_size", &self.max_size)
            .finish_non_exhaustive()
    }
}
