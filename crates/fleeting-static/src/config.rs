//! The `instances` table of `plugin_config`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use fleeting::{ConnectInfo, ConnectorSettings, GroupError, Os, PluginConfig, SecretString};
use serde_json::Value;

/// Permission bits that a private key file must not have: it is then no secret.
const OTHERS: u32 = 0o007;

/// One machine of the pool. Unset keys are taken from `connector_config`.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Login name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// File with a private key; read when the group is initialised.
    pub key_path: Option<PathBuf>,
    /// Port, where the address has none; the protocol's default otherwise.
    pub port: Option<u16>,
    /// Operating system, where the machines of a pool differ.
    pub os: Option<Os>,
    /// Architecture in Go's naming (`amd64`, `arm64`), where the machines of a pool differ.
    pub arch: Option<String>,
    /// Total time to connect.
    pub timeout: Option<Duration>,
    /// Address from outside, `host` or `host:port`.
    pub external_addr: Option<String>,
    /// Address from inside, `host` or `host:port`.
    pub internal_addr: Option<String>,
    /// The host key that the machine must show, as `SHA256:...` or in OpenSSH's public form.
    pub host_key: Option<String>,
}

/// Reads the table of machines.
pub(crate) fn machines(table: &Value) -> Result<BTreeMap<String, Machine>, GroupError> {
    let mut table = PluginConfig::new(table)?;
    let entries = table.entries("instances")?;
    let missing = table.error("instances", "must name at least one machine");
    table.finish()?;
    let mut machines = BTreeMap::new();
    for (name, mut entry) in entries.unwrap_or_default() {
        let machine = Machine {
            username: entry.string("username")?,
            password: entry.secret("password")?,
            key_path: entry.string("key_path")?.map(PathBuf::from),
            port: port(&mut entry)?,
            os: os(&mut entry)?,
            arch: entry.string("arch")?,
            timeout: entry.duration("timeout")?,
            external_addr: entry.string("external_addr")?,
            internal_addr: entry.string("internal_addr")?,
            host_key: entry.string("host_key")?,
        };
        // Also finds out whether the addresses can be dialled at all.
        let mut info = ConnectInfo::new(name.as_str(), machine.settings(&ConnectorSettings::default()));
        info.external_addr.clone_from(&machine.external_addr);
        info.internal_addr.clone_from(&machine.internal_addr);
        let unreachable = info.target(true).and(info.target(false)).err().map(|error| {
            let hint = "set external_addr or internal_addr to a host or host:port";
            entry.error("external_addr", format_args!("{error}; {hint}"))
        });
        // Before that: a misspelt address is the more helpful message.
        entry.finish()?;
        if let Some(unreachable) = unreachable {
            return Err(unreachable);
        }
        machines.insert(name, machine);
    }
    if machines.is_empty() { Err(missing) } else { Ok(machines) }
}

fn port(entry: &mut PluginConfig<'_>) -> Result<Option<u16>, GroupError> {
    const KEY: &str = "protocol_port";
    let Some(number) = entry.unsigned(KEY)? else { return Ok(None) };
    let port = u16::try_from(number).map_err(|_| entry.error(KEY, format_args!("{number} is no port")))?;
    // As in `connector_config`.
    Ok((port != 0).then_some(port))
}

fn os(entry: &mut PluginConfig<'_>) -> Result<Option<Os>, GroupError> {
    const KEY: &str = "os";
    match entry.string(KEY)?.as_deref() {
        None => Ok(None),
        Some("linux") => Ok(Some(Os::Linux)),
        Some("darwin") => Ok(Some(Os::Darwin)),
        Some("windows") => Ok(Some(Os::Windows)),
        Some(other) => Err(entry.error(KEY, format_args!("`{other}` must be linux, darwin or windows"))),
    }
}

// === impl Machine ===

impl Machine {
    /// Everything needed to dial the machine but its key.
    pub(crate) fn settings(&self, defaults: &ConnectorSettings) -> ConnectorSettings {
        let mut settings = defaults.clone();
        // What is said of one machine is more specific than what is said of all.
        settings.username = self.username.clone().or(settings.username);
        settings.timeout = self.timeout.or(settings.timeout);
        settings.protocol_port = self.port.or(settings.protocol_port);
        settings.os = self.os.or(settings.os);
        settings.arch = self.arch.clone().or(settings.arch);
        settings.host_key = self.host_key.clone().or(settings.host_key);
        settings.password = self.password.clone().or(settings.password);
        settings
    }

    /// Reads the key file. Missing, unreadable and public ones are refused.
    pub(crate) fn read_key(&self, name: &str) -> Result<Option<SecretString>, GroupError> {
        let Some(path) = &self.key_path else { return Ok(None) };
        let bad = |what: String| GroupError::Configuration {
            message: format!("plugin_config.instances.{name}.key_path: `{}` {what}", path.display()),
        };
        let unreadable = |error: std::io::Error| bad(format!("cannot be read: {error}"));
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        // Of the open file, so that it cannot be exchanged in between.
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.permissions().mode();
        if !metadata.is_file() {
            return Err(bad("is not a file".to_owned()));
        }
        if mode & OTHERS != 0 {
            return Err(bad(format!(
                "is open to all users of this machine (mode {:04o}); run `chmod 600` on it",
                mode & 0o7777
            )));
        }
        let mut key = String::new();
        file.read_to_string(&mut key).map_err(unreadable)?;
        if !key.contains("PRIVATE KEY-----") {
            return Err(bad("holds no private key in PEM form".to_owned()));
        }
        Ok(Some(SecretString::from(key)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(table: &Value) -> String {
        machines(table).unwrap_err().to_string()
    }

    #[test]
    fn all_keys_are_read() {
        let table = json!({ "instances": { "a": {
            "username": "ci", "password": "p", "key_path": "/k", "timeout": "1m", "external_addr": "h:22",
            "internal_addr": "10.0.0.1", "host_key": "SHA256:x", "protocol_port": 2222, "os": "darwin", "arch": "arm64"
        } } });
        let machine = &machines(&table).unwrap()["a"];
        assert_eq!(machine.username.as_deref(), Some("ci"));
        assert_eq!(machine.key_path, Some("/k".into()));
        assert_eq!(machine.timeout, Some(Duration::from_secs(60)));
        assert_eq!(machine.external_addr.as_deref(), Some("h:22"));
        assert_eq!(machine.internal_addr.as_deref(), Some("10.0.0.1"));
        assert_eq!(machine.host_key.as_deref(), Some("SHA256:x"));
        assert_eq!(
            (machine.port, machine.os, machine.arch.as_deref()),
            (Some(2222), Some(Os::Darwin), Some("arm64"))
        );
        assert!(machine.password.is_some());
        assert!(!format!("{machine:?}").contains("\"p\""));
    }

    #[test]
    fn mistakes_are_refused_with_path_and_hint() {
        assert!(error(&json!({})).contains("plugin_config.instances: must name at least one machine"));
        assert!(error(&json!({ "instances": {} })).contains("at least one machine"));
        assert!(error(&json!({ "instance": {} })).contains("did you mean `instances`?"));
        let typo = error(&json!({ "instances": { "a": { "extrenal_addr": "h" } } }));
        assert!(
            typo.contains(
                "plugin_config.instances.a.extrenal_addr: unknown key; did you mean `external_addr`?"
            )
        );
        assert!(error(&json!({ "instances": { "a": {} } })).contains("instance `a` has no address"));
        let port = error(&json!({ "instances": { "a": { "internal_addr": "h:port" } } }));
        assert!(port.contains("neither a host nor host:port"), "{port}");
        let os = error(&json!({ "instances": { "a": { "internal_addr": "h", "os": "plan9" } } }));
        assert!(
            os.contains("plugin_config.instances.a.os: `plan9` must be linux, darwin or windows"),
            "{os}"
        );
        let timeout = error(&json!({ "instances": { "a": { "timeout": 5, "internal_addr": "h" } } }));
        assert!(timeout.contains("plugin_config.instances.a.timeout"), "{timeout}");
    }
}
