//! Running jobs in GitLab Runner's words.

use std::fmt::Write as _;

use manager::{JobLine, Jobs};

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobState {
    pub(crate) state: &'static str,
    pub(crate) stage: String,
    pub(crate) executor_stage: &'static str,
}

// === impl JobState ===

impl JobState {
    /// While the executor prepares a place there is no stage of the job itself.
    pub(crate) fn of(line: &JobLine) -> Self {
        let (state, stage) = match line.stage.as_str() {
            "" => ("pending", "prepare_executor"),
            stage => ("running", stage),
        };
        Self { state, stage: stage.to_owned(), executor_stage: "prepare" }
    }
}

/// One line for each job, in version 2 of GitLab Runner's list.
pub(crate) fn list(jobs: &Jobs) -> String {
    let mut text = String::new();
    jobs.for_each(|line| {
        let JobState { state, stage, executor_stage } = JobState::of(line);
        let duration = go_duration::format(line.since.elapsed());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "url={} state={state} stage={stage} executor_stage={executor_stage} duration={duration}",
            line.url
        );
    });
    text
}
