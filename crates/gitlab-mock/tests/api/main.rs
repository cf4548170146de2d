//! The mock as a runner sees it, over HTTP.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod artifacts;
mod faults;
mod git;
mod load;
mod logs;
mod payload;
mod queue;
mod runners;
mod support;
mod updates;
