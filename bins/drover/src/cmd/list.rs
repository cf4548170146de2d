//! `drover list`.

use clap::Args;
use serde::Serialize;

use crate::arguments::{ConfigArguments, LogArguments};
use crate::failure::{Exit, Failure};
use crate::{gitlab, output};

const EXAMPLES: &str = "\
Examples:
  drover list
  drover list --json | jq -r '.[].name'";

/// List the runner entries of the file.
///
/// Tokens are shortened to the part that GitLab shows too (GitLab Runner prints them whole); the file has the rest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// As JSON: a list of objects with name, executor, url, token and id.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    executor: &'a str,
    url: &'a str,
    token: &'a str,
    id: Option<i64>,
}

/// Prints the entries.
pub(crate) fn list(options: &ListArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let loaded = gitlab::load(&options.config.path())?;
    let entries: Vec<Entry<'_>> = loaded
        .config
        .runners
        .iter()
        .map(|runner| Entry {
            name: runner.name(),
            executor: runner.executor.as_deref().unwrap_or_default(),
            url: runner.url(),
            token: runner.short_token(),
            id: runner.id,
        })
        .collect();
    if options.json {
        output::data(&serde_json::to_string_pretty(&entries)?);
        return Ok(Exit::Success);
    }
    let head = Entry { name: "NAME", executor: "EXECUTOR", url: "URL", token: "TOKEN", id: None };
    let width = |of: fn(&Entry<'_>) -> usize| entries.iter().chain([&head]).map(of).max().unwrap_or(0);
    let (names, executors) =
        (width(|one| one.name.chars().count()), width(|one| one.executor.chars().count()));
    let tokens = width(|one| one.token.chars().count());
    for Entry { name, executor, url, token, .. } in [&head].into_iter().chain(&entries) {
        output::data(&format_args!("{name:names$}  {executor:executors$}  {token:tokens$}  {url}"));
    }
    Ok(Exit::Success)
}
