//! `drover run`.

mod file;
mod signals;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use config::Verdict;
use manager::{BuiltIn, Manager, ManagerOptions, Providers};

use self::file::{Overrides, Watched};
use self::signals::{Ending, Steering};
use crate::arguments::{ConfigArguments, Flag, LogArguments, filled};
use crate::failure::{Exit, Failure};
use crate::identity;
use crate::logging::Logging;
use crate::spool::Spool;

/// Jobs spend their time waiting for the network; two threads carry thousands of them.
const WORKER_THREADS: usize = 2;
/// Reading certificate files and looking names up blocks; it is rare.
const BLOCKING_THREADS: usize = 8;
const THREAD_STACK: usize = 1 << 20;

const HELP: &str = "\
Signals:
  SIGQUIT          take no more jobs, end after the last one
  SIGTERM, SIGINT  stop running jobs and end within `shutdown_timeout`; a second one ends at once
  SIGHUP           read the configuration again (a changed file is noticed within 3 seconds by itself)
  SIGUSR1          log the jobs that run

Examples:
  drover run
  drover run --config /etc/gitlab-runner/config.toml --working-directory /var/lib/drover
  LOG_FORMAT=json drover run --listen-address :9252";

/// Take jobs from GitLab and run them, until told to stop.
///
/// A runner entry that this build cannot run is reported and left out; the others work. Without any, the process waits for
/// the file to change.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Address of the metrics and health server, `host:port`. Wins over the file.
    #[arg(long, env = "LISTEN_ADDRESS", hide_env_values = true, value_name = "ADDRESS")]
    listen_address: Option<String>,
    /// Folder to run in.
    #[arg(long, short = 'd', value_name = "FOLDER")]
    working_directory: Option<PathBuf>,
    /// System user of the `shell` executor, which this build has not: taken for the sake of existing service units.
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Name of the system service: taken for the sake of existing service units.
    #[arg(long, short = 'n', value_name = "NAME")]
    service: Option<String>,
    /// Log to the system log. Works where standard error leads there, as in a systemd service.
    #[arg(long, env = "LOG_SYSLOG", hide_env_values = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, value_name = "BOOL", default_missing_value = "true", default_value = "false", hide_default_value = true,
        value_parser = crate::arguments::flag)]
    syslog: Flag,
}

/// Runs the manager to its end.
pub(crate) fn run(options: RunArguments, log: &LogArguments) -> Result<Exit, Failure> {
    if options.syslog.0 && std::env::var_os("JOURNAL_STREAM").is_none() {
        return Err(Failure::misuse("`--syslog` works only where standard error leads to the system log")
            .hint("leave it out, and let the service manager or `logger` carry standard error to the system log"));
    }
    // Made absolute before the working directory changes.
    let path = std::path::absolute(options.config.path()).context("failed to find the working directory")?;
    if let Some(folder) = options.working_directory.as_deref().filter(|folder| !folder.as_os_str().is_empty())
    {
        std::env::set_current_dir(folder)
            .with_context(|| format!("failed to change to the folder `{}`", folder.display()))
            .map_err(Failure::usage)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(THREAD_STACK)
        .thread_name("drover")
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    // From here on signals wait for their turn in place of ending the process.
    let steering = runtime.block_on(async { Steering::new() }).context("failed to listen for signals")?;

    let overrides = Overrides {
        level: log.level(),
        listen_address: filled(options.listen_address.as_ref()).map(str::to_owned),
    };
    let (mut file, first) = Watched::open(path.clone(), overrides)?;
    let loaded = first.loaded;
    let logging = Logging::start(
        log.level().unwrap_or(loaded.config.log_level()),
        log.format().unwrap_or(loaded.config.log_format()),
    );
    announce(&path);
    if first.missing {
        tracing::warn!(file = %path.display(), "There is no configuration file; waiting for one");
    }
    file::report(&path, &loaded.diagnostics);
    if filled(options.user.as_ref()).is_some() {
        tracing::warn!("--user has no effect: it is for the shell executor, which this build has not");
    }
    if loaded.config.listen_address.is_some() {
        tracing::warn!("listen_address has no effect: this build has no metrics server");
    }
    let providers = Arc::new(BuiltIn);
    let verdicts = loaded.verdicts(&providers.capabilities());
    if !first.missing && !verdicts.contains(&Verdict::Runnable) {
        tracing::warn!(file = %path.display(), "No runner entry can take jobs; waiting for the file to change");
    }

    let spool = Spool::create(&std::env::temp_dir())?;
    let mut manager = ManagerOptions::new(loaded, identity::identity(&path)?);
    manager.base = identity::directory(&path);
    manager.spool = spool.path().to_owned();
    manager.providers = providers;
    manager.local_zone = config::local_zone();

    let ending = runtime.block_on(async { steering.run(Manager::new(manager), &mut file, &logging).await });
    // Whatever still runs ends with the process.
    runtime.shutdown_background();
    Ok(farewell(&ending))
}

/// The first lines of the log, as GitLab Runner has them.
fn announce(path: &Path) {
    let build = identity::fields();
    tracing::info!(
        arch = build.architecture,
        os = build.platform,
        pid = std::process::id(),
        revision = build.revision,
        version = build.version,
        "Runtime platform"
    );
    tracing::info!("Starting drover from {}...", path.display());
}

fn farewell(ending: &Ending) -> Exit {
    match ending {
        Ending::Stopped(ended) => {
            for left in &ended.left_behind {
                tracing::warn!(left, "left behind");
            }
            if ended.unfinished.is_empty() {
                tracing::info!("All jobs have ended. Bye");
                Exit::Success
            } else {
                Exit::Unfinished
            }
        }
        Ending::AtOnce(signal) => {
            tracing::error!(signal, "ended at once, on the second signal");
            Exit::Unfinished
        }
    }
}
