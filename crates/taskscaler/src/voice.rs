//! What a scaler says of its decisions and of its instances: in the log when it changes, and in the diary that
//! `drover explain` shows.

use std::sync::{Arc, Mutex, PoisonError};

use fleeting::with_causes;
use status::{Diary, Kind, Moment, words};
use taskscaler_core::{Notice, Report, Why};

use crate::Clock;

/// Speaks for one runner.
pub(crate) struct Voice {
    runner: Arc<str>,
    clock: Clock,
    diary: Arc<Mutex<Diary>>,
    said: String,
    /// Instances and required change that were said last.
    figures: Option<(u32, i64)>,
    /// Reasons that the diary has and that still hold.
    holding: [bool; Why::NAMES.len()],
}

impl Voice {
    pub(crate) fn new(runner: Arc<str>, clock: Clock, diary: Arc<Mutex<Diary>>) -> Self {
        Self { runner, clock, diary, said: String::new(), figures: None, holding: Default::default() }
    }

    /// Logs a decision if its figures differ from the last ones, with the fields of GitLab Runner's line. What only moves
    /// slots and changes nothing about instances is for debugging.
    pub(crate) fn decision(&mut self, report: &Report) {
        self.note_reasons(report);
        let figures = Some((report.inputs.instance_count, report.wanted.required));
        let changed = figures != self.figures;
        if !changed && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        self.figures = figures;
        let line = words::capacity_info(&report.inputs);
        if line == self.said {
            return;
        }
        self.said = line;
        let (why, required) = (words::decided(report), report.wanted.required);
        if changed {
            tracing::info!(runner = %self.runner, capacity_info = %self.said, required, %why, "required scaling change");
        } else {
            tracing::debug!(runner = %self.runner, capacity_info = %self.said, required, %why, "capacity");
        }
    }

    /// Writes down launches, and what begins and ends to hold instances back.
    fn note_reasons(&mut self, report: &Report) {
        let mut holding = [false; Why::NAMES.len()];
        for why in &report.why {
            let begins = !self.holding[why.position()];
            // Every start begins without a listing, so that is not worth a line.
            holding[why.position()] = why.holds_back() && !matches!(why, Why::NoListing);
            // An open circuit is a milestone, which is written down by itself.
            if matches!(why, Why::CircuitOpen { .. } | Why::Probing { .. }) {
                continue;
            }
            if let Why::RemovedByOthers { .. } | Why::Churn { .. } = why {
                holding[why.position()] = true;
                if begins {
                    tracing::warn!(runner = %self.runner, "{why}");
                    self.note(Kind::Error, why.to_string());
                }
                continue;
            }
            if matches!(why, Why::Launching { .. }) || (holding[why.position()] && begins) {
                self.note(Kind::Decision, words::reason(why, report));
            }
        }
        let before = std::mem::replace(&mut self.holding, holding);
        for ((was, is), name) in before.into_iter().zip(holding).zip(Why::NAMES) {
            if was && !is {
                self.note(Kind::Decision, format!("over: {}", name.replace('_', " ")));
            }
        }
    }

    /// Writes down a call to the provider that failed.
    pub(crate) fn failed(&self, doing: &str, error: &fleeting::GroupError) {
        self.note(Kind::Error, format!("{doing}: {}", with_causes(error)));
    }

    /// The runner it speaks for.
    pub(crate) fn runner(&self) -> &str {
        &self.runner
    }

    pub(crate) fn note(&self, kind: Kind, text: impl Into<String>) {
        note(&self.diary, &self.clock, kind, text);
    }

    /// Logs one milestone.
    pub(crate) fn notice(&self, notice: Notice) {
        let runner = &self.runner;
        if let Some((kind, text)) = line(&notice) {
            self.note(kind, text);
        }
        match notice {
            Notice::Appeared { id, origin, after } => {
                tracing::debug!(%runner, instance = %id, %origin, ?after, "instance appeared");
            }
            Notice::Running { id, after } => {
                tracing::debug!(%runner, instance = %id, ?after, "instance is running")
            }
            Notice::Ready { id, after } => {
                tracing::info!(%runner, instance = %id, ?after, "instance is ready")
            }
            Notice::Marked { id, reason } => {
                tracing::info!(%runner, instance = %id, %reason, "instance marked for removal");
            }
            Notice::Announced { id, doom } => {
                let at = doom.at.map(|at| at.to_rfc3339());
                tracing::warn!(%runner, instance = %id, kind = %doom.kind, at, why = doom.why, "the end of an instance is announced");
            }
            Notice::UnexpectedlyRemoved { id, used, slots } => {
                let slots: Vec<String> = slots.iter().map(|(slot, key)| format!("{slot}:{key}")).collect();
                tracing::error!(%runner, instance = %id, used, slots = slots.join(","), subsystem = "taskscaler",
                    "instance unexpectedly removed");
            }
            Notice::Deleted { id, after, life } => {
                tracing::info!(%runner, instance = %id, ?after, ?life, "instance deleted");
            }
            Notice::RequestsLost { count } => {
                tracing::warn!(%runner, count, "requested instances did not appear in time");
            }
            Notice::CircuitOpened { until, failures, last } => {
                let until = until.to_rfc3339();
                tracing::error!(%runner, failures, until, %last, "instances keep failing: none is asked for until one is tried");
            }
            Notice::CircuitClosed => {
                tracing::info!(%runner, "an instance became ready again: instances are asked for as usual")
            }
            Notice::PolicySwitched { policy, until } => {
                let until = until.map_or_else(|| "further notice".to_owned(), |until| until.to_rfc3339());
                match policy {
                    Some(index) => tracing::info!(%runner, policy = index, until, "policy in force"),
                    None => tracing::warn!(%runner, until, "no policy matches: no idle capacity is kept"),
                }
            }
        }
    }
}

// === helpers ===

/// Writes down what happened.
pub(crate) fn note(diary: &Mutex<Diary>, clock: &Clock, kind: Kind, text: impl Into<String>) {
    diary.lock().unwrap_or_else(PoisonError::into_inner).add(clock.now().wall, kind, text);
}

/// What was written down, oldest first.
pub(crate) fn moments(diary: &Mutex<Diary>) -> Vec<Moment> {
    diary.lock().unwrap_or_else(PoisonError::into_inner).moments()
}

/// A milestone for the diary; nothing for those that lead up to others.
fn line(notice: &Notice) -> Option<(Kind, String)> {
    let seconds = |duration: &std::time::Duration| {
        go_duration::format(std::time::Duration::from_secs(duration.as_secs()))
    };
    Some(match notice {
        Notice::Appeared { .. } | Notice::Running { .. } => return None,
        Notice::Ready { id, after } => {
            (Kind::Instance, format!("{id} is ready, {} after it was first seen", seconds(after)))
        }
        Notice::Marked { id, reason } => (Kind::Decision, format!("removing {id}: {reason}")),
        Notice::Announced { id, doom } => {
            (Kind::Instance, format!("the cloud announces the end of {id}: {doom}"))
        }
        Notice::UnexpectedlyRemoved { id, used, slots } => (
            Kind::Error,
            format!("{id} was removed by somebody else after {used} jobs, {} of them running", slots.len()),
        ),
        Notice::Deleted { id, life, .. } => {
            (Kind::Instance, format!("{id} is gone, {} after it was first seen", seconds(life)))
        }
        Notice::RequestsLost { count } => {
            (Kind::Error, format!("{count} instances that were asked for did not appear in time"))
        }
        Notice::CircuitOpened { until, failures, last } => (
            Kind::Error,
            format!(
                "no instances are asked for until {} after {failures} failures in a row, last: {last}",
                until.to_rfc3339()
            ),
        ),
        Notice::CircuitClosed => {
            (Kind::Decision, "an instance became ready again: instances are asked for as usual".to_owned())
        }
        Notice::PolicySwitched { policy, until } => {
            let until = until.map_or_else(|| "further notice".to_owned(), |until| until.to_rfc3339());
            let text = match policy {
                Some(index) => format!("policy {} in force until {until}", index + 1),
                None => format!("no policy matches until {until}: the defaults apply"),
            };
            (Kind::Policy, text)
        }
    })
}
