//! Rules that a file of the right types can still break.

mod autoscaler;
mod docker;
mod files;
mod flags;
mod machine;
mod runner;

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::{Config, Runner};
use crate::read::KeyPath;

pub(crate) use files::{check_files, check_own};

/// Most labels of a runner, global ones included.
const MOST_LABELS: usize = 32;

/// Findings of the rules, without their places.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Vec<Diagnostic>,
}

/// Applies every rule that needs nothing but the file.
pub(crate) fn check(config: &Config) -> Vec<Diagnostic> {
    let mut findings = Findings::default();
    let root = KeyPath::default();
    global(config, &mut findings);
    for (index, runner) in config.runners.iter().enumerate() {
        let at = root.key("runners").index(index);
        runner::check(config, runner, &at, &mut findings);
    }
    duplicates(&config.runners, &mut findings);
    autoscaler::shared_groups(&config.runners, &root.key("runners"), &mut findings);
    long_polling(config, &mut findings);
    findings.found
}

// === impl Findings ===

impl Findings {
    pub(crate) fn error(&mut self, rule: &'static str, at: &KeyPath, message: impl Into<String>, hint: &str) {
        self.found.push(Diagnostic::new(Severity::Error, rule, at.as_str(), message).hint(hint));
    }

    pub(crate) fn warning(
        &mut self,
        rule: &'static str,
        at: &KeyPath,
        message: impl Into<String>,
        hint: &str,
    ) {
        self.found.push(Diagnostic::new(Severity::Warning, rule, at.as_str(), message).hint(hint));
    }

    /// A number that must not be below zero.
    pub(crate) fn not_negative(&mut self, at: &KeyPath, key: &str, value: Option<i64>, zero: &str) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.error(
                "impossible",
                &at.key(key),
                format!("`{key}` cannot be negative, found {value}"),
                zero,
            );
        }
    }

    /// A number of seconds that means its default when it is below zero.
    fn default_below_zero(&mut self, at: &KeyPath, key: &str, value: Option<i64>, default: &str) {
        if let Some(value) = value.filter(|value| *value < 0) {
            let message = format!("`{key}` is negative, found {value}; the default of {default} applies");
            self.warning("negative-time", &at.key(key), message, "remove the key for its default");
        }
    }

    /// A time zone by its name.
    pub(crate) fn zone(&mut self, at: &KeyPath, key: &str, name: Option<&str>) {
        if let Some(name) = name.filter(|name| *name != "Local")
            && let Err(error) = name.parse::<taskscaler_core::Zone>()
        {
            self.error(
                "time-zone",
                &at.key(key),
                error.to_string(),
                "remove the key for the local time of the host",
            );
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Diagnostic> {
        self.found
    }
}

fn global(config: &Config, findings: &mut Findings) {
    let root = KeyPath::default();
    if let Some(concurrent) = config.concurrent.filter(|concurrent| *concurrent < 1) {
        findings.error(
            "concurrent",
            &root.key("concurrent"),
            format!("`concurrent` must be at least 1, found {concurrent}"),
            "it is the most jobs at the same time over all runners; set it to max_instances x capacity_per_instance, \
             summed up over the runners",
        );
    }
    findings.default_below_zero(&root, "check_interval", config.check_interval, "3 s");
    findings.default_below_zero(&root, "shutdown_timeout", config.shutdown_timeout, "30 s");
    if let Some(session) = &config.session_server {
        let at = root.key("session_server");
        findings.default_below_zero(&at, "session_timeout", session.session_timeout, "1800 s");
    }
    if let Some(drain) = config.machine.as_ref().and_then(|machine| machine.shutdown_drain.as_ref()) {
        let at = root.key("machine").key("shutdown_drain");
        findings.not_negative(&at, "concurrency", drain.concurrency, "0 means the default of 3");
        findings.not_negative(&at, "max_retries", drain.max_retries, "0 means one attempt per machine");
        if drain.enabled && config.shutdown_timeout().as_secs() < 300 {
            findings.warning(
                "drain-time",
                &at.key("enabled"),
                format!(
                    "machines are removed at shutdown, but `shutdown_timeout` leaves only {} s for it",
                    config.shutdown_timeout().as_secs()
                ),
                "set shutdown_timeout = 300 or more",
            );
        }
    }
    labels(&config.labels, &root.key("labels"), findings);
}

/// Rules for labels (GitLab Runner refuses the file when one is broken).
fn labels(labels: &BTreeMap<String, String>, at: &KeyPath, findings: &mut Findings) {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    for (name, value) in labels {
        let good_start = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !good_start || !(3..=65).contains(&name.len()) || !name.chars().all(part) {
            findings.error(
                "label",
                &at.key(name),
                format!("`{name}` cannot be the name of a label"),
                "a name has 3 to 65 letters, digits, `.`, `_` or `-`, and starts with a letter, a digit or `_`",
            );
        }
        if value.is_empty() || value.len() > 256 || !value.chars().all(part) {
            findings.error(
                "label",
                &at.key(name),
                format!("the value of label `{name}` has a form that GitLab refuses"),
                "a value has 1 to 256 letters, digits, `.`, `_` or `-`",
            );
        }
    }
    if labels.len() > MOST_LABELS {
        findings.error(
            "label",
            at,
            format!("there are {} labels, at most {MOST_LABELS} are possible", labels.len()),
            "remove some",
        );
    }
}

fn duplicates(runners: &[Runner], findings: &mut Findings) {
    let root = KeyPath::default().key("runners");
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tokens: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (index, runner) in runners.iter().enumerate() {
        let at = root.index(index);
        if !runner.name().is_empty() {
            let first = *names.entry(runner.name()).or_insert(index);
            if first != index {
                findings.warning(
                    "duplicate-name",
                    &at.key("name"),
                    format!(
                        "entries {} and {} of [[runners]] are both named `{}`",
                        first + 1,
                        index + 1,
                        runner.name()
                    ),
                    "logs and metrics cannot tell them apart; give each its own name",
                );
            }
        }
        if let Some(token) =
            runner.token().map(|token| token.expose_secret()).filter(|token| !token.is_empty())
        {
            let first = *tokens.entry((runner.url(), token)).or_insert(index);
            if first != index {
                findings.warning(
                    "duplicate-token",
                    &at.key("token"),
                    format!("entries {} and {} of [[runners]] have the same token", first + 1, index + 1),
                    "GitLab sees one runner; register a second one, or raise `limit` and `request_concurrency` of one entry",
                );
            }
        }
    }
}

/// GitLab Runner logs these on each load as `CONFIGURATION: Long polling issues detected.`
fn long_polling(config: &Config, findings: &mut Findings) {
    let root = KeyPath::default();
    let runners = config.runners.len();
    if usize::try_from(config.concurrent()).is_ok_and(|concurrent| concurrent < runners)
        && config.concurrent() > 0
    {
        findings.warning(
            "long-polling",
            &root.key("concurrent"),
            format!("`concurrent` is {}, fewer than the {runners} runners", config.concurrent()),
            "runners wait for each other; set `concurrent` to the number of runners or more",
        );
    }
    for (index, runner) in config.runners.iter().enumerate() {
        if runner.request_concurrency() != 1 {
            continue;
        }
        let at = root.key("runners").index(index).key("request_concurrency");
        match runner.limit() {
            Some(limit @ 1..=2) => findings.warning(
                "long-polling",
                &at,
                format!("`limit` is {limit} and `request_concurrency` is 1: with long polling, a held request delays the next job"),
                "set request_concurrency = 2 or more, and a higher `limit`",
            ),
            Some(_) | None if config.concurrent() > 1 => findings.warning(
                "long-polling",
                &at,
                "`request_concurrency` is 1: with long polling, one job request may be held for up to 50 s while others wait",
                "set request_concurrency = 2 or more",
            ),
            Some(_) | None => {}
        }
    }
}
