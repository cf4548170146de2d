//! The harness of the end-to-end tests: a GitLab (the mock), instances (local ones, or real OpenSSH servers), and between
//! them the manager under test, in this process or as the program that users run.
//!
//! ```no_run
//! use drover_tests::{Entry, Setup};
//! use gitlab_mock::JobBuilder;
//!
//! # async fn example() {
//! let world = Setup::new().runner(Entry::local("fleet").set("autoscaler.max_instances", 2)).start().await;
//! let job = world.enqueue(JobBuilder::new("hello").script(["echo hello"]));
//! world.finished(&job).await.succeeded().says("hello");
//! world.stop().await;
//! # }
//! ```
//!
//! [`Finished`] holds every job to what is promised of all jobs: one final state, a log that is complete and whose checksum
//! GitLab has verified, no secret in it. [`World::stop`] does the same for the manager: nothing may be left on the machine.
//! When a test fails, its world prints the ends of the job logs and the manager's log.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "what goes wrong here fails a test, which then shows all that is known"
)]

mod captured;
mod engine;
mod entry;
mod finished;
mod instances;
mod machine;
mod moto;
mod nested;
mod plain;
mod ports;
mod program;
mod project;
mod sshd;
mod visitor;
mod world;

pub use captured::Captured;
pub use engine::{Counted, Engine};
pub use entry::{Entry, Setup};
pub use finished::Finished;
pub use instances::{Instances, instance_archive};
pub use machine::{PATIENCE, eventually, memory_peak, processes_in, processes_with, within};
pub use moto::{Moto, python, python_environment};
pub use nested::{NESTED_PASSWORD, NESTED_USER, NEVER_BOOTS, NestedHost, OTHER_LOGIN};
pub use plain::plain;
pub use program::{Drover, Program, bin};
pub use project::{git, one_place, repository};
pub use sshd::Sshd;
pub use visitor::Visitor;
pub use world::World;

/// Makes a program of this script. A file that was written here would be busy while another program, which a test is just
/// starting, has copies of all open files.
///
/// # Panics
/// When it cannot be written.
pub fn make_program(path: &std::path::Path, script: &str) {
    let text = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(text.path(), script).expect("a temporary file can be written to");
    let installed = std::process::Command::new("install").arg(text.path()).arg(path).status();
    assert!(installed.expect("tests need coreutils").success(), "{} is made", path.display());
}

/// A port of the loopback interface at which nobody listens, for a program that cannot take one itself and say which.
#[must_use]
pub fn free_port() -> u16 {
    ports::free_port()
}
