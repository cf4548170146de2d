//! Replays a trace of jobs through the scaler in virtual time.

mod bound;
mod cloud;
mod generate;
mod random;
mod replay;
mod series;
mod setups;
mod trace;
mod words;
mod world;

pub use cloud::{Billing, CloudModel, Price, Span, SpanError};
pub use generate::{Recipe, Shape};
pub use replay::{Outcome, Setup, Surroundings, replay};
pub use setups::{Base, SetupError};
pub use trace::{Job, Trace, TraceError};
