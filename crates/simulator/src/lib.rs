//! Replays a trace of jobs through the scaler in virtual time, to compare scaling policies.
//!
//! The scaler is [`taskscaler_core::Core`] itself; the cloud ([`CloudModel`]) is a model with boot times, failures and prices.
//! [`compare`] takes several [`Setup`]s, a [`Trace`] and [`Surroundings`] and yields waiting times, instances, utilisation
//! and cost, beside what no policy can beat. The same inputs give the same report, byte for byte.
//!
//! ```
//! use drover_simulator::{Recipe, Setup, Surroundings, compare};
//! use taskscaler_core::{Config, Policy};
//!
//! let policy = Policy { idle_count: 5, preemptive_mode: Some(false), ..Policy::default() };
//! let scaler = Config { max_instances: 20, policies: vec![policy], ..Config::default() };
//! let warm = Setup { name: "warm".to_owned(), scaler, most_jobs: 100, ..Setup::default() };
//! let cold = Setup { name: "cold".to_owned(), scaler: Config { policies: vec![], ..warm.scaler.clone() }, ..warm.clone() };
//!
//! let trace = Recipe { jobs: 200, days: 1, ..Recipe::default() }.make();
//! let comparison = compare(&[warm, cold], &trace, &Surroundings::default());
//! assert!(comparison.text().contains("utilisation"));
//! assert!(comparison.html().starts_with("<!doctype html>"));
//! ```
//!
//! [`Base`] reads setups from configuration files, [`Trace::parse`] jobs from CSV or from what GitLab's jobs API answers, and
//! [`Recipe`] makes jobs up. [`play`] plays a scenario in words and says what is decided, and why.
//!
//! The crate reads no clock and no files, and does no network traffic. It does not simulate what a job does, failing health
//! checks, or other managers.

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

pub use cloud::{Billing, CloudModel, Price, Span, SpanError};
pub use generate::{Recipe, Shape};
pub use replay::{Outcome, Setup, Surroundings, replay};
pub use report::{Comparison, compare};
pub use scenario::{LANGUAGE, ScenarioError, play};
pub use setups::{Base, SetupError};
pub use taskscaler_core::Zone;
pub use trace::{Job, Trace, TraceError};
