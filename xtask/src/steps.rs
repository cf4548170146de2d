//! What each task does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::patience::patiently;
use crate::{dist, failures, helper, needs, purity, space};

/// What all of it needs on the disk, from nothing built to everything tested, in bytes. Measured: 5.2 GiB are built without data for
/// debuggers, as `.ci/run` does (7.5 GiB with them), 1.2 GiB are files of tests at one time, and sources take 1 GiB.
const ROOM: u64 = 8 << 30;

/// Runs one task by its name.
pub(crate) fn run(task: &str) -> Result<()> {
    match task {
        "ci" => {
            space::warn_below(ROOM);
            ["needs", "fmt", "lint", "purity", "test", "embed", "doc", "deny"].into_iter().try_for_each(run)
        }
        "needs" => timed(task, needs::install),
        "fmt" => cargo(task, &["fmt", "--all", "--check"], &[]),
        "lint" => {
            cargo(task, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], &[])
        }
        "purity" => timed(task, purity::check),
        "test" => {
            // With the tests, so that dependencies have the features that tests want of them and are compiled once.
            cargo(task, &["build", "--workspace", "--bins", "--tests"], &[])?;
            timed(task, || failures::run(&["test", "--workspace", "--no-fail-fast"]))
        }
        "embed" => timed(task, embed),
        "doc" => {
            cargo(task, &["doc", "--workspace", "--no-deps", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])
        }
        "deny" => timed(task, deny),
        "helper" => timed(task, helper::build),
        "dist" => timed(task, dist::build),
        unknown => bail!("no task is called `{unknown}`; `cargo xtask --help` lists them"),
    }
}

/// Prints to standard output, which is this program's user interface.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is the reader's choice, not a failure of the task.
    drop(writeln!(out, "{text}"));
}

/// Runs a program to its end; anything but success is an error.
pub(crate) fn program(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(name)
        .args(args)
        .envs(env.iter().copied())
        .status()
        .with_context(|| format!("could not start `{name}`"))?;
    if !status.success() {
        bail!("`{name} {}` ended with {status}", args.join(" "));
    }
    Ok(())
}

/// Whether a program is there and starts.
pub(crate) fn starts(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

fn cargo(task: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    timed(task, || program(env!("CARGO"), args, env))
}

/// Somebody else's crate that tests a policy builds and passes offline, with the versions that are here anyway.
fn embed() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace has a folder")?;
    let folder = root.join("fixtures/policy-test");
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).context("could not copy Cargo.lock")?;
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.to_str().context("a path that is text")?;
    program(env!("CARGO"), &["test", "--quiet", "--offline", "--manifest-path", manifest], &[])
}

fn timed(task: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    say(&format!("== {task}"));
    let start = Instant::now();
    work().with_context(|| format!("task `{task}` failed"))?;
    say(&format!("== {task}: ok in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// What other platforms need is looked at too, so it is fetched first: building here has not done that.
///
/// The advisory database is a git repository that many build machines cannot reach, so it is not asked here.
fn deny() -> Result<()> {
    let tools = Path::new("target/tools");
    let local = tools.join("bin/cargo-deny");
    let deny = if starts("cargo-deny") {
        "cargo-deny"
    } else {
        if !local.exists() {
            let root = tools.to_str().context("the path of the target folder is not UTF-8")?;
            // Unoptimised: it runs once, for a second.
            let version = ["--version", DENY_VERSION, "--locked", "--debug"];
            let install = [&["install", "cargo-deny"][..], &version, &["--quiet", "--root", root]].concat();
            patiently("installing cargo-deny", || program(env!("CARGO"), &install, &[]))?;
        }
        local.to_str().context("the path of the target folder is not UTF-8")?
    };
    fetch()?;
    program(deny, &["--offline", "check", "bans", "licenses", "sources"], &[])
}

/// Downloads every dependency that `Cargo.lock` names, so that no later step needs the network for one.
pub(crate) fn fetch() -> Result<()> {
    patiently("fetching dependencies", || program(env!("CARGO"), &["fetch", "--locked", "--quiet"], &[]))
}

const DENY_VERSION: &str = "0.20.2";
