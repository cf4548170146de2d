//! What the tests of this program share.

use drover_tests::{Entry, Finished, World, one_place};

pub(crate) use drover_tests::{git, repository};

/// One place for one job at a time, so that each job finds what the one before it has left.
pub(crate) async fn world() -> World {
    with(|entry| entry).await
}

/// The same with a changed entry.
pub(crate) async fn with(change: impl Fn(Entry) -> Entry) -> World {
    one_place(change).await
}

/// Fails unless these lines are in the log in this order.
#[track_caller]
pub(crate) fn in_order(job: &Finished, lines: &[&str]) {
    let mut rest = job.log.lines();
    for line in lines {
        assert!(rest.any(|found| found == *line), "`{line}` is not where it should be in:\n{}", job.log);
    }
}
