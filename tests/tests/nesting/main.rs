//! Jobs in nested virtual machines: hosts are real SSH servers with a nesting daemon, machines are SSH servers with a user of their
//! own, reached through their host.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod cloud;
mod containers;
mod ending;
mod failures;
mod jobs;
mod restart;
mod world;
