//! Rules for one entry of `[[runners]]`.

use secrecy::ExposeSecret;

use super::{Findings, MOST_LABELS, autoscaler, docker, flags, labels, machine};
use crate::capability::ExecutorName;
use crate::model::{Cache, Config, Runner, Shell, Ssh};
use crate::read::KeyPath;

pub(super) fn check(config: &Config, runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    url(runner, at, findings);
    token(runner, at, findings);
    limits(runner, at, findings);
    tls(runner, at, findings);
    environment(runner, at, findings);
    flags::check(runner, at, findings);
    labels(&runner.labels, &at.key("labels"), findings);
    let all_labels = config.labels_of(runner).len();
    if all_labels > MOST_LABELS && runner.labels.len() <= MOST_LABELS {
        findings.error(
            "label",
            &at.key("labels"),
            format!("together with the global ones there are {all_labels} labels, at most {MOST_LABELS} are possible"),
            "remove some",
        );
    }
    executor(runner, at, findings);
    slots(runner, at, findings);
    if let Some(settings) = &runner.autoscaler {
        autoscaler::check(runner, settings, &at.key("autoscaler"), findings);
    }
    if let Some(settings) = &runner.machine {
        machine::check(settings, &at.key("machine"), findings);
    }
    if let Some(settings) = &runner.docker {
        docker::check(runner, settings, &at.key("docker"), findings);
    }
    if let Some(settings) = &runner.cache {
        cache(settings, &at.key("cache"), findings);
    }
    if let Some(settings) = runner.ssh.as_ref().filter(|_| runner.executor() == Some(ExecutorName::Ssh)) {
        ssh(settings, &at.key("ssh"), findings);
    }
    if let Some(monitoring) = &runner.monitoring {
        let at = at.key("monitoring").key("job_queuing_durations");
        for (index, entry) in monitoring.job_queuing_durations.iter().enumerate() {
            let at = at.index(index);
            autoscaler::periods(&entry.periods, &at, findings);
            findings.zone(&at, "timezone", entry.timezone.as_deref());
            if entry.threshold.is_none() {
                findings.warning(
                    "no-threshold",
                    &at,
                    "the entry has no `threshold`",
                    "every wait counts as too long; set one",
                );
            }
        }
    }
}

fn url(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    let at = at.key("url");
    if runner.url().is_empty() {
        let hint = "write the address of GitLab, such as \"https://gitlab.example.com\"";
        findings.error("no-url", &at, format!("{} has no `url`", called(runner, &at)), hint);
        return;
    }
    let parsed = url::Url::parse(runner.url());
    match parsed {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            if url.path().trim_end_matches('/').ends_with("/ci") {
                let message = "`url` ends in `/ci`, which breaks the addresses of submodules";
                findings.warning("url-suffix", &at, message, "remove the `/ci`");
            }
        }
        Ok(url) => findings.error(
            "url",
            &at,
            format!("`url` must begin with http:// or https://, found the scheme `{}`", url.scheme()),
            "write the address of GitLab, such as \"https://gitlab.example.com\"",
        ),
        Err(error) => {
            let hint = if is_placeholder(runner.url()) {
                "it looks like a placeholder: write the address of your GitLab, such as \"https://gitlab.example.com\""
            } else {
                "write the address of GitLab, such as \"https://gitlab.example.com\""
            };
            findings.error("url", &at, format!("`url` is not an address: {error}"), hint);
        }
    }
}

fn token(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    let at = at.key("token");
    let token = runner.token().map(|token| token.expose_secret()).unwrap_or_default();
    if token.is_empty() {
        findings.error(
            "no-token",
            &at,
            format!("{} has no `token`", called(runner, &at)),
            "create a runner in GitLab and register it with its authentication token (`glrt-...`)",
        );
    } else if is_placeholder(token) {
        findings.warning(
            "placeholder",
            &at,
            "`token` looks like a placeholder",
            "write the runner's authentication token",
        );
    } else if token.starts_with("glrtr-") || token.starts_with("GR1348941") {
        findings.warning(
            "registration-token",
            &at,
            "`token` is a registration token, with which no job can be had",
            "register the runner; the authentication token is then stored here",
        );
    }
}

fn limits(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    findings.not_negative(at, "limit", runner.limit, "0 means no limit of its own");
    findings.not_negative(at, "output_limit", runner.output_limit, "0 means the default of 4096");
    findings.not_negative(at, "request_concurrency", runner.request_concurrency, "write 1 or more");
    findings.not_negative(
        at,
        "unhealthy_requests_limit",
        runner.unhealthy_requests_limit,
        "0 means the default of 3",
    );
    let retries = runner.job_status_final_update_retry_limit;
    findings.not_negative(at, "job_status_final_update_retry_limit", retries, "0 means the default of 10");
    if runner.request_concurrency == Some(0) {
        let message = "`request_concurrency` is 0 and counts as 1";
        findings.warning("zero", &at.key("request_concurrency"), message, "write 1 or more");
    }
    if let Some(limit) = runner.limit().filter(|limit| *limit < runner.request_concurrency()) {
        findings.warning(
            "request-concurrency",
            &at.key("request_concurrency"),
            format!(
                "`request_concurrency` is {}, more than the `limit` of {limit}",
                runner.request_concurrency()
            ),
            "more requests than jobs cannot help; lower it or raise `limit`",
        );
    }
}

fn tls(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    let (key, missing) = match (&runner.tls_cert_file, &runner.tls_key_file) {
        (Some(_), None) => ("tls-cert-file", "tls-key-file"),
        (None, Some(_)) => ("tls-key-file", "tls-cert-file"),
        (Some(_), Some(_)) | (None, None) => return,
    };
    findings.error(
        "client-certificate",
        &at.key(key),
        format!("`{key}` is set without `{missing}`"),
        "a client certificate needs both",
    );
}

fn environment(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    for (index, text) in runner.environment.iter().enumerate() {
        if !text.contains('=') {
            findings.warning(
                "environment",
                &at.key("environment").index(index),
                "the item is not of the form NAME=VALUE and is left out",
                "write \"NAME=\" for an empty value",
            );
        }
    }
}

fn executor(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    let Some(name) = runner.executor.as_deref() else {
        let hint = format!("write one of {}", ExecutorName::NAMES.join(", "));
        findings.error(
            "no-executor",
            &at.key("executor"),
            format!("{} has no `executor`", called(runner, at)),
            &hint,
        );
        return;
    };
    let Some(executor) = ExecutorName::from_name(name) else {
        let nearest = ExecutorName::NAMES
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
            .filter(|known| strsim::jaro_winkler(name, known) > 0.8);
        let (message, hint) = match (ExecutorName::removed(name), nearest) {
            _ if name == "docker-windows" => (
                "executor `docker-windows` runs Windows containers, which are not available in this build"
                    .to_owned(),
                "leave these jobs to GitLab Runner on Windows, or use `docker` for Linux containers"
                    .to_owned(),
            ),
            (Some(other), _) => {
                (format!("executor `{name}` was removed from GitLab Runner"), format!("use `{other}`"))
            }
            (None, Some(known)) => (
                format!("unknown executor `{name}`; did you mean `{known}`?"),
                format!("known are {}", ExecutorName::NAMES.join(", ")),
            ),
            (None, None) => (
                format!("unknown executor `{name}`"),
                format!("known are {}", ExecutorName::NAMES.join(", ")),
            ),
        };
        findings.error("executor", &at.key("executor"), message, &hint);
        return;
    };

    let sections = [
        ("autoscaler", runner.autoscaler.is_some(), executor.is_autoscaled()),
        ("docker", runner.docker.is_some(), executor.uses_docker()),
        ("machine", runner.machine.is_some(), executor == ExecutorName::DockerMachine),
        ("ssh", runner.ssh.is_some(), executor == ExecutorName::Ssh),
        ("custom", runner.custom.is_some(), executor == ExecutorName::Custom),
        ("virtualbox", runner.virtualbox.is_some(), executor == ExecutorName::Virtualbox),
        ("parallels", runner.parallels.is_some(), executor == ExecutorName::Parallels),
    ];
    for (section, is_there, is_needed) in sections {
        if is_needed && !is_there {
            findings.error(
                "no-section",
                &at.key("executor"),
                format!("executor `{executor}` needs a section [runners.{section}]"),
                &format!("add [runners.{section}] below this entry"),
            );
        }
    }
    // The other sections are left alone: registration writes empty ones, and ssh settings serve several executors.
    for (section, is_there, is_used) in
        sections.into_iter().filter(|(section, ..)| matches!(*section, "autoscaler" | "machine"))
    {
        if is_there && !is_used {
            findings.warning(
                "unused-section",
                &at.key(section),
                format!("[runners.{section}] has no effect with executor `{executor}`"),
                "remove the section, or choose the executor that it belongs to",
            );
        }
    }
    if runner.shell == Some(Shell::Cmd) {
        findings.warning(
            "shell",
            &at.key("shell"),
            "shell `cmd` is no longer supported by GitLab Runner",
            "use pwsh or powershell",
        );
    }
}

fn slots(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    let has_slots = runner
        .executor()
        .is_some_and(|executor| executor.is_autoscaled() || executor == ExecutorName::DockerMachine);
    if runner.use_slot_cgroups && !has_slots && runner.executor().is_some() {
        let message = "`use_slot_cgroups` has no effect: this executor has no slots";
        findings.warning(
            "slot-cgroups",
            &at.key("use_slot_cgroups"),
            message,
            "remove it, or use an autoscaling executor",
        );
    }
    if let Some(template) = &runner.slot_cgroup_template
        && !template.contains("$slot")
        && !template.contains("${slot}")
    {
        findings.warning(
            "slot-template",
            &at.key("slot_cgroup_template"),
            "the template has no `${slot}`: all jobs of an instance share one cgroup",
            "add ${slot} to it",
        );
    }
}

fn cache(cache: &Cache, at: &KeyPath, findings: &mut Findings) {
    findings.not_negative(at, "MaxUploadedArchiveSize", cache.max_uploaded_archive_size, "0 means no limit");
    let bucket = |name: &Option<String>| name.is_some();
    let stores = [
        ("s3", cache.s3.as_ref().is_some_and(|store| bucket(&store.bucket_name)), "BucketName"),
        ("gcs", cache.gcs.as_ref().is_some_and(|store| bucket(&store.bucket_name)), "BucketName"),
        ("azure", cache.azure.as_ref().is_some_and(|store| bucket(&store.container_name)), "ContainerName"),
    ];
    match cache.kind.as_deref() {
        None => {
            if let Some((kind, ..)) = stores.iter().find(|(_, has_bucket, _)| *has_bucket) {
                let message = format!("[runners.cache.{kind}] has no effect: `Type` is not set, so caches stay local");
                findings.warning("cache-type", &at.key(kind), message, &format!("add Type = \"{kind}\" to [runners.cache]"));
            }
        }
        Some(kind) => match stores.iter().find(|(name, ..)| *name == kind) {
            None => findings.warning(
                "cache-type",
                &at.key("Type"),
                format!("cache type `{kind}` does not exist, so caches stay local"),
                "write s3, gcs or azure, in lower case",
            ),
            Some((_, true, _)) => {}
            Some((_, false, name)) => findings.warning(
                "cache-bucket",
                &at.key("Type"),
                format!("cache type `{kind}` needs a `{name}` in [runners.cache.{kind}]; without it caches stay local"),
                &format!("add {name} to [runners.cache.{kind}]"),
            ),
        },
    }
    let Some(s3) = &cache.s3 else { return };
    let at = at.key("s3");
    if s3.auth_type().is_none() {
        let message = "`AuthenticationType` must be access-key or iam";
        findings.warning(
            "cache-auth",
            &at.key("AuthenticationType"),
            message,
            "remove the key to have it chosen",
        );
    }
    if let Err(word) = s3.encryption() {
        findings.warning(
            "cache-encryption",
            &at.key("ServerSideEncryption"),
            format!("unknown encryption `{word}`: caches stay on the instance"),
            "write S3, KMS or DSSE-KMS",
        );
    }
    if s3.upload_role_arn.is_some() {
        findings.warning(
            "deprecated",
            &at.key("UploadRoleARN"),
            "`UploadRoleARN` is deprecated",
            "write RoleARN",
        );
    }
}

fn ssh(ssh: &Ssh, at: &KeyPath, findings: &mut Findings) {
    for (key, is_there) in [("host", ssh.host.is_some()), ("user", ssh.user.is_some())] {
        if !is_there {
            findings.error(
                "no-ssh",
                &at.key(key),
                format!("[runners.ssh] has no `{key}`"),
                "the ssh executor needs it",
            );
        }
    }
    if ssh.port().is_none() {
        findings.error(
            "port",
            &at.key("port"),
            "`port` is not a port",
            "write a number from 1 to 65535, in quotes",
        );
    }
    if ssh.password.is_none() && ssh.identity_file.is_none() {
        let message = "[runners.ssh] has neither `password` nor `identity_file`";
        findings.warning("no-credentials", at, message, "set one of them");
    }
}

/// How messages call an entry: by its name, else by its number from 1.
fn called(runner: &Runner, at: &KeyPath) -> String {
    match (runner.name(), at.runner()) {
        ("", index) => format!("entry {} of [[runners]]", index.unwrap_or(0) + 1),
        (name, _) => format!("runner `{name}`"),
    }
}

/// Text such as `<token>` or `YOUR_TOKEN`, left over from an example.
fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    (text.starts_with('<') && text.ends_with('>'))
        || text.to_ascii_uppercase() == text && text.starts_with("YOUR_")
        || matches!(text, "TOKEN" | "XXXX" | "...")
}
