//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  cargo build --release -p drover -p gitlab-mock && cargo run --release -p drover-benches -- all
  drover-benches log --bin-dir target/release --runs 5
  drover-benches idle --idle-seconds 10
  drover-benches docker --samples 10 --docker-image alpine:latest
  drover-benches layout --bin-dir target/dist > target/dist/drover.order
  drover-benches against --against /usr/bin/gitlab-runner --runs 3";

/// Measures the manager process of a whole run, and shows the figures beside the goals.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What is measured
    #[arg(value_enum, default_value_t = Work::All)]
    pub(crate) work: Work,
    /// Folder of `drover` and `gitlab-mock`; by default that of this program
    #[arg(long, value_name = "FOLDER")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// How often cheap works are repeated; figures are medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Jobs of the latency work, in each mode of the server
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) samples: u32,
    /// Seconds over which an idle manager is watched
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) idle_seconds: u64,
    /// Engine of the docker work: the path of its socket
    #[arg(long, value_name = "FILE", default_value = "/var/run/docker.sock")]
    pub(crate) docker_socket: PathBuf,
    /// Image of the docker work, which the engine has; it needs a `sh`
    #[arg(long, value_name = "IMAGE", default_value = "alpine:latest")]
    pub(crate) docker_image: String,
    /// GitLab Runner's program, for the work `against`. Its `fleeting-plugin-static` must be in PATH
    #[arg(long, value_name = "PROGRAM", required_if_eq("work", "against"))]
    pub(crate) against: Option<PathBuf>,
}

/// A thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Everything
    All,
    /// 200 jobs, 10 and 50 at once
    Throughput,
    /// One job at a time
    Latency,
    /// A job log of 100 MiB
    Log,
    /// Nothing to do
    Idle,
    /// 50 jobs that sleep
    Sleeping,
    /// Jobs in containers, one at a time beside `docker run` of the same image, and 100 at once; not part of `all`, because it
    /// needs an engine
    Docker,
    /// Drover and GitLab Runner in turn, with jobs on a machine that both reach over SSH; not part of `all`, because it needs the
    /// latter, and OpenSSH's server
    Against,
    /// No figures: the names of the functions that a manager runs, for the linker (docs/performance.md); not part of `all`, because
    /// it needs valgrind
    Layout,
    /// One scaling decision over 10,000 instances and 100,000 claims
    Decision,
}

// === impl Work ===

impl Work {
    /// The works behind the word.
    pub(crate) fn each(self) -> Vec<Self> {
        match self {
            Self::All => {
                vec![Self::Throughput, Self::Latency, Self::Log, Self::Idle, Self::Sleeping, Self::Decision]
            }
            one @ (Self::Throughput
            | Self::Latency
            | Self::Log
            | Self::Idle
            | Self::Sleeping
            | Self::Docker
            | Self::Against
            | Self::Layout
            | Self::Decision) => {
                vec![one]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_is_every_work_once_that_needs_nothing_special() {
        let all = Work::All.each();
        let others = Work::value_variants()
            .iter()
            .filter(|work| !matches!(work, Work::All | Work::Docker | Work::Against | Work::Layout));
        assert!(others.clone().all(|work| all.contains(work)));
        assert_eq!(all.len(), others.count());
    }
}
