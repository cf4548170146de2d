//! `drover doctor`.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use config::{Config, Diagnostic, LoadError, Loaded, Runner, Verdict};
use gitlab_api::Verification;
use manager::{BuiltIn, Examination, Finding, Providers as _, Severity};
use serde::Serialize;

use super::status::socket_path;
use crate::arguments::{ConfigArguments, LogArguments, filled};
use crate::failure::{Exit, Failure};
use crate::gitlab::{self, Calls, Selection};
use crate::{identity, output};

const HELP: &str = "\
Ends with 0 if nothing is in the way of jobs (warnings are fine), with 1 if errors were found, and with 2 if the \
configuration file cannot be used. Nothing is changed, neither here nor in the cloud; instances are logged in to \
only with --connect.

Examples:
  drover doctor
  drover doctor --runner build --connect
  drover doctor --json | jq -r '.findings[] | select(.severity == \"error\") | .repair'";

/// Say what stands in the way of jobs, what it leads to, and the command that repairs it.
///
/// Examines the configuration, whether GitLab is there and knows the tokens, key files, ports, folders, helpers and Docker
/// engines, asks each provider about credentials, permissions and the settings of its group, and compares the limits of the file
/// with the size of the group.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Only the entry of this name, and what concerns all entries.
    #[arg(long, short, value_name = "NAME")]
    runner: Option<String>,
    /// Log in to an instance of each entry, if one runs, and look there for what jobs need: shell, git, helper, or the Docker
    /// engine. The only trace is a login, and on AWS a key that is let in for a minute.
    #[arg(long)]
    connect: bool,
    /// As JSON: an object with file, errors, warnings and findings (docs/operations.md has the format).
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Examined<'a> {
    file: String,
    errors: usize,
    warnings: usize,
    findings: &'a [Found],
}

/// A finding, and the entry that it concerns.
#[derive(Serialize)]
struct Found {
    /// None: all of them.
    runner: Option<String>,
    #[serde(flatten)]
    finding: Finding,
}

/// Examines everything that a manager with this file needs.
pub(crate) fn doctor(options: &DoctorArguments, log: &LogArguments) -> Result<Exit, Failure> {
    log.start();
    let path = std::path::absolute(options.config.path())?;
    let loaded = match config::load(&path) {
        Ok(mut loaded) => {
            let base = identity::directory(&path);
            loaded.check_files(&base);
            manager::verify(&mut loaded, &BuiltIn, Some(&base));
            loaded
        }
        Err(LoadError::Invalid(invalid)) => {
            let found: Vec<Found> = invalid.diagnostics.iter().map(|found| of_file(found, None)).collect();
            print(options, &path, &found)?;
            return Ok(Exit::Usage);
        }
        Err(error @ LoadError::Read { .. }) => {
            let hint = gitlab::unread(&error, "`drover doctor --config FILE`");
            return Err(Failure::usage(error).hint(hint));
        }
    };
    let found = gitlab::runtime()?.block_on(examine(options, &path, &loaded))?;
    print(options, &path, &found)?;
    let errors = found.iter().any(|found| found.finding.severity == Severity::Error);
    Ok(if errors { Exit::Failed } else { Exit::Success })
}

async fn examine(options: &DoctorArguments, path: &Path, loaded: &Loaded) -> Result<Vec<Found>, Failure> {
    let config = &loaded.config;
    let name = filled(options.runner.as_ref());
    let chosen = Selection { name, ..Selection::default() }.of(&config.runners);
    if chosen.is_empty() && name.is_some() {
        return Err(Failure::message("no runner entry fits").hint("`drover list` shows the entries"));
    }
    let label = |index: usize| config.runners.get(index).map(Runner::label);
    let mut found: Vec<Found> = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.runner.is_none_or(|index| chosen.contains(&index)))
        .map(|diagnostic| of_file(diagnostic, diagnostic.runner.and_then(label)))
        .collect();
    let general = |finding| Found { runner: None, finding };
    found.extend(ports(config, path).await.into_iter().map(general));
    found.push(general(spool()));
    // As `verify`: GitLab is told which manager asks.
    let calls = match Calls::only_looking(path) {
        Ok(calls) => Some(calls),
        Err(error) => {
            let folder = identity::directory(path);
            let finding = Finding::new(Severity::Error, "manager/system-id", format!("{error:#}"))
                .leads_to("the manager does not start")
                .repair(format!(
                    "chown -R \"$(id -un)\" {}   # as the user who runs drover",
                    folder.display()
                ));
            found.push(general(finding));
            None
        }
    };
    let verdicts = loaded.verdicts(&BuiltIn.capabilities());
    for index in chosen {
        let (Some(runner), Some(verdict)) = (config.runners.get(index), verdicts.get(index)) else {
            continue;
        };
        let own = |finding| Found { runner: Some(runner.label()), finding };
        if let Some(calls) = &calls {
            found.push(own(token(calls, config, runner).await));
        }
        match verdict {
            Verdict::Runnable => {
                let examination = Examination {
                    runner,
                    config,
                    providers: &BuiltIn,
                    base: &identity::directory(path),
                    system_id: calls.as_ref().map_or("", |calls| calls.system_id.as_str()),
                    connect: options.connect,
                };
                found.extend(manager::diagnose(&examination).await.into_iter().map(own));
            }
            // The file was found fault with above.
            Verdict::Refused(_) if is_faulty(loaded, index) => {}
            Verdict::Refused(why) => found.push(own(Finding::new(Severity::Error, "entry/build", why)
                .leads_to("the entry takes no jobs")
                .repair("drover --version   # shows the build; docs/migration.md says what it has not"))),
        }
    }
    Ok(found)
}

fn is_faulty(loaded: &Loaded, runner: usize) -> bool {
    loaded.diagnostics.iter().any(|diagnostic| diagnostic.is_error() && diagnostic.runner == Some(runner))
}

/// A finding of `drover config check`.
fn of_file(diagnostic: &Diagnostic, runner: Option<String>) -> Found {
    let severity = if diagnostic.is_error() { Severity::Error } else { Severity::Warning };
    let mut what = String::new();
    if let Some(line) = diagnostic.line {
        let _ = write!(what, "line {line}: ");
    }
    if !diagnostic.key.is_empty() {
        let _ = write!(what, "{}: ", diagnostic.key);
    }
    what.push_str(&diagnostic.message);
    let leads_to = match severity {
        Severity::Error => "the file, or this entry, is not used",
        Severity::Good | Severity::Notice | Severity::Warning => "works, but hardly as meant",
    };
    let finding = Finding::new(severity, format!("config/{}", diagnostic.rule), what)
        .leads_to(leads_to)
        .repair(diagnostic.hint.clone().unwrap_or_default());
    Found { runner, finding }
}

/// Whether GitLab is there and knows the token of an entry.
async fn token(calls: &Calls, config: &Config, runner: &Runner) -> Finding {
    let url = runner.url();
    let unreachable = |why: String| {
        Finding::new(Severity::Error, "gitlab/reachable", format!("GitLab at {url} cannot be asked: {why}"))
            .leads_to("the entry gets no jobs")
            .repair(format!(
                "curl -sS -o /dev/null -w '%{{http_code}}\\n' {}/api/v4/version",
                url.trim_end_matches('/')
            ))
    };
    let Some(token) = runner.token() else {
        return Finding::new(Severity::Error, "gitlab/token", "the entry has no token")
            .leads_to("the entry takes no jobs")
            .repair(format!("drover register --url {url} --token \"$TOKEN\""));
    };
    let (client, info) = match (calls.client(runner), gitlab::info(config, runner)) {
        (Ok(client), Ok(info)) => (client, info),
        (Err(error), _) | (_, Err(error)) => return unreachable(gitlab_api::ApiError::from(error).report()),
    };
    match client.verify(token, &calls.system_id, &info).await {
        Verification::Valid(_) => {
            Finding::good("gitlab/token", format!("GitLab at {url} knows the token {}", runner.short_token()))
        }
        Verification::Invalid => {
            let what = format!("GitLab at {url} does not know the token {}", runner.short_token());
            Finding::new(Severity::Error, "gitlab/token", what).leads_to("the entry gets no jobs").repair(format!(
                "drover register --url {url} --token \"$TOKEN\"   # with a token of a runner that exists there"
            ))
        }
        Verification::Unknown(error) => unreachable(error.report()),
    }
}

/// Whether the manager could listen where it is to. A running one does already.
async fn ports(config: &Config, path: &Path) -> Vec<Finding> {
    let session = config.session_server.as_ref().and_then(|session| session.listen_address.clone());
    let addresses = [("listen_address", config.listen_address()), ("session_server.listen_address", session)];
    let running = match socket_path(config, path) {
        Some(socket) => status::ask(&socket).await.is_ok(),
        None => false,
    };
    let mut findings = Vec::new();
    for (key, address) in addresses {
        let Some(address) = address else { continue };
        let check = format!("manager/{key}");
        findings.push(match tokio::net::TcpListener::bind(&address).await {
            Ok(_) => Finding::good(check, format!("{address} is free for `{key}`")),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && running => {
                Finding::good(check, format!("{address} is in use while the manager of this file runs"))
            }
            Err(error) => {
                let port = address.rsplit(':').next().unwrap_or_default();
                Finding::new(
                    Severity::Error,
                    check,
                    format!("`{key}` = {address} cannot be listened on: {error}"),
                )
                .leads_to("the manager does not start")
                .repair(format!(
                    "ss -ltnp 'sport = :{port}'   # shows who listens there; or choose another address"
                ))
            }
        });
    }
    findings
}

/// Whether job logs can be kept until GitLab has them.
fn spool() -> Finding {
    let folder = std::env::temp_dir();
    match tempfile::tempfile_in(&folder) {
        Ok(_) => Finding::good("manager/spool", format!("job logs can be spooled in `{}`", folder.display())),
        Err(error) => {
            let what = format!("`{}` cannot be written to: {error}", folder.display());
            Finding::new(Severity::Error, "manager/spool", what)
                .leads_to("the manager does not start")
                .repair("set TMPDIR to a folder with room that belongs to the user who runs drover")
        }
    }
}

fn print(options: &DoctorArguments, path: &Path, found: &[Found]) -> Result<(), Failure> {
    let count = |severity| found.iter().filter(|found| found.finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if options.json {
        let file = path.display().to_string();
        output::data(&serde_json::to_string_pretty(&Examined { file, errors, warnings, findings: found })?);
        return Ok(());
    }
    let mut about: Option<&Option<String>> = None;
    for one in found {
        if about != Some(&one.runner) {
            match &one.runner {
                Some(runner) => output::data(&format_args!("runner `{runner}`")),
                None => output::data(&format_args!("{}", path.display())),
            }
            about = Some(&one.runner);
        }
        output::data(&text(&one.finding));
    }
    let s = |count| if count == 1 { "" } else { "s" };
    output::data(&format_args!("{errors} error{}, {warnings} warning{}", s(errors), s(warnings)));
    Ok(())
}

/// A finding for people: what, and on lines of their own what follows and what to do.
fn text(finding: &Finding) -> String {
    let mut text = format!("  {:<8} {}: {}", finding.severity, finding.check, finding.what);
    if !finding.leads_to.is_empty() {
        let _ = write!(text, "\n           so: {}", finding.leads_to);
    }
    if !finding.repair.is_empty() {
        let _ = write!(text, "\n           do: {}", finding.repair);
    }
    text
}
