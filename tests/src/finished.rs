//! A job that has ended, and what holds for every one.

use gitlab_mock::{Job, JobState, JobView};

use crate::plain::plain;

/// A job that has ended. Methods fail the test, showing the log, when the job is not as they say.
#[derive(Debug)]
pub struct Finished {
    /// GitLab's view of it.
    pub view: JobView,
    /// Its log, without timestamps, sections and colours.
    pub log: String,
    /// Its log as it was sent.
    pub raw: Vec<u8>,
}

// === impl Finished ===

impl Finished {
    /// Checks what is promised for every job.
    ///
    /// # Panics
    /// When a promise is broken.
    #[track_caller]
    pub(crate) fn check(job: &Job) -> Self {
        let raw = job.log();
        let finished = Self { view: job.view(), log: plain(&String::from_utf8_lossy(&raw)), raw };
        let view = &finished.view;
        let finals = view.history.iter().filter(|transition| transition.state.is_final()).count();
        finished.hold(finals == 1, "has exactly one final state");
        finished.hold(job.leaked_secrets().is_empty(), "has no secret in its log");
        if !view.ended_by_server {
            finished.hold(view.checksum_verified, "has a log whose checksum was verified");
        }
        finished
    }

    /// It succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.hold(self.view.state == JobState::Success, "succeeded");
        self.ends_with("Job succeeded")
    }

    /// It failed for this reason, with this exit code.
    #[track_caller]
    pub fn failed(self, reason: &str, exit_code: Option<i64>) -> Self {
        self.hold(self.view.state == JobState::Failed, "failed");
        let (found, code) =
            (self.view.failure_reason.as_deref(), self.view.exit_code.filter(|&code| code != 0));
        self.hold(
            (found, code) == (Some(reason), exit_code),
            &format!("failed with {reason}, {exit_code:?}"),
        );
        if !self.view.ended_by_server {
            let last = self.last_line();
            self.hold(last.starts_with("ERROR: Job failed"), "says that it failed");
        }
        self
    }

    /// It was cancelled, and the runner has brought it to its end.
    #[track_caller]
    pub fn canceled(self) -> Self {
        self.hold(self.view.state == JobState::Canceled, "was canceled");
        self.ends_with("ERROR: Job failed: canceled")
    }

    /// Its log contains this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        self.hold(self.log.contains(text), &format!("says `{text}`"));
        self
    }

    /// Its log does not contain this text.
    #[track_caller]
    pub fn says_not(self, text: &str) -> Self {
        self.hold(!self.log.contains(text), &format!("does not say `{text}`"));
        self
    }

    /// Its log has a line of exactly this text.
    #[track_caller]
    pub fn has_line(self, line: &str) -> Self {
        self.hold(self.log.lines().any(|found| found == line), &format!("has the line `{line}`"));
        self
    }

    /// Its log has no line of exactly this text. Commands are echoed with a dollar sign, so their output is another line.
    #[track_caller]
    pub fn lacks_line(self, line: &str) -> Self {
        self.hold(self.log.lines().all(|found| found != line), &format!("lacks the line `{line}`"));
        self
    }

    /// This is the last line of its log.
    #[track_caller]
    pub fn ends_with(self, line: &str) -> Self {
        let last = self.last_line();
        self.hold(last == line, &format!("ends with `{line}`"));
        self
    }

    /// The number of lines of exactly this text.
    #[must_use]
    pub fn count(&self, line: &str) -> usize {
        self.log.lines().filter(|found| *found == line).count()
    }

    fn last_line(&self) -> &str {
        self.log.trim_end().rsplit('\n').next().unwrap_or_default()
    }

    #[track_caller]
    fn hold(&self, holds: bool, what: &str) {
        let Self { view, log, .. } = self;
        let shown = tail(log, 6000);
        assert!(
            holds,
            "it does not hold that job {} ({}) {what}: {}, {:?}, exit code {:?}, {view:?}\nlog:\n{shown}",
            view.id, view.name, view.state, view.failure_reason, view.exit_code
        );
    }
}

/// The last `len` bytes or a little less.
pub(crate) fn tail(text: &str, len: usize) -> &str {
    let mut start = text.len().saturating_sub(len);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
