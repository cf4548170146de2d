//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  Serve until interrupted; put jobs in over HTTP:
    gitlab-mock serve --runner-token glrt-demo
    curl -d '{\"count\": 3, \"job\": {\"name\": \"hello\", \"script\": [\"echo hello\"]}}' localhost:8080/mock/jobs

  A load test of a thousand jobs, which fails when a job is lost or the protocol is broken:
    gitlab-mock serve --runner-token glrt-load --jobs 1000 --script 'sleep 1' --keep-logs tail \\
        --exit-when-done --deadline 600 --report out.json

  Jobs that check out a repository of this machine:
    gitlab-mock serve --runner-token glrt-demo --repo demo/app=./app --jobs 1 --script 'ls -l'

  Jobs, faults and outages on a timetable:
    gitlab-mock serve --runner-token glrt-demo --scenario outage.toml --exit-when-done

  Break things while it runs:
    curl -d '{\"action\": {\"status\": {\"code\": 503}}, \"endpoints\": [\"patch_trace\"], \"times\": 5}' \\
        localhost:8080/mock/faults
    curl -d '{\"seconds\": 10}' localhost:8080/mock/outage
    curl -X POST 'localhost:8080/mock/jobs/1/cancel?force=true'

  Look at it:
    curl localhost:8080/mock/summary      curl localhost:8080/mock/violations
    curl localhost:8080/mock/jobs/1       curl localhost:8080/mock/jobs/1/log

Exit codes with --exit-when-done: 0 all jobs ended and no violation; 1 violations, lost or unfinished jobs;
2 the server could not run.";

/// A standalone server of GitLab's runner API, for demonstrations and load tests.
///
/// It gives jobs to runners, takes their logs, results and artifacts, serves repositories to their jobs, refuses what
/// GitLab would refuse, and writes down every breach of the protocol.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log every violation and connection problem to standard error as it happens, and more
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API
    #[command(after_help = EXAMPLES)]
    Serve(Box<Serve>),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on; port 0 takes a free one, which is printed
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Address under which runners and jobs reach this server, if it is another one
    #[arg(long, value_name = "URL")]
    pub(crate) external_url: Option<String>,
    /// Token of a runner; can be given more than once
    #[arg(long = "runner-token", value_name = "TOKEN", required = true)]
    pub(crate) runner_tokens: Vec<String>,
    /// Put so many jobs into the queue at the start; they are dealt out to the runners in turn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) jobs: usize,
    /// A line of the script of these jobs; can be given more than once
    #[arg(long = "script", value_name = "LINE", default_value = "echo hello")]
    pub(crate) script: Vec<String>,
    /// Timeout of these jobs in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) job_timeout: u64,
    /// Jobs, faults and outages on a timetable, as TOML or JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// `X-GitLab-Trace-Update-Interval` in whole seconds; 0 leaves it out
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub(crate) trace_interval: u64,
    /// How long a request for a job is held while its queue does not change, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "50", value_parser = seconds)]
    pub(crate) long_poll: Duration,
    /// Answer a held request with the job when one comes, where Workhorse makes the runner ask again
    #[arg(long)]
    pub(crate) dispatch_held: bool,
    /// Drop a running job from which nothing was heard for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) stale_after: Option<Duration>,
    /// A repository for jobs to check out, copied from a directory. The jobs of --jobs check out the first one
    #[arg(long = "repo", value_name = "PROJECT=DIRECTORY")]
    pub(crate) repositories: Vec<RepositoryArgument>,
    /// How much of each log is kept
    #[arg(long, value_enum, default_value_t = KeepLogs::Full)]
    pub(crate) keep_logs: KeepLogs,
    /// Write summary, jobs and violations to this file at the end, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// End when every job has ended; the exit code says whether all went well
    #[arg(long)]
    pub(crate) exit_when_done: bool,
    /// With --exit-when-done: give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "exit_when_done")]
    pub(crate) deadline: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepLogs {
    /// Every byte
    Full,
    /// The last 64 KiB; size and checksum still cover all of it
    Tail,
}

/// `namespace/project=directory`.
#[derive(Debug, Clone)]
pub(crate) struct RepositoryArgument {
    pub(crate) project: String,
    pub(crate) directory: PathBuf,
}

// === impl RepositoryArgument ===

impl FromStr for RepositoryArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (project, directory) =
            text.split_once('=').ok_or("a repository is given as namespace/project=directory")?;
        Ok(Self { project: project.to_owned(), directory: directory.into() })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
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
    fn seconds_may_have_a_fraction_and_no_sign() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err());
    }
}
