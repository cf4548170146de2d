//! The keys of `plugin_config`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use fleeting::{GroupError, PluginConfig};
use serde_json::Value;

/// Settings of a [`LocalGroup`](crate::LocalGroup).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the group and beginning of its instances' names. Default `local`.
    pub name: String,
    /// From the request until the process of an instance is started. Default none.
    pub boot_delay: Duration,
    /// Share of instances (0.0 to 1.0) that end in state timeout in place of running. Default 0.
    pub boot_failure_rate: f64,
    /// Mean life time, exponentially distributed, after which an instance is killed without warning. Default off.
    pub sudden_death: Option<Duration>,
    /// Seed of the two chances above. Default 0.
    pub seed: u64,
    /// Most instances at once. Default 100.
    pub max_size: u32,
    /// Directory of the instances' directories; made if it is missing. Default: a temporary one, which goes with the
    /// last instance.
    pub work_dir: Option<PathBuf>,
    /// Program that becomes an instance. Default: the running program.
    pub program: Option<PathBuf>,
    /// Arguments that make it one. Not a key of `plugin_config`. Default `local-instance`.
    pub arguments: Vec<OsString>,
    /// Shell for commands that are more than a list of words, and value of `SHELL`. Default `/bin/sh`.
    pub shell: PathBuf,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "local".to_owned(),
            boot_delay: Duration::ZERO,
            boot_failure_rate: 0.0,
            sudden_death: None,
            seed: 0,
            max_size: 100,
            work_dir: None,
            program: None,
            arguments: vec!["local-instance".into()],
            shell: "/bin/sh".into(),
        }
    }
}

impl Config {
    /// Reads the `plugin_config` table; all keys are optional.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for wrong values and unknown keys.
    pub fn from_plugin_config(table: &Value) -> Result<Self, GroupError> {
        let mut table = PluginConfig::new(table)?;
        let default = Self::default();
        let config = Self {
            name: table.string("name")?.unwrap_or(default.name),
            boot_delay: table.duration("boot_delay")?.unwrap_or(default.boot_delay),
            boot_failure_rate: table.share("boot_failure_rate")?.unwrap_or(default.boot_failure_rate),
            sudden_death: table.duration("sudden_death")?.filter(|mean| !mean.is_zero()),
            seed: table.unsigned_long("seed")?.unwrap_or(default.seed),
            max_size: table.unsigned("max_size")?.unwrap_or(default.max_size),
            work_dir: table.string("work_dir")?.map(PathBuf::from),
            program: table.string("program")?.map(PathBuf::from),
            arguments: default.arguments,
            shell: table.string("shell")?.map_or(default.shell, PathBuf::from),
        };
        // The name becomes part of paths and of instance names.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if config.name.is_empty() || !config.name.chars().all(plain) {
            return Err(table.error("name", "must consist of letters, digits, `-` and `_`"));
        }
        if !config.shell.is_absolute() {
            return Err(table.error("shell", "must be an absolute path"));
        }
        table.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_key_is_optional_and_read() {
        assert_eq!(Config::from_plugin_config(&Value::Null).unwrap(), Config::default());
        let table = json!({
            "name": "demo", "boot_delay": "1m30s", "boot_failure_rate": 0.1, "sudden_death": "10m", "seed": 7,
            "max_size": 3, "work_dir": "/tmp/w", "program": "/bin/p", "shell": "/bin/bash",
        });
        let config = Config::from_plugin_config(&table).unwrap();
        let expected = Config {
            name: "demo".into(),
            boot_delay: Duration::from_secs(90),
            boot_failure_rate: 0.1,
            sudden_death: Some(Duration::from_secs(600)),
            seed: 7,
            max_size: 3,
            work_dir: Some("/tmp/w".into()),
            program: Some("/bin/p".into()),
            shell: "/bin/bash".into(),
            ..Config::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn mistakes_are_refused_with_a_hint() {
        let error = |table| Config::from_plugin_config(&table).unwrap_err().to_string();
        assert!(error(json!({ "boot_dealy": "1s" })).contains("did you mean `boot_delay`?"));
        assert!(error(json!({ "boot_failure_rate": 2 })).contains("boot_failure_rate"));
        assert!(error(json!({ "name": "../up" })).contains("plugin_config.name"));
        assert!(error(json!({ "shell": "bash" })).contains("absolute"));
    }
}
