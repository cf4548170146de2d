//! Auto Scaling groups whose instances are real OpenSSH servers, with a manager that scales them for GitLab's jobs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod cloud;
mod commands;
mod credentials;
mod doctor;
mod examples;
mod idle;
mod interruption;
mod kinds;
mod leases;
mod moto;
mod scaling;
mod trouble;
