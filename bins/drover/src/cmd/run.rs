//! `drover run`.

mod file;
mod signals;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use config::Verdict;
use manager::{BuiltIn, DryRun, Manager, ManagerOptions, Providers};
use metrics::{Build, Endpoint, LogCounter, Metrics};

use self::file::{Overrides, Watched};
use self::signals::{Ending, Steering};
use super::status::{self, Answering};
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
  SIGHUP           read the configuration again; a changed file is noticed within 3 seconds anyway
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
    /// Decide and log what would be done to instances, and do nothing.
    ///
    /// The group is listed, and every decision is logged with its reason. No instance is created, connected to or deleted,
    /// nothing is stored, and no job is taken from GitLab, because it could not be run: what shows is idle capacity, its
    /// schedule, and what would become of the instances that are there. Instances that would be created are listed as
    /// `dry-run-N` and never get ready. To see what jobs would do, use `drover simulate`.
    #[arg(long)]
    dry_run: bool,
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
    let lines = LogCounter::default();
    let logging = Logging::start(
        log.level().unwrap_or(loaded.config.log_level()),
        log.format().unwrap_or(loaded.config.log_format()),
        lines.clone(),
    );
    announce(&path);
    if first.missing {
        tracing::warn!(file = %path.display(), "There is no configuration file; waiting for one");
    }
    file::report(&path, &loaded.diagnostics);
    if filled(options.user.as_ref()).is_some() {
        tracing::warn!("--user has no effect: it is for the shell executor, which this build has not");
    }
    let providers = Arc::new(BuiltIn);
    let verdicts = loaded.verdicts(&providers.capabilities());
    if !first.missing && !verdicts.contains(&Verdict::Runnable) {
        tracing::warn!(file = %path.display(), "No runner entry can take jobs; waiting for the file to change");
    }

    let endpoint = runtime.block_on(endpoint(&loaded.config))?;
    let sessions = runtime
        .block_on(manager::session_server(&loaded.config))
        .context("failed to start the session server")
        .map_err(|error| {
            Failure::from(error).hint("web terminals are optional: without `[session_server]` there are none")
        })?;
    let spool = Spool::create(&std::env::temp_dir())?;
    let identity = identity::identity(&path)?;
    let (socket, shown) = (status::socket_path(&loaded.config, &path), loaded.config.clone());
    let metrics = Metrics::new(build(&identity), config::local_zone(), &lines);
    let mut manager = ManagerOptions::new(loaded, identity);
    manager.observer = metrics.clone();
    manager.sessions = sessions;
    manager.base = identity::directory(&path);
    manager.spool = spool.path().to_owned();
    manager.providers = providers;
    if options.dry_run {
        tracing::warn!("dry run: no jobs are taken, no instance is created, connected to or deleted");
        manager.providers = Arc::new(DryRun::new(manager.providers));
        manager.dry_run = true;
    }
    manager.local_zone = config::local_zone();

    let ending = runtime.block_on(async {
        let manager = Manager::new(manager);
        let view = manager.view();
        if let Some(endpoint) = endpoint {
            let endpoint = status::on_endpoint(endpoint, &shown, &view);
            tokio::spawn(endpoint.serve(Arc::clone(&metrics), view.jobs.clone()));
        }
        let answering = Answering::start(socket, view).await;
        let ending = steering.run(manager, &mut file, &logging, &metrics).await;
        if let Some(answering) = answering {
            answering.end().await;
        }
        ending
    });
    // Whatever still runs ends with the process.
    runtime.shutdown_background();
    Ok(farewell(&ending))
}

/// Binds `listen_address`, if there is one. A monitoring that cannot be reached is worth a refusal to start, as in GitLab
/// Runner.
async fn endpoint(config: &config::Config) -> Result<Option<Endpoint>, Failure> {
    let Some(address) = config.listen_address() else {
        tracing::info!("listen_address not defined, metrics & debug endpoints disabled");
        return Ok(None);
    };
    let endpoint = Endpoint::bind(&address)
        .await
        .with_context(|| format!("failed to listen on `{address}` for metrics"))
        .map_err(|error| {
            Failure::from(error).hint("choose another `listen_address`, or leave it out to have no metrics")
        })?;
    let address = endpoint.local_addr().context("failed to find the address of the metrics server")?;
    tracing::info!(%address, "Metrics server listening");
    Ok(Some(endpoint))
}

fn build(identity: &manager::Identity) -> Build {
    let product = &identity.product;
    Build {
        name: product.name.clone(),
        version: product.version.clone(),
        revision: product.revision.clone(),
        system_id: identity.system_id.clone(),
    }
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
