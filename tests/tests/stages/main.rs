//! The stages of a job, as GitLab's users know them: what runs when, with which sources, and what is said about it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod after_script;
mod attempts;
mod flags;
mod hooks;
mod places;
mod shells;
mod sources;
mod submodules;
mod world;
