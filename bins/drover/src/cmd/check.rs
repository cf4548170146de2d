//! `drover config check`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::{Diagnostic, LoadError, Loaded, Report, Verdict};
use manager::{BuiltIn, Providers as _};
use serde::Serialize;

use crate::arguments::{ConfigArguments, LogArguments};
use crate::failure::{Exit, Failure};
use crate::{gitlab, identity, output};

const EXAMPLES: &str = "\
Examples:
  drover config check
  drover config check --strict config.toml
  drover config check --json --no-files config.toml | jq '.diagnostics[].message'";

/// Look at the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Check(CheckArguments),
}

/// Say what is wrong with a configuration file, and which runner entries this build can run.
///
/// Ends with 0 if every entry is fit for use. Warnings are fine, and so are entries that need an executor or a plugin that
/// this build has not: `drover run` leaves those out. Ends with 2 otherwise.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArguments {
    /// The file, in place of the one that `--config` names.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArguments,
    /// As JSON: an object with file, usable, diagnostics and runners.
    #[arg(long)]
    json: bool,
    /// Warnings, and entries that this build cannot run, are failures too.
    #[arg(long)]
    strict: bool,
    /// Do not look at the files that the configuration names: keys, certificates.
    #[arg(long)]
    no_files: bool,
}

/// GitLab Runner's `lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    usable: bool,
    diagnostics: &'a [Diagnostic],
    runners: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    executor: &'a str,
    plugin: Option<String>,
    runnable: bool,
    reason: Option<&'a str>,
}

// === impl LintArguments ===

impl LintArguments {
    /// The same check, as strict as GitLab Runner's.
    pub(crate) fn into_check(self) -> CheckArguments {
        CheckArguments { file: None, config: self.config, json: false, strict: true, no_files: true }
    }
}

/// Checks a file.
pub(crate) fn check(options: &CheckArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = options.file.clone().unwrap_or_else(|| options.config.path());
    match config::load(&path) {
        Ok(mut loaded) => {
            let base = identity::directory(&path);
            let base = (!options.no_files).then_some(base.as_path());
            if let Some(base) = base {
                loaded.check_files(base);
            }
            manager::verify(&mut loaded, &BuiltIn, base);
            let verdicts = loaded.verdicts(&BuiltIn.capabilities());
            report(options, &path, &loaded, &verdicts)
        }
        Err(LoadError::Invalid(invalid)) => {
            let diagnostics = &invalid.diagnostics;
            say(options, &path, diagnostics, Checked::new(&path, false, diagnostics, Vec::new()))?;
            Ok(Exit::Usage)
        }
        Err(error @ LoadError::Read { .. }) => {
            let hint = gitlab::unread(&error, "`drover config check FILE`");
            Err(Failure::usage(error).hint(hint))
        }
    }
}

fn report(
    options: &CheckArguments,
    path: &Path,
    loaded: &Loaded,
    verdicts: &[Verdict],
) -> Result<Exit, Failure> {
    let diagnostics = &loaded.diagnostics;
    let entries: Vec<Entry<'_>> = loaded
        .config
        .runners
        .iter()
        .zip(verdicts)
        .map(|(runner, verdict)| Entry {
            name: runner.name(),
            executor: runner.executor.as_deref().unwrap_or_default(),
            plugin: runner.autoscaler.as_ref().and_then(config::Autoscaler::plugin).map(|plugin| plugin.name),
            runnable: *verdict == Verdict::Runnable,
            reason: match verdict {
                Verdict::Runnable => None,
                Verdict::Refused(why) => Some(why),
            },
        })
        .collect();
    let errors = diagnostics.iter().any(Diagnostic::is_error);
    let odd = errors || !diagnostics.is_empty() || entries.iter().any(|entry| !entry.runnable);
    let fit = if options.strict { !odd } else { !errors };
    let warnings = diagnostics.iter().filter(|found| !found.is_error()).count();
    let summary: Vec<String> = loaded
        .config
        .runners
        .iter()
        .zip(&entries)
        .map(|(runner, entry)| match entry.reason {
            None => format!("runner `{}`: this build can run it", runner.label()),
            Some(why) => format!("runner `{}`: takes no jobs: {why}", runner.label()),
        })
        .collect();
    let none = entries.is_empty();
    let idle = !none && !entries.iter().any(|entry| entry.runnable);
    say(options, path, diagnostics, Checked::new(path, fit, diagnostics, entries))?;
    if !options.json {
        for line in summary {
            output::data(&line);
        }
        if none {
            output::data(&"the file has no runner entries");
        }
        let verdict = match fit {
            true if idle => "fit for use, but none of its entries takes jobs",
            true => "fit for use",
            false => "not fit for use",
        };
        let s = if warnings == 1 { "" } else { "s" };
        output::data(&format_args!("{}: {verdict}, {warnings} warning{s}", path.display()));
    }
    Ok(if fit { Exit::Success } else { Exit::Usage })
}

fn say(
    options: &CheckArguments,
    path: &Path,
    diagnostics: &[Diagnostic],
    checked: Checked<'_>,
) -> Result<(), Failure> {
    if options.json {
        output::data(&serde_json::to_string_pretty(&checked)?);
    } else if !diagnostics.is_empty() {
        let file = path.display().to_string();
        output::data(&Report { file: &file, diagnostics });
    }
    Ok(())
}

// === impl Checked ===

impl<'a> Checked<'a> {
    fn new(path: &Path, usable: bool, diagnostics: &'a [Diagnostic], runners: Vec<Entry<'a>>) -> Self {
        Self { file: path.display().to_string(), usable, diagnostics, runners }
    }
}
