//! What the tests of this program share.

use std::sync::atomic::{AtomicU32, Ordering};

use drover_tests::{Entry, Finished, Setup, Sshd, World};
use gitlab_mock::{Job, JobBuilder};

/// A world with two runners: the first has local instances, the second one real SSH server, both have room for many jobs.
pub(crate) async fn both(sshd: &Sshd) -> World {
    both_with(sshd, |entry| entry).await
}

/// The same with changed entries.
pub(crate) async fn both_with(sshd: &Sshd, change: impl Fn(Entry) -> Entry) -> World {
    let local = Entry::local("local").set("autoscaler.capacity_per_instance", 10);
    let ssh = Entry::machines("ssh", [sshd]).set("autoscaler.capacity_per_instance", 20);
    Setup::new().set("concurrent", 30).runner(change(local)).runner(change(ssh)).start().await
}

/// Puts a job into every queue.
pub(crate) fn everywhere(world: &World, job: &JobBuilder) -> Vec<Job> {
    world.runners.iter().map(|runner| world.gitlab.enqueue(runner, job.clone())).collect()
}

/// Waits for all these jobs, and checks each.
pub(crate) async fn check(world: &World, jobs: &[Job], check: impl Fn(Finished) -> Finished) {
    for job in jobs {
        check(world.finished(job).await);
    }
}

/// A command that lasts as long as no test does, unlike any other on this machine.
pub(crate) fn endless() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("sleep {}.{}", 100_000 + std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
