//! What the server makes of a runner's updates and log patches.

use bytes::Bytes;
use http::StatusCode;

use super::JobState;
use super::record::{Inner, JobRecord};
use crate::violation::Rule;

/// Calls that a runner may still make after the server has ended a job: what was under way, and the final sequence.
const CALLS_AFTER_END: u32 = 4;

/// `PUT jobs/{id}`, decoded.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) state: Option<String>,
    pub(crate) failure_reason: Option<String>,
    pub(crate) checksum: Option<String>,
    pub(crate) bytesize: Option<u64>,
    pub(crate) exit_code: Option<i64>,
}

/// `PATCH jobs/{id}/trace`, decoded.
#[derive(Debug)]
pub(crate) struct Patch {
    pub(crate) start: u64,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) len: u64,
}

/// A rule that a call broke, and how.
pub(crate) type Breach = (Rule, String);

/// What a call is answered.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) status: StatusCode,
    pub(crate) state: JobState,
    /// Size of the log after the call.
    pub(crate) log_bytes: u64,
    pub(crate) breaches: Vec<Breach>,
    /// Whether the call took the job from given to running.
    pub(crate) confirmed: bool,
}

// === impl JobRecord ===

impl JobRecord {
    /// Whether calls for the job are served; if not, what rule the call breaks, if any.
    pub(crate) fn check_running(&self, is_update: bool) -> Result<(), (JobState, Option<Breach>)> {
        self.update(|inner, _| inner.check_running(is_update).map_err(|breach| (inner.state, breach)))
    }

    pub(crate) fn take_update(&self, update: &Update) -> Decision {
        self.update(|inner, now| {
            inner.heard_at = now;
            let mut breaches = Vec::new();
            let before = inner.state;
            let status = inner.take_update(update, now, &self.config().failure_reasons, &mut breaches);
            match (update.state.as_deref(), status == StatusCode::OK) {
                (Some("running"), true) => inner.calls.keep_alives += 1,
                (Some("success" | "failed"), _) => inner.calls.final_updates += 1,
                (_, true) => {}
                (_, false) => inner.calls.updates_refused += 1,
            }
            let confirmed = before == JobState::Given && inner.state == JobState::Running;
            inner.decision(status, breaches, confirmed)
        })
    }

    pub(crate) fn take_patch(&self, patch: &Patch) -> Decision {
        self.update(|inner, now| {
            inner.heard_at = now;
            let mut breaches = Vec::new();
            let status = inner.take_patch(patch, now, self.config().max_log_bytes, &mut breaches);
            match status {
                StatusCode::ACCEPTED => inner.calls.patches += 1,
                _ => inner.calls.patches_refused += 1,
            }
            inner.decision(status, breaches, false)
        })
    }
}

// === impl Inner ===

impl Inner {
    fn decision(&self, status: StatusCode, breaches: Vec<Breach>, confirmed: bool) -> Decision {
        Decision { status, state: self.state, log_bytes: self.log.len(), breaches, confirmed }
    }

    /// Uses up one excuse for a call that repeats something.
    fn excuse(&mut self) -> bool {
        let excused = self.excuses > 0;
        self.excuses = self.excuses.saturating_sub(1);
        excused
    }

    fn check_running(&mut self, is_update: bool) -> Result<(), Option<Breach>> {
        match self.state {
            JobState::Running | JobState::Canceling => return Ok(()),
            // An update confirms the job; anything else has to wait for that.
            JobState::Given if is_update => return Ok(()),
            JobState::Queued
            | JobState::Given
            | JobState::Success
            | JobState::Failed
            | JobState::Canceled => {}
        }
        if is_update {
            self.calls.updates_refused += 1;
        } else {
            self.calls.patches_refused += 1;
        }
        let breach = match self.state {
            JobState::Given => {
                Some((Rule::NotRunning, "the job was not confirmed with state=running".to_owned()))
            }
            JobState::Queued if self.times_given > 0 => None,
            JobState::Queued => Some((Rule::NotRunning, "the job was never given to a runner".to_owned())),
            JobState::Running | JobState::Canceling => None,
            JobState::Success | JobState::Failed | JobState::Canceled if self.ended_by_server => {
                self.calls_after_end += 1;
                let count = self.calls_after_end;
                (count > CALLS_AFTER_END)
                    .then(|| (Rule::NotRunning, format!("{count} calls after the server ended the job")))
            }
            JobState::Success | JobState::Failed | JobState::Canceled => {
                let rule = if is_update { Rule::UpdateAfterFinal } else { Rule::NotRunning };
                (!self.excuse()).then(|| (rule, format!("the job is {} already", self.state)))
            }
        };
        Err(breach)
    }

    fn take_update(
        &mut self,
        update: &Update,
        now: std::time::Duration,
        known_reasons: &[String],
        breaches: &mut Vec<Breach>,
    ) -> StatusCode {
        let state = update.state.as_deref().unwrap_or("");
        if self.state == JobState::Given {
            return self.take_confirmation(state, now, breaches);
        }
        let target = match state {
            "running" => {
                self.check_keep_alive(update, breaches);
                return StatusCode::OK;
            }
            "success" => JobState::Success,
            "failed" => JobState::Failed,
            other => {
                breaches.push((Rule::BadValue, format!("`state` is `{other}`")));
                return StatusCode::BAD_REQUEST;
            }
        };
        self.check_result(target, update, known_reasons, breaches);
        if let Some(status) = self.check_log(update, breaches) {
            return status;
        }
        if self.final_updates_delayed > 0 {
            self.final_updates_delayed -= 1;
            self.announced = Some(target);
            return StatusCode::ACCEPTED;
        }
        if target == JobState::Failed {
            self.failure_reason =
                Some(update.failure_reason.clone().unwrap_or_else(|| "unknown_failure".to_owned()));
            self.exit_code = update.exit_code;
        }
        let canceled = self.state == JobState::Canceling;
        self.enter(if canceled { JobState::Canceled } else { target }, now);
        StatusCode::OK
    }

    /// The second phase of a job that was given in two: only `running` confirms it, `pending` keeps it waiting.
    fn take_confirmation(
        &mut self,
        state: &str,
        now: std::time::Duration,
        breaches: &mut Vec<Breach>,
    ) -> StatusCode {
        match state {
            "running" => {
                self.enter(JobState::Running, now);
                StatusCode::OK
            }
            "pending" => StatusCode::OK,
            other => {
                breaches.push((Rule::NotRunning, format!("state `{other}` before the job was confirmed")));
                StatusCode::BAD_REQUEST
            }
        }
    }

    /// The runner's log is at least as long as the server's.
    fn check_keep_alive(&mut self, update: &Update, breaches: &mut Vec<Breach>) {
        let held = self.log.len();
        if let Some(size) = update.bytesize.filter(|&size| size < held) {
            breaches.push((
                Rule::BadValue,
                format!("`output.bytesize` is {size}, the server has {held} already"),
            ));
        }
        if self.announced.is_some() {
            breaches
                .push((Rule::BadValue, "`state` is `running` after a final state was announced".to_owned()));
        }
    }

    fn check_result(
        &self,
        target: JobState,
        update: &Update,
        known_reasons: &[String],
        breaches: &mut Vec<Breach>,
    ) {
        if let Some(announced) = self.announced.filter(|&announced| announced != target) {
            breaches
                .push((Rule::BadValue, format!("final state `{target}` after `{announced}` was announced")));
        }
        let reason = update.failure_reason.as_deref();
        if target == JobState::Success && (reason.is_some() || update.exit_code.is_some()) {
            breaches.push((Rule::BadValue, "success with a failure reason or an exit code".to_owned()));
        }
        let always = ["script_failure", "runner_system_failure", "job_execution_timeout"];
        match reason {
            None if target == JobState::Failed => {
                breaches.push((Rule::MissingField, "failed without `failure_reason`".to_owned()));
            }
            Some(reason)
                if !always.contains(&reason) && !known_reasons.iter().any(|known| known == reason) =>
            {
                breaches.push((Rule::BadValue, format!("failure reason `{reason}` was not offered")));
            }
            Some(_) | None => {}
        }
    }

    /// Compares size and checksum with the log. A mismatch throws the log away and asks for all of it.
    fn check_log(&mut self, update: &Update, breaches: &mut Vec<Breach>) -> Option<StatusCode> {
        for (feature, present, member) in [
            ("trace_checksum", update.checksum.is_some(), "output.checksum"),
            ("trace_size", update.bytesize.is_some(), "output.bytesize"),
        ] {
            if !present && self.features.contains(feature) {
                breaches.push((Rule::MissingField, format!("final update without `{member}`")));
            }
        }
        let (held, checksum) = (self.log.len(), self.log.checksum());
        let size_differs = update.bytesize.is_some_and(|size| size != held);
        let checksum_differs = update.checksum.as_ref().is_some_and(|sent| *sent != checksum);
        if !size_differs && !checksum_differs {
            self.checksum_verified = update.checksum.is_some() && update.bytesize.is_some();
            return None;
        }
        if !self.log.is_corrupted() {
            breaches.push((
                Rule::TraceMismatch,
                format!(
                    "final update says {:?} bytes with {:?}, the server has {held} bytes with {checksum}",
                    update.bytesize, update.checksum
                ),
            ));
        }
        self.log.reset();
        self.log_resets += 1;
        Some(StatusCode::PRECONDITION_FAILED)
    }

    fn take_patch(
        &mut self,
        patch: &Patch,
        now: std::time::Duration,
        limit: Option<u64>,
        breaches: &mut Vec<Breach>,
    ) -> StatusCode {
        let held = self.log.len();
        if patch.start != held {
            if !self.excuse() {
                let rule = if patch.start > held { Rule::TraceGap } else { Rule::TraceOverlap };
                breaches.push((rule, format!("patch starts at {}, the log has {held} bytes", patch.start)));
            }
            return StatusCode::RANGE_NOT_SATISFIABLE;
        }
        if limit.is_some_and(|limit| held + patch.len > limit) {
            self.end_by_server(JobState::Failed, Some("trace_size_exceeded"), now);
            return StatusCode::FORBIDDEN;
        }
        for chunk in &patch.chunks {
            self.log.append(chunk);
        }
        self.first_log_at.get_or_insert(now);
        StatusCode::ACCEPTED
    }
}
