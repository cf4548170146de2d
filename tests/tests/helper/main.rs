//! Between the manager and an instance: the helper that gets there, the round trips of a job, and what nobody else may see.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod install;
mod relay;
mod round_trips;
mod secrets;
mod world;
