//! The keys of `plugin_config`.

use fleeting::{GroupError, PluginConfig};
use serde_json::Value;

/// Where engines listen by default.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Settings of a [`DockerGroup`](crate::DockerGroup).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the group and beginning of its instances' names. No two groups of one engine may share it.
    pub name: String,
    /// Image of the instances. It is pulled, anonymously, if the engine does not have it.
    pub image: String,
    /// Address of the engine: `unix://` and the path of its socket. Default `unix:///var/run/docker.sock`.
    pub host: String,
    /// Most instances at once. Default 10.
    pub max_size: u32,
    /// What runs in the container. Default: what the image says.
    pub command: Vec<String>,
    /// Variables for it, each `NAME=value`.
    pub environment: Vec<String>,
    /// Capabilities beyond the engine's default ones, without `CAP_`.
    pub capabilities: Vec<String>,
    /// All capabilities and devices. Default false.
    pub privileged: bool,
    /// Security options, for example `seccomp=unconfined`.
    pub security_opt: Vec<String>,
    /// Volumes: `/host:/container[:options]`, or a path that gets a volume of its own, which goes with the instance.
    pub volumes: Vec<String>,
    /// Network. Default: that of the engine.
    pub network: Option<String>,
    /// Most memory, in bytes. Default unlimited.
    pub memory: Option<i64>,
    /// Most processor time, in billionths of a processor. Default unlimited.
    pub nano_cpus: Option<i64>,
    /// Labels besides those of the group, each `name=value`.
    pub labels: Vec<String>,
    /// Address of this machine on which the SSH servers are reached. Default `127.0.0.1`.
    pub publish_address: String,
    /// Port of the SSH server in the container. Default 22.
    pub ssh_port: u16,
    /// File in the container that gets the public key. Default: `.ssh/authorized_keys` below `/root`, or below
    /// `/home/<username>` for another login.
    pub authorized_keys: Option<String>,
}

// === impl Config ===

impl Config {
    /// Settings with their defaults.
    #[must_use]
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            host: DEFAULT_HOST.to_owned(),
            max_size: 10,
            command: Vec::new(),
            environment: Vec::new(),
            capabilities: Vec::new(),
            privileged: false,
            security_opt: Vec::new(),
            volumes: Vec::new(),
            network: None,
            memory: None,
            nano_cpus: None,
            labels: Vec::new(),
            publish_address: "127.0.0.1".to_owned(),
            ssh_port: 22,
            authorized_keys: None,
        }
    }

    /// Reads the `plugin_config` table. `name` and `image` are required.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for wrong values and unknown keys.
    pub fn from_plugin_config(table: &Value) -> Result<Self, GroupError> {
        let mut table = PluginConfig::new(table)?;
        let default = Self::new("", "");
        let config = Self {
            name: table.string("name")?.unwrap_or_default(),
            image: table.string("image")?.unwrap_or_default(),
            host: table.string("host")?.unwrap_or(default.host),
            max_size: table.unsigned("max_size")?.unwrap_or(default.max_size),
            command: table.strings("command")?.unwrap_or_default(),
            environment: table.strings("environment")?.unwrap_or_default(),
            capabilities: table.strings("capabilities")?.unwrap_or_default(),
            privileged: table.boolean("privileged")?.unwrap_or(default.privileged),
            security_opt: table.strings("security_opt")?.unwrap_or_default(),
            volumes: table.strings("volumes")?.unwrap_or_default(),
            network: table.string("network")?,
            memory: read(&mut table, "memory", "a size such as \"512m\" or \"4g\"", bytes)?,
            nano_cpus: read(&mut table, "cpus", "a number in quotes such as \"2\" or \"0.5\"", nano_cpus)?,
            labels: table.strings("labels")?.unwrap_or_default(),
            publish_address: table.string("publish_address")?.unwrap_or(default.publish_address),
            ssh_port: match table.unsigned("ssh_port")? {
                None => default.ssh_port,
                Some(port) => {
                    u16::try_from(port).map_err(|_| table.error("ssh_port", "must be a port, up to 65535"))?
                }
            },
            authorized_keys: table.string("authorized_keys")?,
        };
        config.check(&table)?;
        table.finish()?;
        Ok(config)
    }

    fn check(&self, table: &PluginConfig<'_>) -> Result<(), GroupError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !self.name.chars().all(plain) {
            return Err(table.error(
                "name",
                "must consist of letters, digits, `-` and `_`; containers are named after it",
            ));
        }
        if self.image.is_empty() {
            return Err(
                table.error("image", "is missing: the image of the instances, with an SSH server in it")
            );
        }
        if !self.host.starts_with("unix:///") {
            return Err(table.error(
                "host",
                "must be `unix://` and the path of the engine's socket, for example unix:///var/run/docker.sock",
            ));
        }
        if let Some(label) = self.labels.iter().find(|label| label.starts_with(crate::containers::RESERVED)) {
            return Err(table
                .error("labels", format_args!("`{label}`: names that begin with `drover.` are reserved")));
        }
        if self.authorized_keys.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(table.error("authorized_keys", "must be an absolute path in the container"));
        }
        Ok(())
    }
}

fn read<T>(
    table: &mut PluginConfig<'_>,
    key: &'static str,
    expected: &str,
    parse: fn(&str) -> Option<T>,
) -> Result<Option<T>, GroupError> {
    let Some(text) = table.string(key)? else { return Ok(None) };
    parse(&text).map(Some).ok_or_else(|| table.error(key, format_args!("must be {expected}")))
}

/// The engine's own notation: a whole number and one of b, k, m, g.
fn bytes(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

fn nano_cpus(text: &str) -> Option<i64> {
    let cpus: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (cpus > 0.0 && cpus < 1e6).then(|| (cpus * 1e9).round() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_read() {
        let table = json!({
            "name": "big", "image": "ci:1", "host": "unix:///run/e.sock", "max_size": 3, "command": ["sh", "-c", "up"],
            "environment": ["A=1"], "capabilities": ["NET_ADMIN"], "privileged": true, "security_opt": ["seccomp=unconfined"],
            "volumes": ["/var/lib/docker"], "network": "ci", "memory": "4g", "cpus": "1.5", "labels": ["team=build"],
            "publish_address": "10.0.0.1", "ssh_port": 2222, "authorized_keys": "/etc/keys",
        });
        let expected = Config {
            host: "unix:///run/e.sock".into(),
            max_size: 3,
            command: vec!["sh".into(), "-c".into(), "up".into()],
            environment: vec!["A=1".into()],
            capabilities: vec!["NET_ADMIN".into()],
            privileged: true,
            security_opt: vec!["seccomp=unconfined".into()],
            volumes: vec!["/var/lib/docker".into()],
            network: Some("ci".into()),
            memory: Some(4 << 30),
            nano_cpus: Some(1_500_000_000),
            labels: vec!["team=build".into()],
            publish_address: "10.0.0.1".into(),
            ssh_port: 2222,
            authorized_keys: Some("/etc/keys".into()),
            ..Config::new("big", "ci:1")
        };
        assert_eq!(Config::from_plugin_config(&table).unwrap(), expected);
        let table = json!({ "name": "big", "image": "ci:1" });
        assert_eq!(Config::from_plugin_config(&table).unwrap(), Config::new("big", "ci:1"));
    }

    #[test]
    fn mistakes_are_refused_with_the_key() {
        let error = |key: &str, value: Value| {
            let mut table = json!({ "name": "big", "image": "ci:1" });
            table[key] = value;
            Config::from_plugin_config(&table).unwrap_err().to_string()
        };
        for (key, value) in [
            ("name", json!("")),
            ("name", json!("-x")),
            ("image", json!("")),
            ("host", json!("tcp://10.0.0.1:2375")),
            ("memory", json!("lots")),
            ("memory", json!("-1")),
            ("cpus", json!("0")),
            ("command", json!("sshd")),
            ("labels", json!(["drover.instance-group=other"])),
            ("ssh_port", json!(70000)),
            ("authorized_keys", json!("keys")),
        ] {
            let said = error(key, value);
            assert!(said.contains(&format!("plugin_config.{key}: ")), "{said}");
        }
        assert!(error("capability", json!([])).contains("did you mean `capabilities`?"));
    }
}
