//! The top of the file, and the tables beside `[[runners]]`.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::Runner;
use crate::schema::{choice, section};

/// Seconds between two rounds over all runners when `check_interval` is 0 or negative.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// Default of `shutdown_timeout`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of `connection_max_age`.
const CONNECTION_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// Default of `session_timeout`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(1800);
/// Port of `listen_address` when it names none.
const METRICS_PORT: u16 = 9252;

section! {
    /// The whole process: how many jobs at once, how often GitLab is asked, what is logged.
    pub struct Config = "the top level" {
        /// Most jobs at the same time, over all runners. Below 1 the file is refused.
        concurrent: Option<i64>, default "1", unit "jobs";
        /// Time of one round over all runners; 0 and negative values mean the default.
        check_interval: Option<i64>, default "3", unit "s";
        /// What is logged. The command line wins over the file.
        log_level: Option<LogLevel>, default "info";
        /// Form of log lines. The command line wins over the file.
        log_format: Option<LogFormat>, default "runner" => restart;
        /// System user of the `shell` executor.
        user: Option<String> => restart;
        /// Address of the metrics and health server, `host:port`; port 9252 where none is given. No server without it.
        listen_address: Option<String> => restart;
        /// Time for a forceful shutdown, counted from the signal; 0 and negative values mean the default.
        shutdown_timeout: Option<i64>, default "30", unit "s";
        /// Idle HTTP connections to GitLab are renewed after this time; `"0s"` switches that off.
        connection_max_age: Option<Duration>, default "15m";
        /// Where errors are reported to, as a Sentry DSN.
        sentry_dsn: Option<SecretString>, default "environment variable `SENTRY_DSN`" => restart;
        /// Labels of every runner; a runner's own labels win. At most 32 together.
        labels: BTreeMap<String, String>;
        /// Web terminals into running jobs.
        session_server: Option<SessionServer> => restart;
        /// Settings of the `docker+machine` executor that concern the whole process.
        machine: Option<MachineDefaults>;
        /// What is not settled yet.
        experimental: Option<Experimental>;
        /// What the manager says of itself, beside metrics. Drover's own.
        status: Option<Status>;
        /// The runners, one entry each.
        runners: Vec<Runner>;
    }
}

section! {
    /// The server for web terminals.
    pub struct SessionServer = "[session_server]" {
        /// Address that the server listens on.
        listen_address: Option<String>;
        /// Address that GitLab is told to connect to.
        advertise_address: Option<String>, default "`listen_address`";
        /// How long a connected terminal may keep a finished job open; 0 and negative values mean the default.
        session_timeout: Option<i64>, default "1800", unit "s";
    }
}

section! {
    /// Settings of the `docker+machine` executor that concern the whole process.
    pub struct MachineDefaults = "[machine]" {
        /// Removal of idle machines when the process stops.
        shutdown_drain: Option<ShutdownDrain>;
    }
}

section! {
    /// Removal of idle machines when the process stops. Bounded by `shutdown_timeout`, which should then be 5 minutes
    /// or more.
    pub struct ShutdownDrain = "[machine.shutdown_drain]" {
        /// Remove all machines of the pool at shutdown.
        enabled: bool, default "false", since "18.10";
        /// Removals at the same time.
        concurrency: Option<i64>, default "3", since "18.10";
        /// Further attempts per machine after the first.
        max_retries: Option<i64>, default "3", since "18.10";
        /// Wait before attempt n is n times this.
        retry_backoff: Option<Duration>, default "5s", since "18.10";
    }
}

section! {
    /// What is not settled yet.
    pub struct Experimental = "[experimental]" {
        /// One JSON line per finished job, in a rotated file.
        usage_logger: Option<UsageLogger> => restart;
    }
}

section! {
    /// What the manager says of itself, beside metrics. Drover's own table: GitLab Runner has none.
    pub struct Status = "[status]" {
        /// Path of the local socket that `drover explain` asks, from the folder of the file; `"none"` for no socket.
        socket: Option<String>, default "the configuration file's name and `.sock`, beside it" => restart;
        /// Serve `/status` (JSON) and `/status.html` on `listen_address`, to everybody who reaches it.
        page: bool, default "false" => restart;
    }
}

section! {
    /// One JSON line per finished job, in a rotated file.
    pub struct UsageLogger = "[experimental.usage_logger]" {
        /// Write the log.
        enabled: bool, default "false";
        /// Directory of the files.
        log_dir: Option<String>, default "`usage-log` beside the configuration file";
        /// How many rotated files are kept.
        max_backup_files: Option<i64>, default "14";
        /// Age at which a file is rotated.
        max_rotation_age: Option<Duration>, default "24h";
        /// Labels added to every line.
        labels: BTreeMap<String, String>;
    }
}

choice! {
    /// How much is logged.
    pub enum LogLevel {
        /// Everything.
        Debug = "debug",
        /// What a person may want to know.
        Info = "info",
        /// What a person may have to act on.
        Warn = "warn" | "warning",
        /// What failed.
        Error = "error",
        /// What ends the process.
        Fatal = "fatal",
        /// What should never happen.
        Panic = "panic",
    }
}

choice! {
    /// Form of log lines.
    pub enum LogFormat {
        /// For people.
        Runner = "runner",
        /// `key=value`.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

// === impl Config ===

impl Config {
    /// Most jobs at the same time, at least 1 in a file that was accepted.
    #[must_use]
    pub fn concurrent(&self) -> u32 {
        count(self.concurrent).unwrap_or(1)
    }

    /// Time of one round over all runners.
    #[must_use]
    pub fn check_interval(&self) -> Duration {
        seconds(self.check_interval).unwrap_or(CHECK_INTERVAL)
    }

    /// Time for a forceful shutdown.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        seconds(self.shutdown_timeout).unwrap_or(SHUTDOWN_TIMEOUT)
    }

    /// Age after which idle connections are renewed; `None` when that is switched off.
    #[must_use]
    pub fn connection_max_age(&self) -> Option<Duration> {
        Some(self.connection_max_age.unwrap_or(CONNECTION_MAX_AGE)).filter(|age| !age.is_zero())
    }

    /// What is logged.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.log_level.unwrap_or(LogLevel::Info)
    }

    /// Form of log lines.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or(LogFormat::Runner)
    }

    /// Address of the metrics server with a port; `None` when there is none.
    #[must_use]
    pub fn listen_address(&self) -> Option<String> {
        self.listen_address.as_deref().map(|address| {
            let has_port = address
                .rsplit_once(':')
                .is_some_and(|(host, port)| (!host.contains(':') || host.ends_with(']')) && !port.is_empty());
            if has_port {
                address.to_owned()
            } else {
                format!("{}:{METRICS_PORT}", address.trim_end_matches(':'))
            }
        })
    }

    /// The labels of a runner: the global ones overlaid by its own.
    #[must_use]
    pub fn labels_of(&self, runner: &Runner) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(runner.labels.clone());
        labels
    }

    /// The drain of machines at shutdown, with its defaults when the table is absent.
    #[must_use]
    pub fn shutdown_drain(&self) -> ShutdownDrain {
        self.machine.as_ref().and_then(|machine| machine.shutdown_drain.clone()).unwrap_or_default()
    }
}

// === impl SessionServer ===

impl SessionServer {
    /// How long a connected terminal may keep a finished job open.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        seconds(self.session_timeout).unwrap_or(SESSION_TIMEOUT)
    }

    /// Address that GitLab is told to connect to.
    #[must_use]
    pub fn advertise_address(&self) -> Option<&str> {
        self.advertise_address.as_deref().or(self.listen_address.as_deref())
    }
}

// === impl ShutdownDrain ===

impl ShutdownDrain {
    /// Removals at the same time.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        count(self.concurrency).unwrap_or(3)
    }

    /// Further attempts per machine after the first.
    #[must_use]
    pub fn max_retries(&self) -> u32 {
        self.max_retries.and_then(|retries| u32::try_from(retries).ok()).unwrap_or(3)
    }

    /// Unit of the wait between attempts.
    #[must_use]
    pub fn retry_backoff(&self) -> Duration {
        self.retry_backoff.unwrap_or(Duration::from_secs(5))
    }
}

// === impl UsageLogger ===

impl UsageLogger {
    /// How many rotated files are kept.
    #[must_use]
    pub fn max_backup_files(&self) -> u32 {
        count(self.max_backup_files).unwrap_or(14)
    }

    /// Age at which a file is rotated.
    #[must_use]
    pub fn max_rotation_age(&self) -> Duration {
        self.max_rotation_age.filter(|age| !age.is_zero()).unwrap_or(Duration::from_secs(24 * 3600))
    }
}

/// Seconds above 0; what is 0, negative or absent leaves the default.
pub(super) fn seconds(value: Option<i64>) -> Option<Duration> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).map(Duration::from_secs)
}

/// A number above 0; what is 0, negative or absent leaves the default. Saturates.
pub(super) fn count(value: Option<i64>) -> Option<u32> {
    value.filter(|value| *value > 0).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

/// A duration above 0; what is 0 or absent leaves the default.
pub(super) fn positive(value: Option<Duration>) -> Option<Duration> {
    value.filter(|value| !value.is_zero())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(None, 3; "absent")]
    #[test_case(Some(0), 3; "zero")]
    #[test_case(Some(-1), 3; "negative")]
    #[test_case(Some(10), 10; "given")]
    fn check_interval_of_zero_or_less_is_three_seconds(value: Option<i64>, expected: u64) {
        let config = Config { check_interval: value, ..Config::default() };
        assert_eq!(config.check_interval(), Duration::from_secs(expected));
    }

    #[test_case(":9999", ":9999")]
    #[test_case("localhost", "localhost:9252")]
    #[test_case("[::1]:80", "[::1]:80")]
    #[test_case("[::1]", "[::1]:9252")]
    #[test_case("localhost:", "localhost:9252")]
    fn listen_address_gets_the_default_port(address: &str, expected: &str) {
        let config = Config { listen_address: Some(address.into()), ..Config::default() };
        assert_eq!(config.listen_address().as_deref(), Some(expected));
    }
}
