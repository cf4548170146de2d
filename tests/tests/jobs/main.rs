//! What one job does, from its script to GitLab's page: on local instances, and over SSH on real OpenSSH servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail them")]

mod cancel;
mod credentials;
mod document;
mod limits;
mod output;
mod page;
mod results;
mod shells;
mod sources;
mod timeouts;
mod variables;
mod world;
