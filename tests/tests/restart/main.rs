//! Managers that die and start again, over a group of instances that lives on: the program as users run it, an Auto Scaling
//! group whose instances are real OpenSSH servers, and `kill -9`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

#[path = "../aws/cloud.rs"]
#[expect(dead_code, reason = "other tests with this cloud use the rest")]
mod cloud;
mod lives;
mod state;
mod world;
