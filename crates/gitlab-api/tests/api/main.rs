//! The client against scripted servers.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod artifacts;
mod calls;
mod peer;
mod tls;
