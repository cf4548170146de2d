//! What signals and changes of the file do to a running manager.

use std::io;
use std::time::Duration;

use manager::{Control, Ended, Manager, Shutdown, View, control};
use metrics::Metrics;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::file::Watched;
use crate::logging::Logging;

/// How often the file is looked at, as in GitLab Runner.
const LOOK: Duration = Duration::from_secs(3);

/// The signals that are listened for.
pub(super) struct Steering {
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

/// How a run ended.
pub(super) enum Ending {
    /// The manager came to its end.
    Stopped(Ended),
    /// It was given no time to, by this signal.
    AtOnce(&'static str),
}

// === impl Steering ===

impl Steering {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Runs the manager until it has ended or must not go on.
    pub(super) async fn run(
        mut self,
        manager: Manager,
        file: &mut Watched,
        logging: &Logging,
        metrics: &Metrics,
    ) -> Ending {
        let (control, controlled) = control();
        let view = manager.view();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = std::pin::pin!(manager.run(controlled));
        loop {
            let asked = tokio::select! {
                ended = &mut running => return Ending::Stopped(ended),
                _ = self.quit.recv() => {
                    control.stop_gracefully();
                    continue;
                }
                // The names are Go's; job logs and GitLab Runner's users know them.
                _ = self.terminate.recv() => match stop(&control, "terminated") {
                    Some(ending) => return ending,
                    None => continue,
                },
                _ = self.interrupt.recv() => match stop(&control, "interrupt") {
                    Some(ending) => return ending,
                    None => continue,
                },
                _ = self.user.recv() => {
                    list(&view);
                    continue;
                }
                _ = self.hangup.recv() => true,
                _ = look.tick() => false,
            };
            if control.state() == Shutdown::None
                && let Some(loaded) = file.poll(asked, logging, metrics)
            {
                control.reload(loaded);
            }
        }
    }
}

/// The first signal stops the jobs, the second one the process.
fn stop(control: &Control, signal: &'static str) -> Option<Ending> {
    match control.state() {
        Shutdown::None | Shutdown::Graceful => {
            control.stop_forcefully(signal);
            None
        }
        Shutdown::Forceful(_) => Some(Ending::AtOnce(signal)),
    }
}

fn list(view: &View) {
    let jobs = view.jobs.list();
    tracing::info!(jobs = jobs.len(), "jobs that run");
    for line in jobs {
        let running = line.since.elapsed();
        tracing::info!(
            job = line.job,
            runner = line.runner,
            place = line.place,
            stage = line.stage,
            ?running,
            "running"
        );
    }
}
