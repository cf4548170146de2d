//! Reading a `plugin_config` table with errors that name the key and what to do.
//!
//! ```
//! use drover_fleeting::PluginConfig;
//!
//! let table = serde_json::json!({ "name": "build", "boot_dely": "30s" });
//! let mut config = PluginConfig::new(&table).unwrap();
//! assert_eq!(config.string("name").unwrap().as_deref(), Some("build"));
//! assert_eq!(config.duration("boot_delay").unwrap(), None);
//! let error = config.finish().unwrap_err().to_string();
//! assert!(error.ends_with("plugin_config.boot_dely: unknown key; did you mean `boot_delay`?"), "{error}");
//! ```

use std::time::Duration;

use connect_info::SecretString;
use serde_json::{Map, Value};

use crate::GroupError;

/// How alike two keys must be for one to be suggested in place of the other (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// One table of a provider's configuration while it is read. Each getter also marks its key as known;
/// [`finish`](Self::finish) refuses what was never asked for.
#[derive(Debug)]
pub struct PluginConfig<'a> {
    path: String,
    table: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

// === impl PluginConfig ===

impl<'a> PluginConfig<'a> {
    /// Begins to read `[runners.autoscaler.plugin_config]`. Null stands for an absent table.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if the value is no table.
    pub fn new(value: &'a Value) -> Result<Self, GroupError> {
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        if value.is_null() {
            return Ok(Self { path: "plugin_config".to_owned(), table: &EMPTY, known: Vec::new() });
        }
        Self::table_at("plugin_config".to_owned(), value)
    }

    /// A text.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else.
    pub fn string(&mut self, key: &'static str) -> Result<Option<String>, GroupError> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A text that must not be shown.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else; the value is not in the message.
    pub fn secret(&mut self, key: &'static str) -> Result<Option<SecretString>, GroupError> {
        self.read(key, "a string", |value| value.as_str().map(SecretString::from))
    }

    /// A whole number from 0 to 2^32-1.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else.
    pub fn unsigned(&mut self, key: &'static str) -> Result<Option<u32>, GroupError> {
        self.read(key, "a whole number that is not negative", |value| {
            value.as_u64().and_then(|number| u32::try_from(number).ok())
        })
    }

    /// Any whole number from 0 to 2^64-1.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else.
    pub fn unsigned_long(&mut self, key: &'static str) -> Result<Option<u64>, GroupError> {
        self.read(key, "a whole number that is not negative", Value::as_u64)
    }

    /// A share from 0.0 to 1.0; whole numbers are taken too.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else.
    pub fn share(&mut self, key: &'static str) -> Result<Option<f64>, GroupError> {
        let within = |share: &f64| (0.0..=1.0).contains(share);
        self.read(key, "a number from 0.0 to 1.0", |value| value.as_f64().filter(within))
    }

    /// A duration in Go's form that is not negative, for example `1m30s`.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else. Bare numbers are refused: Go reads them as nanoseconds.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, GroupError> {
        self.read(key, "a duration in quotes such as \"30s\", \"5m\" or \"1h30m\"", |value| match value {
            Value::String(text) => go_duration::parse(text).ok(),
            Value::Number(number) if number.as_u64() == Some(0) => Some(Duration::ZERO),
            Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    }

    /// True or false.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, GroupError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A list of texts.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it is something else.
    pub fn strings(&mut self, key: &'static str) -> Result<Option<Vec<String>>, GroupError> {
        self.read(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        })
    }

    /// The entries of a table of tables, in the order of their names.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if it, or one of its entries, is no table.
    pub fn entries(&mut self, key: &'static str) -> Result<Option<Vec<(String, Self)>>, GroupError> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let table = Self::table_at(format!("{}.{key}", self.path), value)?;
        let mut entries = Vec::with_capacity(table.table.len());
        for (name, value) in table.table {
            entries.push((name.clone(), Self::table_at(format!("{}.{name}", table.path), value)?));
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Some(entries))
    }

    /// An error about a key of this table.
    #[must_use]
    pub fn error(&self, key: &str, message: impl std::fmt::Display) -> GroupError {
        GroupError::Configuration { message: format!("{}.{key}: {message}", self.path) }
    }

    /// Refuses keys that no getter has asked for.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] names the first such key and the one that may be meant.
    pub fn finish(self) -> Result<(), GroupError> {
        let Some(unknown) = self.table.keys().find(|key| !self.known.contains(&key.as_str())) else {
            return Ok(());
        };
        let likeness = |known: &&'static str| strsim::jaro_winkler(known, unknown);
        let nearest = self.known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = match nearest {
            Some(nearest) if likeness(&nearest) >= ALIKE => format!("did you mean `{nearest}`?"),
            Some(_) | None => format!("known are {}", self.known.join(", ")),
        };
        Err(self.error(unknown, format_args!("unknown key; {hint}")))
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, GroupError> {
        self.known.push(key);
        match self.table.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.error(key, format_args!("must be {expected}"))),
            },
        }
    }

    fn table_at(path: String, value: &'a Value) -> Result<Self, GroupError> {
        match value.as_object() {
            Some(table) => Ok(Self { path, table, known: Vec::new() }),
            None => Err(GroupError::Configuration { message: format!("{path}: must be a table") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_values_are_refused_with_path_and_expectation_but_without_the_value() {
        let table = json!({ "timeout": 30, "wait": "5 s", "every": "1h30m", "rate": 1.5, "size": -1, "pools": { "a": { "password": 1234 } } });
        let mut config = PluginConfig::new(&table).unwrap();
        let text = |error: GroupError| error.to_string();
        assert_eq!(
            text(config.duration("timeout").unwrap_err()),
            "bad configuration: plugin_config.timeout: must be a duration in quotes such as \"30s\", \"5m\" or \"1h30m\""
        );
        assert!(
            text(config.duration("wait").unwrap_err()).contains("plugin_config.wait: must be a duration")
        );
        assert_eq!(config.duration("every").unwrap(), Some(Duration::from_secs(5400)));
        assert!(
            text(config.share("rate").unwrap_err())
                .contains("plugin_config.rate: must be a number from 0.0 to 1.0")
        );
        assert!(text(config.unsigned("size").unwrap_err()).contains("plugin_config.size"));
        let (_, mut pool) = config.entries("pools").unwrap().unwrap().remove(0);
        let error = text(pool.secret("password").unwrap_err());
        assert_eq!(error, "bad configuration: plugin_config.pools.a.password: must be a string");
    }

    #[test]
    fn an_unknown_key_far_from_all_others_is_refused_with_the_list_of_known_keys() {
        let table = json!({ "zzz": 1 });
        let mut config = PluginConfig::new(&table).unwrap();
        config.string("name").unwrap();
        config.string("region").unwrap();
        let error = config.finish().unwrap_err().to_string();
        assert_eq!(error, "bad configuration: plugin_config.zzz: unknown key; known are name, region");
    }

    #[test]
    fn an_absent_table_is_an_empty_one_and_a_list_is_none() {
        assert!(PluginConfig::new(&Value::Null).unwrap().finish().is_ok());
        assert!(PluginConfig::new(&json!([])).is_err());
    }
}
