//! `drover explain`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use status::{AskError, Document, Filter};

use super::status::socket_path;
use crate::arguments::{ConfigArguments, LogArguments, filled};
use crate::failure::{Exit, Failure};
use crate::output;

const HELP: &str = "\
It asks the manager that runs with the same configuration file, over a local socket. Only the manager's own user \
and root are answered. It changes nothing.

Examples:
  drover explain
  drover explain --runner fleet
  drover explain --instance i-0123456789abcdef0
  drover explain --json | jq '.runners[].scaling.why[].text'";

/// Say what a running manager does, and why.
///
/// For each runner entry: the policy in force and until when, instances wanted and present, why there are not more or fewer,
/// what each instance and each job waits for, and what was decided and what failed lately.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Only the runner of this name, or of this shortened token.
    #[arg(long, short, value_name = "NAME")]
    runner: Option<String>,
    /// Only this instance.
    #[arg(long, short, value_name = "ID")]
    instance: Option<String>,
    /// The manager's socket, if it is not the one that the configuration file leads to.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
    /// As JSON: the document that docs/operations.md describes.
    #[arg(long)]
    json: bool,
}

/// Asks the manager and prints its answer.
pub(crate) fn explain(options: &ExplainArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = match &options.socket {
        Some(path) => path.clone(),
        None => configured(&options.config.path())?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut document: Document = runtime.block_on(status::ask(&path)).map_err(failure)?;
    let filter = Filter {
        runner: filled(options.runner.as_ref()).map(str::to_owned),
        instance: filled(options.instance.as_ref()).map(str::to_owned),
    };
    filter.apply(&mut document).map_err(Failure::message)?;
    if options.json {
        output::data(&serde_json::to_string_pretty(&document)?);
    } else {
        output::data(&status::text(&document).trim_end());
    }
    Ok(Exit::Success)
}

/// The socket of the manager that runs with this file. The file may be one that this user cannot read, or no good any more:
/// the manager goes on with the last good one.
fn configured(file: &Path) -> Result<PathBuf, Failure> {
    let file = std::path::absolute(file)?;
    match config::load(&file) {
        Ok(loaded) => socket_path(&loaded.config, &file).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!(
                "`socket` of the table `[status]` is `none`, so the manager has no socket"
            ))
            .hint(format!("remove the key from `{}` and start the manager again", file.display()))
        }),
        Err(_) => Ok(status::default_path(&file)),
    }
}

fn failure(error: AskError) -> Failure {
    let hint = match &error {
        AskError::NoManager { .. } => {
            "start it with `drover run`, or name its file with `--config` or its socket with `--socket`"
        }
        AskError::Denied { .. } => "ask as that user, or as root",
        AskError::Talk { .. } => "the manager may be ending; its log says more",
        AskError::Unreadable { .. } => "use the `drover` of the same version as the manager",
    };
    Failure::from(error).hint(hint)
}
