//! Auto Scaling groups as instance groups, against stand-ins for AWS.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail them")]

mod behaviour;
mod common;
mod conformance;
mod connect;
mod doctor;
mod kinds;
mod lease;
#[path = "../../../../tests/src/ports.rs"]
mod ports;
mod watch;
