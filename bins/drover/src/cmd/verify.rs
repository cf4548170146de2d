//! `drover verify`.

use anyhow::Context as _;
use clap::{ArgAction, Args};
use config::{Config, Runner};
use gitlab_api::Verification;

use crate::arguments::{ConfigArguments, Flag, LogArguments, filled};
use crate::failure::{Exit, Failure};
use crate::gitlab::{self, Calls, Selection};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  drover verify                    every entry of the file
  drover verify --name build       one of them
  drover verify --delete           and remove those that GitLab does not know any more";

/// Ask GitLab whether the tokens of runner entries are good.
///
/// Ends with 1 if GitLab refuses a token, or could not be asked. Only refused entries are removed by `--delete`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Only the entry of this name.
    #[arg(long, short)]
    name: Option<String>,
    // No variables here, as in GitLab Runner: a variable that is set for `register` must not narrow the check.
    /// Only entries of this GitLab.
    #[arg(long, short)]
    url: Option<String>,
    /// Only the entry with this token.
    #[arg(long, short, value_name = "TOKEN")]
    token: Option<String>,
    /// Remove refused entries from the file.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true",
        default_value = "false", hide_default_value = true, value_parser = crate::arguments::flag)]
    delete: Flag,
}

/// What GitLab said about one entry.
struct Asked {
    index: usize,
    label: String,
    token: String,
    verdict: Verdict,
}

enum Verdict {
    Good,
    Refused,
    Unknown(String),
}

/// Verifies the entries that are meant.
pub(crate) fn verify(options: &VerifyArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = options.config.path();
    let selection = Selection {
        name: filled(options.name.as_ref()),
        url: filled(options.url.as_ref()),
        token: filled(options.token.as_ref()),
        id: None,
    };
    // A file that is to be changed is held from the first look at it to its end.
    let (mut file, loaded) = match options.delete.0 {
        true => {
            gitlab::load(&path)?;
            let (file, loaded) = gitlab::edit(&path)?;
            (Some(file), loaded)
        }
        false => (None, gitlab::load(&path)?),
    };
    let config = &loaded.config;
    let chosen = selection.of(&config.runners);
    if chosen.is_empty() {
        let message =
            if config.runners.is_empty() { "the file has no runner entries" } else { "no runner entry fits" };
        return Err(Failure::message(message).hint("`drover list` shows the entries"));
    }

    let calls = Calls::new(&path)?;
    let asked = gitlab::runtime()?.block_on(async {
        let mut asked = Vec::new();
        for index in chosen {
            if let Some(runner) = config.runners.get(index) {
                asked.push(ask(&calls, config, runner, index).await);
            }
        }
        asked
    });
    for one in &asked {
        let (label, token) = (&one.label, &one.token);
        match &one.verdict {
            Verdict::Good => output::data(&format_args!("{label} ({token}): good")),
            Verdict::Refused => output::data(&format_args!("{label} ({token}): refused by GitLab")),
            Verdict::Unknown(why) => output::data(&format_args!("{label} ({token}): cannot tell: {why}")),
        }
    }

    let refused: Vec<usize> =
        asked.iter().filter(|one| matches!(one.verdict, Verdict::Refused)).map(|one| one.index).collect();
    let unknown = asked.iter().filter(|one| matches!(one.verdict, Verdict::Unknown(_))).count();
    if let Some(file) = file.as_mut().filter(|_| !refused.is_empty()) {
        for index in refused.iter().rev() {
            file.remove_runner(*index)?;
        }
        file.save().context("the refused entries are still in the file")?;
        output::note(&format_args!("removed {} from `{}`", entries(refused.len()), path.display()));
    } else if !refused.is_empty() {
        return Err(Failure::message(format_args!(
            "GitLab refused the tokens of {}",
            entries(refused.len())
        ))
        .hint("`drover verify --delete` removes them from the file"));
    }
    if unknown > 0 {
        return Err(Failure::message(format_args!("GitLab could not be asked about {}", entries(unknown))));
    }
    Ok(Exit::Success)
}

async fn ask(calls: &Calls, config: &Config, runner: &Runner, index: usize) -> Asked {
    let verdict = match (runner.token(), calls.client(runner), gitlab::info(config, runner)) {
        (None, _, _) => Verdict::Unknown("the entry has no token".to_owned()),
        (_, Err(error), _) | (_, _, Err(error)) => {
            Verdict::Unknown(gitlab_api::ApiError::from(error).report())
        }
        (Some(token), Ok(client), Ok(info)) => match client.verify(token, &calls.system_id, &info).await {
            Verification::Valid(_) => Verdict::Good,
            Verification::Invalid => Verdict::Refused,
            Verification::Unknown(error) => Verdict::Unknown(error.report()),
        },
    };
    Asked { index, label: runner.label(), token: runner.short_token().to_owned(), verdict }
}

/// `1 entry`, `2 entries`.
fn entries(count: usize) -> String {
    format!("{count} {}", if count == 1 { "entry" } else { "entries" })
}
