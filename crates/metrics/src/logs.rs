//! Counts log lines by level.

use std::sync::Arc;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::cells::Counter;
use crate::exposition::Exposition;
use crate::table::Id;

/// Lines at the levels from which on a person may have to act.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    warnings: Counter,
    errors: Counter,
}

/// Counts log lines by level: a layer beside the one that writes them. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct LogCounter(pub(crate) Arc<LogLines>);

impl<S: Subscriber> Layer<S> for LogCounter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => self.0.errors.inc(),
            Level::WARN => self.0.warnings.inc(),
            _ => {}
        }
    }
}

impl LogLines {
    pub(crate) fn show(&self, text: &mut Exposition) {
        // What GitLab Runner logs at these two ends the process.
        for level in ["panic", "fatal"] {
            text.process(Id::ErrorsTotal, &[level], 0);
        }
        text.process(Id::ErrorsTotal, &["error"], self.errors.get());
        text.process(Id::ErrorsTotal, &["warning"], self.warnings.get());
    }
}
