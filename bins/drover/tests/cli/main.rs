//! The program as its users have it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod check;
mod completion;
mod demo;
mod doctor;
mod helper;
mod list;
mod register;
mod run;
mod simulate;
mod support;
mod unregister;
mod verify;
