//! Log lines on standard error, in the three forms that GitLab Runner has.

mod line;

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};

use config::{LogFormat, LogLevel};
use metrics::LogCounter;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use self::line::{Fields, Line, Style};

/// Targets of this workspace begin with it. What other crates have to say is shown from `warn` on.
const OURS: &str = "drover";

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub(crate) struct Logging(reload::Handle<Targets, Registry>);

/// Writes each event as one line with one call, so that lines of several threads do not mix.
struct Lines {
    style: Style,
}

// === impl Logging ===

impl Logging {
    /// Starts logging, and counting what is logged. Called once.
    pub(crate) fn start(level: LogLevel, format: LogFormat, counter: LogCounter) -> Self {
        let (gate, handle) = reload::Layer::new(targets(level));
        let style = match format {
            LogFormat::Runner => Style::Runner { colour: colour() },
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
        };
        let subscriber = Registry::default().with(gate).with(counter).with(Lines { style });
        // Only a second call could fail, and then logging works already.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Self(handle)
    }

    /// Logs at another level from now on.
    pub(crate) fn set_level(&self, level: LogLevel) {
        // Fails only when logging has ended, with the process.
        let _ = self.0.reload(targets(level));
    }
}

fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        // What ends the process is printed in any case.
        LogLevel::Fatal | LogLevel::Panic => LevelFilter::OFF,
    };
    Targets::new().with_default(ours.min(LevelFilter::WARN)).with_target(OURS, ours)
}

/// Colours are for terminals whose user does not refuse them (<https://no-color.org>).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

// === impl Lines ===

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new(self.style);
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        thread_local! {
            static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
        }
        let mut fields = Fields::new(self.style);
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.append(outer);
            }
        }
        let line = Line { level: *event.metadata().level(), fields: &fields, style: self.style };
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            line.write(chrono::Utc::now(), buffer);
            // Nobody is left to hear about a standard error that is gone.
            let _ = std::io::stderr().lock().write_all(buffer.as_bytes());
        });
    }
}
