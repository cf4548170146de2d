//! Measures the manager of a whole run: `cargo run --release -p drover-benches -- all`.
//!
//! Every work starts `gitlab-mock serve` and `drover run` as processes of their own, talks to them over loopback, and looks
//! at the manager process from outside, through `/proc`. Figures are not tests: a goal that is missed is shown, and the
//! exit code stays 0.

mod arguments;
mod machine;
mod mock;
mod process;
mod scene;
mod statistics;
mod table;
mod works;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::arguments::{Arguments, Work};
use crate::scene::Programs;
use crate::table::Table;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let mut table = Table::default();
    // The decision is measured in this process, so it alone needs no other program.
    let programs = match arguments.work {
        Work::Decision => None,
        Work::All
        | Work::Throughput
        | Work::Latency
        | Work::Log
        | Work::Idle
        | Work::Sleeping
        | Work::Docker
        | Work::Against
        | Work::Layout => Some(Programs::find(arguments.bin_dir.as_deref())?),
    };
    if let (Work::Against, Some(programs), Some(upstream)) = (arguments.work, &programs, &arguments.against) {
        let table = works::against::measure(programs, upstream, arguments).await?;
        let mut stdout = std::io::stdout().lock();
        return writeln!(stdout, "{table}").context("failed to print the table");
    }
    if let (Work::Layout, Some(programs)) = (arguments.work, &programs) {
        let names = works::layout::names(programs).await?;
        return std::io::stdout().lock().write_all(names.as_bytes()).context("failed to print the names");
    }
    for work in arguments.work.each() {
        let before = process::load_average();
        say(&format!("measuring {work:?} (load {before})"));
        let rows = match (work, &programs) {
            (Work::Decision, _) => Ok(works::decision::measure()),
            (Work::Throughput, Some(programs)) => works::throughput::measure(programs, arguments.runs).await,
            (Work::Latency, Some(programs)) => works::latency::measure(programs, arguments.samples).await,
            (Work::Log, Some(programs)) => works::log::measure(programs, arguments.runs).await,
            (Work::Idle, Some(programs)) => works::idle::measure(programs, arguments.idle_seconds).await,
            (Work::Sleeping, Some(programs)) => works::sleeping::measure(programs).await,
            (Work::Docker, Some(programs)) => works::docker::measure(programs, arguments).await,
            (Work::All | Work::Against | Work::Layout, _) | (_, None) => Ok(Vec::new()),
        };
        let load = format!("{before} - {}", process::load_average());
        match rows.with_context(|| format!("failed to measure {work:?}")) {
            Ok(rows) => table.add(rows, &load),
            Err(error) => say(&format!("error: {error:#}")),
        }
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{table}").context("failed to print the table")?;
    Ok(())
}

/// Progress goes to standard error, so that the table can be redirected.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
