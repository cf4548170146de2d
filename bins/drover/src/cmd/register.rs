//! `drover register`.

mod entry;
mod prompt;
mod sections;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use chrono::Utc;
use clap::{ArgAction, Args};
use config::{ConfigFile, ExecutorName, Loaded, Runner, SecretString, Verdict};
use gitlab_api::{
    Client, ExposeSecret as _, Features, InfoFields, RegisterRequest, RunnerInfo, RunnerRecord, TokenKind,
    Verification,
};
use manager::{BuiltIn, Providers as _};

use self::entry::RunnerFlags;
use self::prompt::Prompt;
#[cfg(test)]
pub(crate) use self::sections::reference as section_flags;
use crate::arguments::{ConfigArguments, Flag, LogArguments, Number, Switch, filled};
use crate::cmd::unregister;
use crate::failure::{Exit, Failure};
use crate::gitlab::{self, Calls};
use crate::{identity, output};

const EXAMPLES: &str = "\
Examples:
  drover register
      asks for what it needs to know
  drover register --non-interactive --url https://gitlab.example.com --token \"$TOKEN\" \\
      --executor instance --template-config autoscaler.toml
      takes the sections that have no flags, such as [runners.autoscaler], from a file
  drover register --non-interactive --url https://gitlab.example.com --token \"$TOKEN\" \\
      --executor docker --docker-image alpine:latest --docker-privileged --cache-type s3
      keys of [runners.docker], [runners.cache], [runners.machine] and [runners.ssh] have flags of
      GitLab Runner's names; docs/cli.md lists them, and so does completion

Jobs in containers need a default image (--docker-image), and get a volume for /cache unless --docker-disable-cache is given.";

/// Add a runner to the file.
///
/// Create the runner in GitLab first; it shows the token (`glrt-...`) to pass here. Registration tokens work too, where
/// GitLab still allows them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RegisterArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Ask nothing.
    #[arg(long, short, env = "REGISTER_NON_INTERACTIVE", hide_env_values = true, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_parser = crate::arguments::flag)]
    non_interactive: Flag,
    /// File with one `[[runners]]` entry; its values fill what the command line leaves open. Its token is left out.
    #[arg(long, env = "TEMPLATE_CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    template_config: Option<PathBuf>,
    /// Registration token. Deprecated by GitLab: create the runner there, and pass its token with `--token`.
    #[arg(long, short, env = "REGISTRATION_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    registration_token: Option<String>,
    /// Leave the runner at GitLab when it could not be written to the file.
    #[arg(long, env = "REGISTER_LEAVE_RUNNER", hide_env_values = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, value_name = "BOOL", default_missing_value = "true", default_value = "false", hide_default_value = true,
        value_parser = crate::arguments::flag)]
    leave_runner: Flag,
    #[command(flatten)]
    runner: RunnerFlags,
    #[command(flatten)]
    server: ServerFlags,
}

/// What GitLab keeps, not the file. Only for registration tokens: a runner that was created in GitLab has it set there.
#[derive(Debug, Args)]
#[command(next_help_heading = "With a registration token only")]
struct ServerFlags {
    /// Tags, separated by commas.
    #[arg(long, env = "RUNNER_TAG_LIST", hide_env_values = true, value_name = "TAGS")]
    tag_list: Option<String>,
    /// Take jobs without tags, too [default: if there are no tags].
    #[arg(long, env = "REGISTER_RUN_UNTAGGED", hide_env_values = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, value_name = "BOOL", default_missing_value = "true", value_parser = crate::arguments::switch)]
    run_untagged: Option<Switch>,
    /// Only for the present project [default: true].
    #[arg(long, env = "REGISTER_LOCKED", hide_env_values = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, value_name = "BOOL", default_missing_value = "true", value_parser = crate::arguments::switch)]
    locked: Option<Switch>,
    /// not_protected or ref_protected.
    #[arg(long, env = "REGISTER_ACCESS_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    access_level: Option<String>,
    /// Longest time of a job, in seconds.
    #[arg(long, env = "REGISTER_MAXIMUM_TIMEOUT", hide_env_values = true, value_name = "SECONDS",
        value_parser = crate::arguments::number)]
    maximum_timeout: Option<Number>,
    /// Take no jobs yet.
    #[arg(long, env = "REGISTER_PAUSED", hide_env_values = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, value_name = "BOOL", default_missing_value = "true", value_parser = crate::arguments::switch)]
    paused: Option<Switch>,
    /// Note for people.
    #[arg(long, env = "REGISTER_MAINTENANCE_NOTE", hide_env_values = true, value_name = "TEXT")]
    maintenance_note: Option<String>,
}

/// The token that was given, and what is to be done with it.
enum Credential {
    /// Of a runner that exists.
    Authentication(SecretString),
    /// Makes a new runner.
    Registration(SecretString),
}

/// Registers one runner.
pub(crate) fn register(options: &RegisterArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = options.config.path();
    let mut prompt = Prompt::new(!options.non_interactive.0 && std::io::stdin().is_terminal());
    let mut entry = match filled_path(options.template_config.as_deref()) {
        Some(template) => entry::template(template)?,
        None => toml::Table::new(),
    };
    options.runner.fill(&mut entry)?;
    entry::ask_url(&mut entry, &mut prompt)?;
    let credential = credential(options, &mut prompt)?;
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    entry::ask_name(&mut entry, &mut prompt, &host)?;
    let request = match &credential {
        Credential::Registration(_) => options.server.request(&entry, &mut prompt)?,
        Credential::Authentication(_) => RegisterRequest::default(),
    };
    entry::ask_executor(&mut entry, &mut prompt)?;
    options.runner.sections.fill(&mut entry)?;
    entry::ask_image(&mut entry, &mut prompt)?;

    // Everything that can be wrong with the entry is found before GitLab hears of it. Nothing is asked after that, so the
    // file is written as soon as GitLab has answered.
    let (mut file, before) = existing(&path)?;
    let (given, kind) = credential.parts();
    let index = file.append_runner(&entry::with_token(&entry, given, None))?;
    let mut planned = file.read(&|name| std::env::var(name).ok()).map_err(Failure::usage)?;
    manager::verify(&mut planned, &BuiltIn, Some(&identity::directory(&path)));
    let runner = planned.config.runners.get(index).context("the new entry is not in the file")?;
    check(&planned, index, runner)?;
    if before.config.runners.iter().any(|other| same_token(other, runner)) {
        output::note(&"warning: another entry of the file has the same token");
    }

    let calls = Calls::new(&path)?;
    let client = calls.client(runner).map_err(Failure::usage)?;
    let runtime = gitlab::runtime()?;
    let record = runtime.block_on(async {
        match &credential {
            Credential::Authentication(token) => {
                let info = gitlab::info(&planned.config, runner)?;
                authenticate(&client, token, &calls, &info, kind).await
            }
            Credential::Registration(token) => enlist(&client, token, &request).await,
        }
    })?;

    let own = record.token.0.expose_secret();
    let token = if own.is_empty() { given.clone() } else { record.token.0.clone() };
    let written = write(&mut file, index, &entry::with_token(&entry, &token, Some((&record, Utc::now()))));
    if let Err(error) = written {
        if !options.leave_runner.0 {
            match runtime.block_on(unregister::remove_token(&client, &calls, &token)) {
                Ok(()) => output::note(&"the runner was removed from GitLab again"),
                Err(error) => output::note(&format_args!("warning: the runner is still registered: {error}")),
            }
        }
        return Err(error.into());
    }
    output::note(&format_args!("The runner `{}` is in `{}`.", runner.label(), path.display()));
    output::note(&"If `drover run` is at work, it takes the entry up within 3 seconds.");
    Ok(Exit::Success)
}

/// The file, which need not exist yet.
fn existing(path: &Path) -> Result<(ConfigFile, Loaded), Failure> {
    if path.exists() {
        // Gives the better message for a file that is no good.
        gitlab::load(path)?;
    }
    gitlab::edit(path)
}

/// Refuses an entry that could never work, and says what else is to be said about it.
fn check(planned: &Loaded, index: usize, runner: &Runner) -> Result<(), Failure> {
    for found in planned.diagnostics.iter().filter(|found| found.runner == Some(index)) {
        if found.is_error() {
            let failure = Failure::misuse(format_args!("the entry cannot work: {}", found.message));
            return Err(match &found.hint {
                Some(hint) => failure.hint(hint.clone()),
                None => failure,
            });
        }
        output::note(&format_args!("warning: {}", found.message));
    }
    if let Verdict::Refused(why) = BuiltIn.capabilities().verdict(runner) {
        output::note(&format_args!("warning: the entry takes no jobs yet: {why}"));
    }
    Ok(())
}

fn same_token(one: &Runner, other: &Runner) -> bool {
    let token = |runner: &Runner| runner.token().map(|token| token.expose_secret().to_owned());
    token(one).is_some() && token(one) == token(other)
}

fn write(file: &mut ConfigFile, index: usize, entry: &toml::Table) -> anyhow::Result<()> {
    file.remove_runner(index)?;
    file.append_runner(entry)?;
    file.save().context("failed to write the entry")
}

/// Tells GitLab that this manager serves a runner that exists.
async fn authenticate(
    client: &Client,
    token: &SecretString,
    calls: &Calls,
    info: &RunnerInfo,
    kind: TokenKind,
) -> Result<RunnerRecord, Failure> {
    let hint = match kind {
        TokenKind::Authentication => "create a runner in GitLab and pass the token that it shows",
        TokenKind::Legacy => "pass a registration token with --registration-token",
    };
    match client.verify(token, &calls.system_id, info).await {
        Verification::Valid(record) if record.id == 0 && kind == TokenKind::Authentication => {
            Err(Failure::message("GitLab did not say which runner has this token")
                .hint("is the URL that of a GitLab?"))
        }
        Verification::Valid(record) => Ok(record),
        Verification::Invalid => Err(Failure::message("GitLab refused the token").hint(hint)),
        Verification::Unknown(error) => {
            Err(Failure::from(anyhow!(error).context("failed to verify the runner")).hint("check the URL"))
        }
    }
}

/// Makes a new runner, in the way that GitLab is leaving behind.
async fn enlist(
    client: &Client,
    token: &SecretString,
    request: &RegisterRequest,
) -> Result<RunnerRecord, Failure> {
    output::note(
        &"warning: registration tokens are deprecated by GitLab: create the runner there, and pass its token with --token",
    );
    let info = RunnerInfo::new(InfoFields { features: Features::NETWORK, ..identity::fields() })?;
    let record = client.register(token, request, &info).await.context("failed to register the runner")?;
    if record.token.0.expose_secret().is_empty() {
        return Err(Failure::message("GitLab did not say the new runner's token"));
    }
    Ok(record)
}

/// The token of the command line, or of the person at the terminal.
fn credential(options: &RegisterArguments, prompt: &mut Prompt) -> Result<Credential, Failure> {
    if let Some(token) = options.runner.token() {
        let kind = TokenKind::of(token);
        if kind == TokenKind::Authentication
            && let [first, ..] = options.server.given().as_slice()
        {
            return Err(Failure::misuse(format_args!(
                "{first} cannot be set for a runner that was created in GitLab"
            ))
            .hint("set it in GitLab, where the runner was created"));
        }
        return Ok(Credential::Authentication(token.into()));
    }
    let given = filled(options.registration_token.as_ref()).map(SecretString::from);
    let token = match given {
        Some(token) => token,
        None => prompt.secret("Token of the runner, or registration token")?.ok_or_else(|| {
            Failure::misuse("no token").hint("pass --token, as GitLab shows it for a new runner")
        })?,
    };
    if TokenKind::of(token.expose_secret()) == TokenKind::Legacy {
        return Ok(Credential::Registration(token));
    }
    for name in options.server.given() {
        output::note(&format_args!("warning: {name} has no effect: GitLab has it set for this runner"));
    }
    Ok(Credential::Authentication(token))
}

fn filled_path(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

// === impl Credential ===

impl Credential {
    fn parts(&self) -> (&SecretString, TokenKind) {
        let (Self::Authentication(token) | Self::Registration(token)) = self;
        (token, TokenKind::of(token.expose_secret()))
    }
}

// === impl ServerFlags ===

impl ServerFlags {
    /// The flags that say something.
    fn given(&self) -> Vec<&'static str> {
        let switch = |switch: Option<Switch>| switch.is_some_and(|switch| switch.0.is_some());
        [
            ("--tag-list", filled(self.tag_list.as_ref()).is_some()),
            ("--run-untagged", switch(self.run_untagged)),
            ("--locked", switch(self.locked)),
            ("--access-level", filled(self.access_level.as_ref()).is_some()),
            ("--maximum-timeout", self.maximum_timeout.is_some_and(|timeout| timeout.0.is_some())),
            ("--paused", switch(self.paused)),
            ("--maintenance-note", filled(self.maintenance_note.as_ref()).is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    fn request(&self, entry: &toml::Table, prompt: &mut Prompt) -> Result<RegisterRequest, Failure> {
        let text = |text: &Option<String>| filled(text.as_ref()).unwrap_or_default().to_owned();
        let switch = |switch: Option<Switch>| switch.and_then(|switch| switch.0);
        let tag_list = match filled(self.tag_list.as_ref()) {
            Some(tags) => tags.to_owned(),
            None => prompt.text("Tags, separated by commas", "")?.unwrap_or_default(),
        };
        let timeout = self.maximum_timeout.and_then(|timeout| timeout.0).unwrap_or(0);
        Ok(RegisterRequest {
            description: entry.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned(),
            maintenance_note: text(&self.maintenance_note),
            run_untagged: switch(self.run_untagged).unwrap_or(tag_list.is_empty()),
            tag_list,
            // GitLab Runner's default.
            locked: switch(self.locked).unwrap_or(true),
            access_level: text(&self.access_level),
            maximum_timeout: u64::try_from(timeout)
                .map_err(|_| Failure::misuse("--maximum-timeout must not be negative"))?,
            paused: switch(self.paused).unwrap_or(false),
        })
    }
}

/// The names of the executors, for prompts and messages.
fn executors() -> String {
    ExecutorName::NAMES.join(", ")
}
