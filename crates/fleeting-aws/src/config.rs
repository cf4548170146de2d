//! The keys of `plugin_config`.

use std::path::{Path, PathBuf};

use fleeting::{GroupError, PluginConfig};
use serde_json::Value;

use crate::metadata::MetadataEndpoint;

/// What `plugin_config` says about an Auto Scaling group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// Name of the Auto Scaling group.
    pub name: String,
    /// Profile of the shared configuration files. Where it is absent, credentials come from the SDK's chain: environment,
    /// default profile, web identity, container, instance.
    pub profile: Option<String>,
    /// Shared configuration file in place of `~/.aws/config`.
    pub config_file: Option<PathBuf>,
    /// Shared credentials file in place of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// Region; the SDK's chain (environment, profile, instance) where it is absent.
    pub region: Option<String>,
    /// URL that all calls go to, for private clouds and tests.
    pub endpoint: Option<String>,
    /// Where instances have their metadata services.
    pub metadata: MetadataEndpoint,
}

// === impl AwsConfig ===

impl AwsConfig {
    /// Reads the table `plugin_config`.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] for a missing name, wrong values, unknown keys, and files that cannot be read.
    pub fn from_plugin_config(table: &Value) -> Result<Self, GroupError> {
        let mut read = PluginConfig::new(table)?;
        let name = read.string("name")?.unwrap_or_default();
        let profile = read.string("profile")?.filter(|profile| !profile.is_empty());
        let config_file = path(&mut read, "config_file")?;
        let credentials_file = path(&mut read, "credentials_file")?;
        let region = read.string("region")?.filter(|region| !region.is_empty());
        let endpoint = read.string("endpoint")?.filter(|endpoint| !endpoint.is_empty());
        let metadata = read.string("metadata_endpoint")?.filter(|text| !text.is_empty());
        let metadata = metadata.map_or(Ok(MetadataEndpoint::Ec2), |text| MetadataEndpoint::parse(&text));
        let metadata = metadata.map_err(|why| read.error("metadata_endpoint", why));
        let unnamed =
            name.trim().is_empty().then(|| read.error("name", "must be the name of the Auto Scaling group"));
        let no_url = endpoint
            .as_deref()
            .filter(|endpoint| !endpoint.starts_with("http://") && !endpoint.starts_with("https://"))
            .map(|endpoint| {
                read.error("endpoint", format_args!("`{endpoint}` must start with http:// or https://"))
            });
        // Before that: a misspelt key is the more helpful message.
        read.finish()?;
        match unnamed.or(no_url) {
            Some(error) => Err(error),
            None => Ok(Self {
                name,
                profile,
                config_file,
                credentials_file,
                region,
                endpoint,
                metadata: metadata?,
            }),
        }
    }

    /// Makes sure that the configured files can be read, before the SDK skips them in silence.
    pub(crate) fn check_files(&self) -> Result<(), GroupError> {
        for (key, file) in [("config_file", &self.config_file), ("credentials_file", &self.credentials_file)]
        {
            let Some(file) = file else { continue };
            if let Err(error) = std::fs::File::open(file) {
                let file = file.display();
                let message = format!("plugin_config.{key}: `{file}` cannot be read: {error}");
                return Err(GroupError::Configuration { message });
            }
        }
        Ok(())
    }
}

/// A file; a leading `~/` stands for the home folder, as in the SDK's own defaults.
fn path(read: &mut PluginConfig<'_>, key: &'static str) -> Result<Option<PathBuf>, GroupError> {
    let text = read.string(key)?.filter(|text| !text.is_empty());
    Ok(text.map(|text| match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        (Some(_), None) | (None, _) => PathBuf::from(text),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(table: &Value) -> String {
        AwsConfig::from_plugin_config(table).unwrap_err().to_string()
    }

    #[test]
    fn the_keys_of_the_documented_example_are_read() {
        let config = AwsConfig::from_plugin_config(&json!({
            "name": "my-linux-asg", "profile": "default", "config_file": "/home/user/.aws/config",
            "credentials_file": "/home/user/.aws/credentials", "region": "us-west-2", "endpoint": "http://127.0.0.1:5000"
        }))
        .unwrap();
        assert_eq!(config.name, "my-linux-asg");
        assert_eq!(config.profile.as_deref(), Some("default"));
        assert_eq!(config.config_file, Some("/home/user/.aws/config".into()));
        assert_eq!(config.region.as_deref(), Some("us-west-2"));
        assert_eq!(config.metadata, MetadataEndpoint::Ec2);
        let without = json!({ "name": "g", "metadata_endpoint": "none" });
        assert_eq!(AwsConfig::from_plugin_config(&without).unwrap().metadata, MetadataEndpoint::None);
    }

    #[test]
    fn mistakes_are_refused_with_the_key_and_the_nearest_name() {
        assert!(error(&json!({})).contains("plugin_config.name: must be the name of the Auto Scaling group"));
        assert!(error(&json!({ "name": "g", "regoin": "x" })).contains("did you mean `region`?"));
        assert!(error(&json!({ "name": 5 })).contains("plugin_config.name: must be a string"));
        assert!(error(&json!({ "name": "g", "endpoint": "localhost" })).contains("plugin_config.endpoint"));
        let metadata = error(&json!({ "name": "g", "metadata_endpoint": "https://169.254.169.254" }));
        assert!(
            metadata.contains(
                "plugin_config.metadata_endpoint: `https://169.254.169.254` must be an http:// URL"
            ),
            "{metadata}"
        );
        let missing = AwsConfig { config_file: Some("/nowhere".into()), ..AwsConfig::default() };
        let text = missing.check_files().unwrap_err().to_string();
        assert!(text.contains("plugin_config.config_file: `/nowhere` cannot be read"), "{text}");
    }
}
