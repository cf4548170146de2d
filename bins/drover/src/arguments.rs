//! The command line. Names of commands, flags and environment variables are those of GitLab Runner, so that existing
//! scripts and service units work.

mod values;

use std::path::PathBuf;

use clap::builder::Styles;
use clap::{ArgAction, Args, Parser, Subcommand};
use config::{LogFormat, LogLevel};

use crate::cmd;
use crate::failure::Exit;
use crate::identity;
use crate::logging::Logging;

pub(crate) use self::values::{Flag, Number, Switch, filled, flag, number, switch};

const EXAMPLES: &str = "\
Examples:
  drover demo                                see it work, with nothing to set up
  drover config check                        is the configuration fit for use?
  drover register --url https://gitlab.example.com --token \"$TOKEN\" --executor instance
  drover doctor                              what stands in the way of jobs, and what repairs it?
  drover run                                 take jobs until told to stop
  drover explain                             what does it do, and why?";

/// Takes CI jobs from GitLab and runs them on instances that it scales itself.
///
/// Reads the `config.toml` of GitLab Runner, and understands its commands, flags and environment variables.
#[derive(Debug, Parser)]
#[command(
    name = "drover",
    version = identity::LONG_VERSION.as_str(),
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit_codes()),
    styles = Styles::plain(),
    max_term_width = 120,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) logging: LogArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogArguments {
    /// Log everything, like `--log-level debug`.
    #[arg(long, global = true, env = "RUNNER_DEBUG", hide_env_values = true, display_order = 100,
        action = ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true",
        default_value = "false", hide_default_value = true, hide_possible_values = true, value_parser = values::flag)]
    debug: Flag,
    /// Least level that is logged: debug, info, warn, error, fatal or panic. Wins over the file.
    #[arg(long, short = 'l', global = true, env = "LOG_LEVEL", hide_env_values = true, display_order = 101,
        value_name = "LEVEL", value_parser = values::level)]
    log_level: Option<values::Level>,
    /// Form of log lines: runner (for people), text (logfmt) or json. Wins over the file.
    #[arg(long, global = true, env = "LOG_FORMAT", hide_env_values = true, display_order = 102,
        value_name = "FORMAT", value_parser = values::format)]
    log_format: Option<values::Format>,
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArguments {
    /// Configuration file [default: /etc/gitlab-runner/config.toml for root, else ~/.gitlab-runner/config.toml].
    #[arg(id = "config", long, short, env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(cmd::run::RunArguments),
    Explain(cmd::explain::ExplainArguments),
    Doctor(cmd::doctor::DoctorArguments),
    Demo(cmd::demo::DemoArguments),
    Register(Box<cmd::register::RegisterArguments>),
    Verify(cmd::verify::VerifyArguments),
    List(cmd::list::ListArguments),
    Unregister(cmd::unregister::UnregisterArguments),
    ResetToken(cmd::reset_token::ResetTokenArguments),
    Simulate(Box<cmd::simulate::SimulateArguments>),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(cmd::check::ConfigCommand),
    /// GitLab Runner's name for `config check --strict --no-files`.
    #[command(hide = true)]
    Lint(cmd::check::LintArguments),
    Completion(cmd::completion::CompletionArguments),
}

// === impl LogArguments ===

impl LogArguments {
    /// The level of the command line, if it names one.
    pub(crate) fn level(&self) -> Option<LogLevel> {
        if self.debug.0 { Some(LogLevel::Debug) } else { self.log_level.and_then(|level| level.0) }
    }

    /// Starts logging for a command that is over soon: its result says all, so only warnings are logged.
    pub(crate) fn start(&self) {
        let (level, format) =
            (self.level().unwrap_or(LogLevel::Warn), self.format().unwrap_or(LogFormat::Runner));
        Logging::start(level, format, metrics::LogCounter::default());
    }

    /// The form of the command line, if it names one.
    pub(crate) fn format(&self) -> Option<LogFormat> {
        self.log_format.and_then(|format| format.0)
    }
}

// === impl ConfigArguments ===

impl ConfigArguments {
    /// The file to use.
    pub(crate) fn path(&self) -> PathBuf {
        // An empty variable is none.
        config::default_path(self.file.as_deref().filter(|file| !file.as_os_str().is_empty()))
    }
}

/// The exit codes, for the help.
pub(crate) fn exit_codes() -> String {
    let mut text = "Exit codes:".to_owned();
    for (exit, meaning) in Exit::ALL {
        text.push_str(&format!("\n  {}  {meaning}", exit.code()));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Lines that are broken by hand are broken again where the terminal ends, which nobody can read.
    #[test]
    fn what_follows_the_options_fits_a_terminal_or_is_left_to_it() {
        fn look(command: &clap::Command) {
            let texts = [command.get_after_help(), command.get_after_long_help()];
            for text in texts.into_iter().flatten().map(ToString::to_string) {
                let lines: Vec<&str> = text.lines().collect();
                for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
                    let kept = line.starts_with("  ");
                    assert!(!kept || line.chars().count() <= 100, "{}: {line}", command.get_name());
                    // Rows of a table stay apart when they are broken.
                    let row = line.contains("  ");
                    let long = !row && line.chars().count() > 100;
                    let broken = long && !next.is_empty() && !next.starts_with("  ");
                    assert!(!broken || line.ends_with('.'), "{}: {line}", command.get_name());
                }
            }
            command.get_subcommands().for_each(look);
        }
        look(&Arguments::command());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
