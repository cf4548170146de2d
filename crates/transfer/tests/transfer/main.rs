//! The commands of the helper, with real archivers, GitLab's mock and a cache server.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod archives;
mod artifacts;
mod cache;
mod flags;
mod hostile;
mod support;
