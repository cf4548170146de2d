//! Local instances with all their parts real: processes, keys, SSH.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic as tests do")]

mod common;
mod conformance;
mod connector;
mod life;
mod ssh;
