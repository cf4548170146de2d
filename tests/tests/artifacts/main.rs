//! What jobs leave and find: artifacts and caches as GitLab's users know them, moved by the real helper beside each job, on
//! a real OpenSSH server. Caches in object storage have tests of their own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail them")]

mod caches;
mod downloads;
mod formats;
mod selection;
mod uploads;
mod world;
