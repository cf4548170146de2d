//! What a scaler says in the log: decisions when they change, and milestones of instances.

use std::fmt::Write as _;
use std::sync::Arc;

use taskscaler_core::{Notice, Report};

/// Speaks for one runner.
pub(crate) struct Voice {
    runner: Arc<str>,
    said: String,
    line: String,
    /// Instances and required change that were said last.
    figures: Option<(u32, i64)>,
}

impl Voice {
    pub(crate) fn new(runner: Arc<str>) -> Self {
        Self { runner, said: String::new(), line: String::new(), figures: None }
    }

    /// Logs a decision if its figures differ from the last ones, with the fields of GitLab Runner's line. What only moves
    /// slots and changes nothing about instances is for debugging.
    pub(crate) fn decision(&mut self, report: &Report) {
        let inputs = &report.inputs;
        let figures = Some((inputs.instance_count, report.wanted.required));
        let changed = figures != self.figures;
        if !changed && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        self.figures = figures;
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = write!(
            self.line,
            "instance_count:{},max_instance_count:{},acquired:{},unavailable_capacity:{},pending:{},reserved:{},\
             idle_count:{},scale_factor:{},scale_factor_limit:{},capacity_per_instance:{}",
            inputs.instance_count,
            inputs.max_instance_count.unwrap_or(0),
            inputs.acquired,
            inputs.unavailable_capacity,
            inputs.pending,
            inputs.reserved,
            inputs.idle_count,
            inputs.scale_factor.as_f64(),
            inputs.scale_factor_limit,
            inputs.capacity_per_instance,
        );
        if self.line == self.said {
            return;
        }
        std::mem::swap(&mut self.line, &mut self.said);
        let why = report.why.first().map(ToString::to_string).unwrap_or_default();
        let required = report.wanted.required;
        if changed {
            tracing::info!(runner = %self.runner, capacity_info = %self.said, required, %why, "required scaling change");
        } else {
            tracing::debug!(runner = %self.runner, capacity_info = %self.said, required, %why, "capacity");
        }
    }

    /// Logs one milestone.
    pub(crate) fn notice(&self, notice: Notice) {
        let runner = &self.runner;
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
