//! `drover reset-token`.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{ArgAction, Args};
use config::{EditError, ExposeSecret as _, Runner, SecretString};
use gitlab_api::NewToken;

use crate::arguments::{ConfigArguments, Flag, LogArguments, filled};
use crate::failure::{Exit, Failure};
use crate::gitlab::{self, Calls, Selection};
use crate::output;

/// How often an editor that is faster is given way.
const SAVES: usize = 3;

const EXAMPLES: &str = "\
Examples:
  drover reset-token --name build
  drover reset-token --all-runners
  drover reset-token --url https://gitlab.example.com --id 42 --pat \"$PAT\"";

/// Replace the tokens of runners with new ones.
///
/// The old token ends with this. The new one is in the file before the next runner's turn comes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ResetTokenArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The entry of this name.
    #[arg(long, short)]
    name: Option<String>,
    /// Address of GitLab, together with `--id`.
    #[arg(long, short, env = "CI_SERVER_URL", hide_env_values = true)]
    url: Option<String>,
    /// The runner's number in GitLab, together with `--url`.
    #[arg(long, short, env = "CI_SERVER_ID", hide_env_values = true)]
    id: Option<i64>,
    /// Personal access token that allows it. Without it, the runner's present token does.
    #[arg(long, env = "CI_SERVER_PAT", hide_env_values = true, value_name = "TOKEN")]
    pat: Option<String>,
    /// Every entry of the file.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true",
        default_value = "false", hide_default_value = true, value_parser = crate::arguments::flag)]
    all_runners: Flag,
}

/// Resets the tokens that are meant.
pub(crate) fn reset_token(options: &ResetTokenArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = options.config.path();
    let (name, url) = (filled(options.name.as_ref()), filled(options.url.as_ref()));
    let selection = match (options.all_runners.0, name, url, options.id) {
        (true, _, _, _) => Selection::default(),
        (false, Some(name), _, _) => Selection { name: Some(name), ..Selection::default() },
        (false, None, Some(url), Some(id)) => {
            Selection { url: Some(url), id: Some(id), ..Selection::default() }
        }
        (false, None, _, _) => {
            return Err(Failure::misuse("whose token is to be replaced?")
                .hint("name the runner with --name, or with --url and --id, or say --all-runners"));
        }
    };
    let pat = filled(options.pat.as_ref()).map(SecretString::from);
    let loaded = gitlab::load(&path)?;
    let chosen = selection.of(&loaded.config.runners);
    if chosen.is_empty() {
        return Err(Failure::message("no runner entry fits").hint("`drover list` shows the entries"));
    }
    // A new token that cannot be kept would be lost, so saving is tried before the first one is asked for.
    gitlab::edit(&path)?.0.save().context("the file cannot be changed, so no token was replaced")?;

    let calls = Calls::new(&path)?;
    let runtime = gitlab::runtime()?;
    let mut failed = 0;
    for index in chosen {
        let Some(runner) = loaded.config.runners.get(index) else { continue };
        let label = runner.label();
        match runtime.block_on(reset(&calls, runner, pat.as_ref())) {
            Ok(new) => {
                keep(&path, runner, &new)?;
                let ends = new.expires_at.map_or("never".to_owned(), |at| at.to_rfc3339());
                let short = gitlab_api::short_token(new.token.0.expose_secret());
                output::data(&format_args!("{label}: new token {short}, which ends {ends}"));
            }
            Err(error) => {
                failed += 1;
                output::data(&format_args!("{label}: token not replaced: {error:#}"));
            }
        }
    }
    if failed > 0 {
        return Err(Failure::message("some tokens could not be replaced; they are still good"));
    }
    Ok(Exit::Success)
}

async fn reset(calls: &Calls, runner: &Runner, pat: Option<&SecretString>) -> Result<NewToken> {
    let client = calls.client(runner)?;
    let new = match pat {
        Some(pat) => {
            let id = runner.id.and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
            client.reset_token_with_pat(id.context("the entry has no `id`")?, pat).await?
        }
        None => client.reset_token(runner.token().context("the entry has no token")?).await?,
    };
    Ok(new)
}

/// Writes the new token where the old one is, also when somebody else changes the file at the same time.
fn keep(path: &Path, runner: &Runner, new: &NewToken) -> Result<(), Failure> {
    let old = runner.token().map(|token| token.expose_secret().to_owned());
    for attempt in 1.. {
        let (mut file, loaded) = gitlab::edit(path)?;
        let same = Selection { token: old.as_deref(), ..Selection::default() };
        let index = *same
            .of(&loaded.config.runners)
            .first()
            .with_context(|| format!("the entry of `{}` is gone from the file", runner.label()))?;
        file.set_runner_token(index, &new.token.0, Some(new.obtained_at), new.expires_at)?;
        match file.save() {
            Ok(()) => break,
            Err(EditError::Changed(_)) if attempt < SAVES => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
