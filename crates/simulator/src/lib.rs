//! Replays a trace of jobs through the scaler in virtual time.

mod bound;
mod chart;
mod cloud;
mod generate;
mod html;
mod random;
mod replay;
mod report;
mod scenario;
mod series;
mod setups;
mod trace;
mod words;
mod world;

pub use chrono_tz::Tz;
pub use cloud::{Billing, CloudModel, Price, Span, SpanError};
pub use generate::{Recipe, Shape};
pub use replay::{Outcome, Setup, Surroundings, replay};
pub use report::{Comparison, compare};
pub use scenario::{LANGUAGE, ScenarioError, play};
pub use setups::{Base, SetupError};
pub use trace::{Job, Trace, TraceError};
