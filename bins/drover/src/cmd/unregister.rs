//! `drover unregister`.

use anyhow::Context as _;
use clap::{ArgAction, Args};
use config::{Runner, SecretString};
use gitlab_api::{Client, ClientOptions, ExposeSecret as _, RunnerCallError, TokenKind, user_agent};

use crate::arguments::{ConfigArguments, Flag, LogArguments, filled};
use crate::failure::{Exit, Failure};
use crate::gitlab::{self, Calls, Selection};
use crate::{identity, output};

const EXAMPLES: &str = "\
Examples:
  drover unregister --name build
  drover unregister --url https://gitlab.example.com --token \"$TOKEN\"
  drover unregister --all-runners";

/// Remove runners at GitLab and from the file.
///
/// A runner that was created in GitLab (its token begins with `glrt-`) stays there: only this manager of it is removed. A
/// runner that GitLab does not let go stays in the file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UnregisterArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The entry of this name.
    #[arg(long, short)]
    name: Option<String>,
    /// Address of GitLab.
    #[arg(long, short, env = "CI_SERVER_URL", hide_env_values = true)]
    url: Option<String>,
    /// The entry with this token; with `--url` also a runner that is not in the file.
    #[arg(long, short, env = "CI_SERVER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Every entry of the file.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true",
        default_value = "false", hide_default_value = true, value_parser = crate::arguments::flag)]
    all_runners: Flag,
}

/// Unregisters the runners that are meant.
pub(crate) fn unregister(options: &UnregisterArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = options.config.path();
    let (name, url) = (filled(options.name.as_ref()), filled(options.url.as_ref()));
    let token = filled(options.token.as_ref());
    let selection = match (options.all_runners.0, name, token) {
        (true, _, _) => Selection::default(),
        (false, None, None) => {
            return Err(Failure::misuse("which runner is to go?")
                .hint("name it with --name, or with --url and --token, or say --all-runners"));
        }
        (false, Some(name), token) => Selection { name: Some(name), token, ..Selection::default() },
        (false, None, Some(token)) => Selection { token: Some(token), url, ..Selection::default() },
    };
    let calls = Calls::new(&path)?;
    if let (Some(url), Some(token), None, false) = (url, token, name, path.exists()) {
        return foreign(&calls, url, token);
    }
    gitlab::load(&path)?;
    let (mut file, loaded) = gitlab::edit(&path)?;
    let chosen = selection.of(&loaded.config.runners);
    if chosen.is_empty() {
        return match (url, token, name) {
            (Some(url), Some(token), None) => foreign(&calls, url, token),
            (_, _, _) if options.all_runners.0 => {
                output::note(&"the file has no runner entries");
                Ok(Exit::Success)
            }
            (_, _, _) => {
                Err(Failure::message("no runner entry fits").hint("`drover list` shows the entries"))
            }
        };
    }

    let runtime = gitlab::runtime()?;
    let mut gone = Vec::new();
    let mut failed = 0;
    for index in chosen {
        let Some(runner) = loaded.config.runners.get(index) else { continue };
        let (label, token) = (runner.label(), runner.short_token());
        match runtime.block_on(remove(&calls, runner)) {
            Ok(()) => {
                output::data(&format_args!("{label} ({token}): unregistered"));
                gone.push(index);
            }
            Err(error) => {
                failed += 1;
                output::data(&format_args!("{label} ({token}): still registered: {error:#}"));
            }
        }
    }
    for index in gone.iter().rev() {
        file.remove_runner(*index)?;
    }
    if !gone.is_empty() {
        file.save().context("the runners are unregistered, but their entries are still in the file")?;
    }
    if failed > 0 {
        return Err(Failure::message("some runners could not be unregistered, and stay in the file")
            .hint("`drover verify --delete` removes entries that GitLab does not know any more"));
    }
    Ok(Exit::Success)
}

/// A runner that the file does not know.
fn foreign(calls: &Calls, url: &str, token: &str) -> Result<Exit, Failure> {
    let mut options = ClientOptions::new(url);
    options.user_agent = user_agent(&identity::fields(), "main");
    let client = Client::new(options).map_err(Failure::usage)?;
    let token = SecretString::from(token);
    gitlab::runtime()?
        .block_on(remove_token(&client, calls, &token))
        .context("failed to unregister the runner")?;
    output::data(&format_args!(
        "{}: unregistered; the file has no entry of it",
        gitlab_api::short_token(token.expose_secret())
    ));
    Ok(Exit::Success)
}

async fn remove(calls: &Calls, runner: &Runner) -> anyhow::Result<()> {
    let token = runner.token().context("the entry has no token")?;
    Ok(remove_token(&calls.client(runner)?, calls, token).await?)
}

pub(crate) async fn remove_token(
    client: &Client,
    calls: &Calls,
    token: &SecretString,
) -> Result<(), RunnerCallError> {
    match TokenKind::of(token.expose_secret()) {
        TokenKind::Authentication => client.unregister_manager(token, &calls.system_id).await,
        TokenKind::Legacy => client.unregister_runner(token).await,
    }
}
