//! Caches in object storage: what is signed is what the clouds check, and jobs save and restore through it without a
//! credential.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod artifacts;
mod jobs;
mod s3;
mod signatures;
