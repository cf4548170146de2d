//! The one real clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use taskscaler_core::Now;
use tokio::time::Instant;

/// Gives the core its `now`. Monotonic time comes from tokio, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall: Wall,
}

#[derive(Debug, Clone, Copy)]
enum Wall {
    System,
    /// Wall time that moves with the monotonic clock only.
    Since(DateTime<Utc>),
}

impl Clock {
    /// The system's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self { start: Instant::now(), wall: Wall::System }
    }

    /// Wall time starts at `wall` and moves with tokio's time, which a test may have paused.
    #[must_use]
    pub fn starting_at(wall: DateTime<Utc>) -> Self {
        Self { start: Instant::now(), wall: Wall::Since(wall) }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = self.start.elapsed();
        let wall = match self.wall {
            Wall::System => Utc::now(),
            Wall::Since(start) => start + chrono::TimeDelta::from_std(mono).unwrap_or_default(),
        };
        Now { mono, wall }
    }

    /// The instant that the core calls `mono`.
    pub(crate) fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

// === helpers ===

/// Completes at this instant; never without one.
pub(crate) async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
