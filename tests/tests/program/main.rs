//! `drover run` as its users have it: a process, with signals, memory and a sudden end.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod crash;
mod memory;
mod signals;
mod standalone;
