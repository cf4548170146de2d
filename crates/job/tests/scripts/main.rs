//! Scripts run for real: in bash and dash, against real git repositories.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod context;
mod frame;
mod helper;
mod pwsh;
mod snapshots;
mod sources;
mod submodules;
mod support;
mod variables;
