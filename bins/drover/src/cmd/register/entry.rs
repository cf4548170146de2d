//! The new entry, put together from flags, template and answers.

use std::path::Path;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{ArgAction, Args};
use config::{ExecutorName, SecretString};
use gitlab_api::{ExposeSecret as _, RunnerRecord};
use toml::{Table, Value};

use super::executors;
use super::prompt::Prompt;
use super::sections::SectionFlags;
use crate::arguments::{Number, Switch, filled};
use crate::failure::Failure;

/// Keys that a template must not bring: they belong to one registration.
const PERSONAL: [&str; 4] = ["token", "id", "token_obtained_at", "token_expires_at"];

/// The keys of `[[runners]]` that have flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "The runner entry")]
pub(super) struct RunnerFlags {
    /// Address of GitLab.
    #[arg(long, short, env = "CI_SERVER_URL", hide_env_values = true)]
    url: Option<String>,
    /// Token of a runner that was created in GitLab.
    #[arg(long, short, env = "CI_SERVER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Name in logs and metrics [default: the host's].
    #[arg(long, visible_alias = "description", env = "RUNNER_NAME", hide_env_values = true)]
    name: Option<String>,
    /// How jobs are run: instance, docker-autoscaler, docker+machine, ...
    #[arg(long, env = "RUNNER_EXECUTOR", hide_env_values = true)]
    executor: Option<String>,
    /// PEM file with certificates that are trusted beside the system's.
    #[arg(long, env = "CI_SERVER_TLS_CA_FILE", hide_env_values = true, value_name = "FILE")]
    tls_ca_file: Option<String>,
    /// PEM file with the client certificate.
    #[arg(long, env = "CI_SERVER_TLS_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    tls_cert_file: Option<String>,
    /// PEM file with the client certificate's key.
    #[arg(long, env = "CI_SERVER_TLS_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    tls_key_file: Option<String>,
    /// Most jobs of this runner at the same time; 0 for no limit of its own.
    #[arg(long, env = "RUNNER_LIMIT", hide_env_values = true, value_name = "JOBS", value_parser = crate::arguments::number)]
    limit: Option<Number>,
    /// Most bytes of a job log, in kilobytes.
    #[arg(long, env = "RUNNER_OUTPUT_LIMIT", hide_env_values = true, value_name = "KB",
        value_parser = crate::arguments::number)]
    output_limit: Option<Number>,
    /// Job requests in flight at the same time.
    #[arg(long, env = "RUNNER_REQUEST_CONCURRENCY", hide_env_values = true, value_name = "REQUESTS",
        value_parser = crate::arguments::number)]
    request_concurrency: Option<Number>,
    /// Unhealthy answers in a row after which the runner is left alone.
    #[arg(long, value_name = "ANSWERS", value_parser = crate::arguments::number)]
    unhealthy_requests_limit: Option<Number>,
    /// How long an unhealthy runner is left alone.
    #[arg(long, value_name = "DURATION")]
    unhealthy_interval: Option<String>,
    // The name of the variable is GitLab Runner's, by mistake or not.
    /// How often the final state of a job is sent when GitLab does not take it.
    #[arg(long, env = "RUNNER_job_status_final_update_retry_limit", hide_env_values = true, value_name = "TIMES",
        value_parser = crate::arguments::number)]
    job_status_final_update_retry_limit: Option<Number>,
    /// Root of the build directories.
    #[arg(long, env = "RUNNER_BUILDS_DIR", hide_env_values = true, value_name = "FOLDER")]
    builds_dir: Option<String>,
    /// Root of the local cache archives.
    #[arg(long, env = "RUNNER_CACHE_DIR", hide_env_values = true, value_name = "FOLDER")]
    cache_dir: Option<String>,
    /// URL that replaces the one of GitLab when sources are fetched.
    #[arg(long, env = "CLONE_URL", hide_env_values = true, value_name = "URL")]
    clone_url: Option<String>,
    /// Variable added to every job. Repeatable.
    #[arg(long, env = "RUNNER_ENV", hide_env_values = true, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Feature flag `FF_...`. Repeatable.
    #[arg(long, env = "FEATURE_FLAGS", hide_env_values = true, value_name = "NAME:true|false")]
    feature_flags: Vec<String>,
    /// Shell that scripts are written for.
    #[arg(long, env = "RUNNER_SHELL", hide_env_values = true)]
    shell: Option<String>,
    /// Commands run before sources are fetched.
    #[arg(long, env = "RUNNER_PRE_GET_SOURCES_SCRIPT", hide_env_values = true, value_name = "SCRIPT")]
    pre_get_sources_script: Option<String>,
    /// Commands run after sources were fetched.
    #[arg(long, env = "RUNNER_POST_GET_SOURCES_SCRIPT", hide_env_values = true, value_name = "SCRIPT")]
    post_get_sources_script: Option<String>,
    /// Commands run before the job's script.
    #[arg(long, env = "RUNNER_PRE_BUILD_SCRIPT", hide_env_values = true, value_name = "SCRIPT")]
    pre_build_script: Option<String>,
    /// Commands run after the job's script.
    #[arg(long, env = "RUNNER_POST_BUILD_SCRIPT", hide_env_values = true, value_name = "SCRIPT")]
    post_build_script: Option<String>,
    /// Ignore `CI_DEBUG_TRACE`.
    #[arg(long, env = "RUNNER_DEBUG_TRACE_DISABLED", hide_env_values = true, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true",
        value_parser = crate::arguments::switch)]
    debug_trace_disabled: Option<Switch>,
    #[command(flatten)]
    pub(super) sections: SectionFlags,
}

// === impl RunnerFlags ===

impl RunnerFlags {
    /// The authentication token, if one was given.
    pub(super) fn token(&self) -> Option<&str> {
        filled(self.token.as_ref())
    }

    /// Writes what the flags say over what the template says.
    pub(super) fn fill(&self, entry: &mut Table) -> Result<(), Failure> {
        let texts = [
            ("url", &self.url),
            ("name", &self.name),
            ("executor", &self.executor),
            ("unhealthy_interval", &self.unhealthy_interval),
            ("builds_dir", &self.builds_dir),
            ("cache_dir", &self.cache_dir),
            ("clone_url", &self.clone_url),
            ("shell", &self.shell),
            ("pre_get_sources_script", &self.pre_get_sources_script),
            ("post_get_sources_script", &self.post_get_sources_script),
            ("pre_build_script", &self.pre_build_script),
            ("post_build_script", &self.post_build_script),
        ];
        for (key, text) in texts {
            if let Some(text) = filled(text.as_ref()) {
                entry.insert(key.to_owned(), text.into());
            }
        }
        let files = [
            ("tls-ca-file", &self.tls_ca_file),
            ("tls-cert-file", &self.tls_cert_file),
            ("tls-key-file", &self.tls_key_file),
        ];
        for (key, file) in files {
            if let Some(file) = filled(file.as_ref()) {
                // The shell's folder is not the one of the process that reads the file.
                let file = std::path::absolute(file).context("failed to find the working directory")?;
                entry.insert(key.to_owned(), file.display().to_string().into());
            }
        }
        let numbers = [
            ("limit", self.limit),
            ("output_limit", self.output_limit),
            ("request_concurrency", self.request_concurrency),
            ("unhealthy_requests_limit", self.unhealthy_requests_limit),
            ("job_status_final_update_retry_limit", self.job_status_final_update_retry_limit),
        ];
        for (key, number) in numbers {
            if let Some(number) = number.and_then(|number| number.0) {
                entry.insert(key.to_owned(), number.into());
            }
        }
        if let Some(disabled) = self.debug_trace_disabled.and_then(|switch| switch.0) {
            entry.insert("debug_trace_disabled".to_owned(), disabled.into());
        }
        let variables: Vec<Value> =
            self.env.iter().filter(|text| !text.is_empty()).map(|text| text.as_str().into()).collect();
        if !variables.is_empty() {
            entry.insert("environment".to_owned(), variables.into());
        }
        let mut flags = Table::new();
        for text in self.feature_flags.iter().filter(|text| !text.is_empty()) {
            let (name, value) = text.split_once(':').unwrap_or((text, "true"));
            let on = crate::arguments::flag(value)
                .map_err(|why| Failure::misuse(format_args!("--feature-flags {text}: {why}")))?;
            flags.insert(name.to_owned(), on.0.into());
        }
        if !flags.is_empty() {
            entry.insert("feature_flags".to_owned(), flags.into());
        }
        Ok(())
    }
}

/// Reads the one entry of a template.
pub(super) fn template(path: &Path) -> Result<Table, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the template `{name}`"))
        .map_err(Failure::usage)?;
    let mut file: Table = text
        .parse()
        .with_context(|| format!("the template `{name}` is not valid TOML"))
        .map_err(Failure::usage)?;
    let one = match file.remove("runners") {
        Some(Value::Array(mut runners)) if runners.len() == 1 => runners.pop(),
        Some(_) | None => None,
    };
    let Some(Value::Table(mut entry)) = one else {
        return Err(Failure::misuse(format_args!(
            "the template `{name}` must have exactly one [[runners]] entry"
        )));
    };
    entry.retain(|key, _| !PERSONAL.contains(&key));
    Ok(entry)
}

/// Makes sure that there is a URL.
pub(super) fn ask_url(entry: &mut Table, prompt: &mut Prompt) -> Result<(), Failure> {
    if text(entry, "url").is_some() {
        return Ok(());
    }
    match prompt.text("Address of GitLab, for example https://gitlab.com", "")? {
        Some(url) => {
            entry.insert("url".to_owned(), url.into());
            Ok(())
        }
        None => {
            Err(Failure::misuse("no address of GitLab").hint("pass --url, for example https://gitlab.com"))
        }
    }
}

/// Makes sure that there is a name.
pub(super) fn ask_name(entry: &mut Table, prompt: &mut Prompt, host: &str) -> Result<(), Failure> {
    if text(entry, "name").is_none()
        && let Some(name) = prompt.text("Name of the runner, kept in the file", host)?
    {
        entry.insert("name".to_owned(), name.into());
    }
    Ok(())
}

/// Makes sure that there is an executor, and a known one.
pub(super) fn ask_executor(entry: &mut Table, prompt: &mut Prompt) -> Result<(), Failure> {
    if text(entry, "executor").is_none() {
        let answer = prompt.text(&format!("Executor, one of {}", executors()), "")?;
        let executor = answer.ok_or_else(|| {
            Failure::misuse("no executor").hint(format!("pass --executor, one of {}", executors()))
        })?;
        entry.insert("executor".to_owned(), executor.into());
    }
    match text(entry, "executor").and_then(ExecutorName::from_name) {
        Some(_) => Ok(()),
        None => {
            let name = text(entry, "executor").unwrap_or_default();
            Err(Failure::misuse(format_args!("executor `{name}` is not known"))
                .hint(format!("pass --executor, one of {}", executors())))
        }
    }
}

/// Makes sure that an entry for containers has a default image, and gives it the cache volume that GitLab Runner gives it.
pub(super) fn ask_image(entry: &mut Table, prompt: &mut Prompt) -> Result<(), Failure> {
    if !text(entry, "executor").and_then(ExecutorName::from_name).is_some_and(ExecutorName::uses_docker) {
        return Ok(());
    }
    let docker = entry.entry("docker").or_insert_with(|| Value::Table(Table::new()));
    let Some(docker) = docker.as_table_mut() else {
        return Err(Failure::misuse("`docker` of the template is not a section"));
    };
    if text(docker, "image").is_none() {
        let image =
            prompt.text("Default image of jobs, for example alpine:latest", "")?.ok_or_else(|| {
                Failure::misuse("no default image").hint("pass --docker-image, for example alpine:latest")
            })?;
        docker.insert("image".to_owned(), image.into());
    }
    let uncached = docker.get("disable_cache").and_then(Value::as_bool).unwrap_or(false);
    let volumes = docker.entry("volumes").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(volumes) = volumes.as_array_mut()
        && !uncached
        && !volumes.iter().filter_map(Value::as_str).any(|volume| volume.rsplit(':').next() == Some("/cache"))
    {
        volumes.push("/cache".into());
    }
    Ok(())
}

/// The entry with what makes it this runner's. Times are in UTC, in seconds, as in GitLab Runner's files.
pub(super) fn with_token(
    entry: &Table,
    token: &SecretString,
    record: Option<(&RunnerRecord, DateTime<Utc>)>,
) -> Table {
    let mut entry = entry.clone();
    entry.insert("token".to_owned(), token.expose_secret().into());
    if let Some((record, now)) = record {
        if let Ok(id) = i64::try_from(record.id)
            && id > 0
        {
            entry.insert("id".to_owned(), id.into());
        }
        insert_time(&mut entry, "token_obtained_at", now);
        if let Some(end) = record.token_expires_at {
            insert_time(&mut entry, "token_expires_at", end);
        }
    }
    entry
}

fn insert_time(entry: &mut Table, key: &str, time: DateTime<Utc>) {
    // What chrono writes is a time in TOML.
    if let Ok(time) = time.to_rfc3339_opts(SecondsFormat::Secs, true).parse() {
        entry.insert(key.to_owned(), Value::Datetime(time));
    }
}

fn text<'a>(entry: &'a Table, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_loses_what_belongs_to_one_registration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[[runners]]\n  limit = 5\n  token = \"old\"\n  id = 3\n  [runners.docker]\n    image = \"alpine\"\n";
        std::fs::write(file.path(), text).unwrap();
        let entry = template(file.path()).unwrap();
        let keys: Vec<&String> = entry.keys().collect();
        assert_eq!(keys, ["docker", "limit"]);
    }

    #[test]
    fn a_template_has_exactly_one_entry() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "[[runners]]\n[[runners]]\n", "runners = 3\n"] {
            std::fs::write(file.path(), text).unwrap();
            assert!(template(file.path()).unwrap_err().to_string().contains("exactly one"), "{text}");
        }
    }
}
