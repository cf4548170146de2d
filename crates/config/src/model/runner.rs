//! `[[runners]]` and the small tables below it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_payload::short_token;
use secrecy::{ExposeSecret, SecretString};

use super::global::{count, positive};
use super::{Autoscaler, Cache, Docker, Instance, Machine, Monitoring, Referees};
use crate::capability::ExecutorName;
use crate::schema::{choice, section};
use crate::values::{Assignments, Expanded, ExpandedSecret, RawTable};

section! {
    /// One runner: a token of GitLab, and how its jobs are run.
    pub struct Runner = "[[runners]]" {
        /// Name in logs and metrics.
        name: Option<String>;
        /// URL of the GitLab instance, `http` or `https`.
        url: Option<Expanded> => restart;
        /// The runner's number in GitLab, written at registration.
        id: Option<i64>;
        /// Authentication token of the runner.
        token: Option<ExpandedSecret>;
        /// When the token was obtained, written at registration and rotation.
        token_obtained_at: Option<DateTime<Utc>>;
        /// When the token stops working; it is rotated at three quarters of its life.
        token_expires_at: Option<DateTime<Utc>>;
        /// PEM file with certificates that are trusted beside the system's.
        tls_ca_file as "tls-ca-file": Option<String>, default "`certs/<host>.crt` in the configuration directory";
        /// PEM file with the client certificate.
        tls_cert_file as "tls-cert-file": Option<String>, default "`certs/<host>.auth.crt` in the configuration directory";
        /// PEM file with the client certificate's key.
        tls_key_file as "tls-key-file": Option<String>, default "`certs/<host>.auth.key` in the configuration directory";
        /// How jobs are run: `instance`, `docker-autoscaler`, `docker+machine`, `docker`, `shell`, `ssh`, `custom`,
        /// `kubernetes`, `virtualbox` or `parallels`.
        executor: Option<String> => restart;
        /// Shell that scripts are written for.
        shell: Option<Shell>, default "`bash`, or the executor's default";
        /// Most jobs of this runner at the same time; 0 means no limit of its own.
        limit: Option<i64>, default "0", unit "jobs";
        /// Job requests of this runner in flight at the same time.
        request_concurrency: Option<i64>, default "1", unit "requests";
        /// Wait for the full `check_interval` after a job was received, too.
        strict_check_interval: bool, default "false", since "18.0";
        /// Most bytes of a job log, in kilobytes.
        output_limit: Option<i64>, default "4096", unit "KB";
        /// Unhealthy answers in a row after which the runner is left alone for `unhealthy_interval`.
        unhealthy_requests_limit: Option<i64>, default "3";
        /// How long an unhealthy runner is left alone.
        unhealthy_interval: Option<Duration>, default "1h";
        /// How often the final state of a job is sent when GitLab does not take it, the first time included.
        job_status_final_update_retry_limit: Option<i64>, default "10";
        /// Root of the build directories, where the executor runs the job.
        builds_dir: Option<String>, default "the executor's";
        /// Root of the local cache archives.
        cache_dir: Option<String>, default "the executor's";
        /// URL that replaces `url` when sources are fetched.
        clone_url: Option<String>;
        /// Variables added to every job.
        environment: Assignments;
        /// Labels of this runner; they win over the global ones. At most 32 together.
        labels: BTreeMap<String, String>;
        /// Commands run before sources are fetched.
        pre_get_sources_script: Option<String>;
        /// Commands run after sources were fetched.
        post_get_sources_script: Option<String>;
        /// Commands run before the job's script.
        pre_build_script: Option<String>;
        /// Commands run after the job's script, and before `after_script`.
        post_build_script: Option<String>;
        /// Ignore `CI_DEBUG_TRACE`, which prints every variable of a job.
        debug_trace_disabled: bool, default "false";
        /// Add the project directory to git's `safe.directory`.
        safe_directory_checkout: Option<bool>, default "true for docker, false for instance";
        /// Remove git's local configuration before and after a job.
        clean_git_config: Option<bool>, default "true except for shell";
        /// Mask words that a job announces by lines `::add-mask::<word>`. No shell is started differently for it.
        proxy_exec: Option<bool>, default "false";
        /// Limit for preparing a job, pulls included.
        prepare_timeout: Option<Duration>, default "the job's timeout";
        /// Limit for fetching sources, retries included.
        get_sources_timeout: Option<Duration>, default "the job's timeout";
        /// Put jobs into cgroups that are named after their slot. Autoscaling executors only.
        use_slot_cgroups: bool, default "false";
        /// Name of the cgroup; `${slot}` is the number of the slot.
        slot_cgroup_template: Option<String>, default "gitlab-runner/slot-${slot}";
        /// Image with the step runner.
        step_runner_image: Option<String>;
        /// Feature flags `FF_...`; they win over variables of the job.
        feature_flags: BTreeMap<String, bool>;
        /// Build directories chosen by the job.
        custom_build_dir: Option<CustomBuildDir>;
        /// Uploads of artifacts.
        artifact: Option<Artifact>;
        /// The helper on instances. Drover's own; GitLab Runner ignores it.
        helper: Option<Helper> => restart;
        /// Cache shared between jobs.
        cache: Option<Cache>;
        /// What is measured for each job.
        referees: Option<Referees>;
        /// What is watched beside the standard metrics.
        monitoring: Option<Monitoring>;
        /// What is not settled yet.
        experimental: Option<RunnerExperimental>;
        /// The `instance` executor.
        instance: Option<Instance>;
        /// The `ssh` executor.
        ssh: Option<Ssh>;
        /// The executors that run jobs in containers: `docker`, `docker-autoscaler`, `docker+machine`.
        docker: Option<Docker>;
        /// Scaling of instances for `instance` and `docker-autoscaler`.
        autoscaler: Option<Autoscaler> => restart;
        /// Scaling of machines for `docker+machine`.
        machine: Option<Machine>;
        /// The `parallels` executor.
        parallels: Option<RawTable>;
        /// The `virtualbox` executor.
        virtualbox: Option<RawTable>;
        /// The `custom` executor.
        custom: Option<RawTable>;
        /// The `kubernetes` executor.
        kubernetes: Option<RawTable>;
    }
}

section! {
    /// Build directories chosen by the job with `GIT_CLONE_PATH`.
    pub struct CustomBuildDir = "[runners.custom_build_dir]" {
        /// Allow it.
        enabled: Option<bool>, default "true for docker, false for instance";
    }
}

section! {
    /// Uploads of artifacts.
    pub struct Artifact = "[runners.artifact]" {
        /// Limit for one upload.
        upload_timeout: Option<Duration>, default "1h";
        /// Limit for the server's answer once everything is sent.
        response_header_timeout: Option<Duration>, default "10m";
    }
}

section! {
    /// The program that moves artifacts and caches of jobs on instances. The table is Drover's own; GitLab Runner ignores it.
    pub struct Helper = "[runners.helper]" {
        /// Put Drover's helper on instances: where no other is configured or of this version, always, or never. One that cannot
        /// be put there is replaced by what is there.
        install: Option<HelperInstall>, default "missing";
        /// Helper that is on the instances already.
        command: Option<String>;
        /// Folder on the instance for Drover's helper.
        path: Option<String>, default "~/.drover";
        /// Folder on the manager with `<architecture>/drover-helper`.
        binaries: Option<String>, default "helper beside the program, else /usr/lib/drover/helper";
    }
}

choice! {
    /// When Drover's helper is put on instances.
    pub enum HelperInstall {
        /// Where no helper is configured, and none of this version is there.
        Missing = "missing",
        /// On every instance.
        Always = "always",
        /// On none.
        Never = "never",
    }
}

section! {
    /// What is not settled yet.
    pub struct RunnerExperimental = "[runners.experimental]" {
        /// A trial job before the first real one.
        boot_verify: Option<BootVerify>;
    }
}

section! {
    /// A trial job before the first real one: until it passed, no job is asked for and `/health/ready` says so.
    pub struct BootVerify = "[runners.experimental.boot_verify]" {
        /// Run it.
        enabled: bool, default "false";
        /// Limit for all of it.
        timeout: Option<Duration>, default "5m";
        /// First wait between attempts to get an instance.
        acquire_min_backoff: Option<Duration>, default "1s";
        /// Longest wait between attempts to get an instance.
        acquire_max_backoff: Option<Duration>, default "10s";
    }
}

section! {
    /// The host of the `ssh` executor.
    pub struct Ssh = "[runners.ssh]" {
        /// Host to log in to.
        host: Option<String>;
        /// Port, written as a string.
        port: Option<String>, default "22";
        /// Login name.
        user: Option<String>;
        /// Password.
        password: Option<SecretString>;
        /// Private key file.
        identity_file: Option<String>;
        /// Accept any host key.
        disable_strict_host_key_checking: Option<bool>, default "false";
        /// File with the keys of known hosts.
        known_hosts_file: Option<String>, default "~/.ssh/known_hosts";
    }
}

choice! {
    /// Shell that scripts are written for.
    pub enum Shell {
        /// GNU bash.
        Bash = "bash",
        /// Any POSIX shell.
        Sh = "sh",
        /// PowerShell Core.
        Pwsh = "pwsh",
        /// Windows PowerShell.
        Powershell = "powershell",
        /// Windows batch; known, no longer offered by GitLab Runner.
        Cmd = "cmd",
    }
}

// === impl Runner ===

impl Runner {
    /// Default of `output_limit`, in bytes.
    pub const DEFAULT_OUTPUT_LIMIT: u64 = 4096 * 1024;

    /// Name in logs and metrics; empty when the entry has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// URL of GitLab with variables replaced; empty when the entry has none.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_ref().map(Expanded::as_str).unwrap_or_default()
    }

    /// The token with variables replaced.
    #[must_use]
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref().map(ExpandedSecret::secret)
    }

    /// The part of the token that logs, metrics and paths may show: GitLab Runner strips the kind of the token and keeps
    /// 9 characters.
    #[must_use]
    pub fn short_token(&self) -> &str {
        self.token().map(|token| short_token(token.expose_secret())).unwrap_or_default()
    }

    /// Which executor runs the jobs, if the name is known.
    #[must_use]
    pub fn executor(&self) -> Option<ExecutorName> {
        self.executor.as_deref().and_then(ExecutorName::from_name)
    }

    /// How the entry is called in messages and logs: its name, or else the part of its token that may be shown.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.name(), self.short_token()) {
            ("", "") => "without name and token".to_owned(),
            ("", token) => token.to_owned(),
            (name, _) => name.to_owned(),
        }
    }

    /// Most jobs of this runner; `None` means no limit of its own.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        count(self.limit)
    }

    /// Job requests in flight at the same time.
    #[must_use]
    pub fn request_concurrency(&self) -> u32 {
        count(self.request_concurrency).unwrap_or(1)
    }

    /// Most bytes of a job log.
    #[must_use]
    pub fn output_limit(&self) -> u64 {
        count(self.output_limit).map_or(Self::DEFAULT_OUTPUT_LIMIT, |kilobytes| u64::from(kilobytes) * 1024)
    }

    /// Unhealthy answers in a row after which the runner is left alone.
    #[must_use]
    pub fn unhealthy_requests_limit(&self) -> u32 {
        count(self.unhealthy_requests_limit).unwrap_or(3)
    }

    /// How long an unhealthy runner is left alone.
    #[must_use]
    pub fn unhealthy_interval(&self) -> Duration {
        positive(self.unhealthy_interval).unwrap_or(Duration::from_secs(3600))
    }

    /// How often the final state of a job is sent, the first time included.
    #[must_use]
    pub fn final_update_attempts(&self) -> u32 {
        count(self.job_status_final_update_retry_limit).unwrap_or(10)
    }

    /// Shell of the scripts, or the executor's default.
    #[must_use]
    pub fn shell(&self) -> Shell {
        self.shell.unwrap_or(Shell::Bash)
    }

    /// Limit for preparing a job; `None` means the job's own timeout.
    #[must_use]
    pub fn prepare_timeout(&self) -> Option<Duration> {
        positive(self.prepare_timeout)
    }

    /// Limit for fetching sources; `None` means the job's own timeout.
    #[must_use]
    pub fn get_sources_timeout(&self) -> Option<Duration> {
        positive(self.get_sources_timeout)
    }

    /// Name of the slot's cgroup, with `$slot` and `${slot}` replaced; any other variable becomes empty.
    #[must_use]
    pub fn slot_cgroup(&self, slot: u32) -> Option<String> {
        self.use_slot_cgroups.then(|| {
            expand_slot(self.slot_cgroup_template.as_deref().unwrap_or("gitlab-runner/slot-${slot}"), slot)
        })
    }

    /// The same for the services of a job in containers: `service_slot_cgroup_template`, or else the slot's own cgroup.
    #[must_use]
    pub fn service_slot_cgroup(&self, slot: u32) -> Option<String> {
        let template = self.docker.as_ref().and_then(|docker| docker.service_slot_cgroup_template.as_deref());
        match template {
            Some(template) if self.use_slot_cgroups => Some(expand_slot(template, slot)),
            Some(_) | None => self.slot_cgroup(slot),
        }
    }

    /// What the file says about a feature flag.
    #[must_use]
    pub fn feature_flag(&self, name: &str) -> Option<bool> {
        self.feature_flags.get(name).copied()
    }

    /// Whether all jobs use one build directory, `<builds_dir>/<namespace>/<project>`: it is asked for, and no job can meet
    /// another one there.
    #[must_use]
    pub fn has_common_build_dir(&self) -> bool {
        let asked = self.instance.as_ref().is_some_and(|instance| instance.use_common_build_dir);
        let alone =
            |autoscaler: &Autoscaler| autoscaler.is_isolated() || autoscaler.max_use_count() == Some(1);
        asked && self.autoscaler.as_ref().is_some_and(alone)
    }

    /// Whether jobs may choose their build directory; `None` leaves it to the executor.
    #[must_use]
    pub fn custom_build_dir(&self) -> Option<bool> {
        self.custom_build_dir.as_ref().and_then(|dir| dir.enabled)
    }
}

// === impl Artifact ===

impl Artifact {
    /// Limit for one upload.
    #[must_use]
    pub fn upload_timeout(&self) -> Duration {
        positive(self.upload_timeout).unwrap_or(Duration::from_secs(3600))
    }

    /// Limit for the server's answer.
    #[must_use]
    pub fn response_header_timeout(&self) -> Duration {
        positive(self.response_header_timeout).unwrap_or(Duration::from_secs(600))
    }
}

// === impl BootVerify ===

impl BootVerify {
    /// Limit for all of it.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        positive(self.timeout).unwrap_or(Duration::from_secs(300))
    }

    /// First and longest wait between attempts to get an instance.
    #[must_use]
    pub fn acquire_backoff(&self) -> (Duration, Duration) {
        let min = positive(self.acquire_min_backoff).unwrap_or(Duration::from_secs(1));
        let max = positive(self.acquire_max_backoff).unwrap_or(Duration::from_secs(10));
        (min, max.max(min))
    }
}

// === impl Ssh ===

impl Ssh {
    /// Port to dial; `None` if the text is no port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port.as_deref().map_or(Some(22), |port| port.parse().ok())
    }
}

// === impl Shell ===

impl Shell {
    /// Whether scripts are PowerShell.
    #[must_use]
    pub fn is_powershell(self) -> bool {
        matches!(self, Self::Pwsh | Self::Powershell)
    }
}

// === helpers ===

fn expand_slot(template: &str, slot: u32) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(parts) => parts,
            None => after.split_at(
                after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len()),
            ),
        };
        if name == "slot" {
            out.push_str(&slot.to_string());
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("gitlab-runner/slot-${slot}", "gitlab-runner/slot-7")]
    #[test_case("a/$slot/b$other", "a/7/b")]
    #[test_case("plain", "plain")]
    fn slot_templates_know_only_the_slot(template: &str, expected: &str) {
        assert_eq!(expand_slot(template, 7), expected);
    }
}
