//! `drover demo`.

use std::path::PathBuf;

use clap::Args;
use demo::{DemoError, DemoOptions};

use crate::failure::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  drover demo
  drover demo --kill-instance                what becomes of a job whose instance dies
  drover demo --docker                       jobs in containers, on the engine of this machine
  drover demo --plain --jobs 100 --json -    events on standard error, figures on standard output";

/// Watch jobs arrive, instances appear, run them and go away: without GitLab, cloud or root.
///
/// The manager, git, SSH and the jobs are real; GitLab is a strict stand-in, and instances are processes of this machine
/// that listen on loopback only. It takes about a minute, needs `git`, and leaves nothing behind. Fails if any job has not
/// got exactly the end that was meant for it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArguments {
    /// How many jobs arrive.
    #[arg(long, short, value_name = "COUNT", default_value_t = DemoOptions::default().jobs)]
    jobs: usize,
    /// Kill one instance under its job.
    #[arg(long)]
    kill_instance: bool,
    /// Run the jobs in containers of this machine's Docker engine, which is reached through the instances; it is the one that
    /// `DOCKER_HOST` names, or the usual one. The image needs a `sh`.
    #[arg(long, value_name = "IMAGE", num_args = 0..=1, default_missing_value = "alpine:latest")]
    docker: Option<String>,
    /// One line per event in place of the live picture, also on a terminal.
    #[arg(long)]
    plain: bool,
    /// Write the figures as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the picture of the busiest moment: as SVG if the name ends in `.svg`, else as text.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Decides which jobs there are and how long they take.
    #[arg(long, value_name = "NUMBER", default_value_t = DemoOptions::default().seed)]
    seed: u64,
}

/// Runs the demonstration to its end.
pub(crate) fn demo(options: DemoArguments) -> Result<Exit, Failure> {
    let DemoArguments { jobs, kill_instance, docker, plain, json, picture, seed } = options;
    let options = DemoOptions { jobs, kill_instance, plain, json, picture, seed, program: None, docker };
    let runtime = tokio::runtime::Runtime::new()?;
    match runtime.block_on(demo::run(options)) {
        Ok(_) => Ok(Exit::Success),
        Err(error @ DemoError::NoJobs) => Err(Failure::usage(error)),
        Err(error @ DemoError::NoGit { .. }) => Err(Failure::from(error)
            .hint("install git; some systems have `git http-backend` in a package of its own")),
        Err(error @ DemoError::NoEngine { .. }) => Err(Failure::from(error).hint(
            "start Docker, let this user at its socket, or name another one in DOCKER_HOST; without `--docker` no engine is needed",
        )),
        Err(error @ DemoError::NoImage { .. }) => Err(Failure::from(error).hint(
            "name an image that the engine has or can pull, and that has a `sh`: `drover demo --docker IMAGE`; `docker load` and \
             `docker import` bring one without a registry",
        )),
        Err(error) => Err(error.into()),
    }
}
