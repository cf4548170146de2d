//! The one place that knows which providers exist.

use std::sync::Arc;

use config::{Capabilities, ExecutorName};
use fleeting::{GroupError, InstanceGroup};
#[cfg(feature = "aws")]
use fleeting_aws::AwsGroup;
use fleeting_docker::DockerGroup;
use fleeting_local::LocalGroup;
use fleeting_static::StaticGroup;
use serde_json::Value;

/// Makes instance groups from the `plugin` and `plugin_config` of runner entries.
pub trait Providers: Send + Sync + 'static {
    /// Names that `plugin` may have.
    fn names(&self) -> Vec<String>;

    /// What runner entries may ask for.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            executors: vec![ExecutorName::Instance, ExecutorName::DockerAutoscaler, ExecutorName::Docker],
            plugins: self.names(),
        }
    }

    /// The group that an entry asks for.
    ///
    /// # Errors
    /// The provider's verdict on its configuration.
    fn group(&self, name: &str, config: &Value) -> Result<Arc<dyn InstanceGroup>, GroupError>;
}

/// What makes the group of a plugin hold so many instances.
pub(crate) fn resize(plugin: &str, config: &Value, size: u32) -> String {
    let lower = "or lower max_instances";
    match plugin {
        "aws" => {
            let key = |key| config.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
            let option = |name| key(name).map_or_else(String::new, |value| format!(" --{name} {value}"));
            let (region, profile, name) =
                (option("region"), option("profile"), key("name").unwrap_or("NAME"));
            format!(
                "aws autoscaling{region}{profile} update-auto-scaling-group --auto-scaling-group-name {name} --max-size \
                 {size}   # {lower}"
            )
        }
        "static" => format!("add machines to [runners.autoscaler.plugin_config.instances]   # {lower}"),
        _ => format!("set max_size = {size} in [runners.autoscaler.plugin_config]   # {lower}"),
    }
}

/// The providers that are built in.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

impl Providers for BuiltIn {
    fn names(&self) -> Vec<String> {
        let aws = cfg!(feature = "aws").then_some("aws");
        aws.into_iter().chain(["docker", "local", "static"]).map(str::to_owned).collect()
    }

    fn group(&self, name: &str, config: &Value) -> Result<Arc<dyn InstanceGroup>, GroupError> {
        match name {
            #[cfg(feature = "aws")]
            "aws" => Ok(Arc::new(AwsGroup::from_plugin_config(config)?)),
            "docker" => Ok(Arc::new(DockerGroup::from_plugin_config(config)?)),
            "local" => Ok(Arc::new(LocalGroup::from_plugin_config(config)?)),
            "static" => Ok(Arc::new(StaticGroup::from_plugin_config(config)?)),
            unknown => Err(GroupError::Configuration {
                message: format!(
                    "plugin `{unknown}` is not built in; this build has {}",
                    self.names().join(", ")
                ),
            }),
        }
    }
}
