//! The mock as a runner sees it, over HTTP.

mod artifacts;
mod faults;
mod git;
mod logs;
mod payload;
mod queue;
mod runners;
mod support;
mod updates;
