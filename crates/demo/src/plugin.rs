//! The provider of local instances, kept within reach so that one of them can be killed.

use std::sync::{Arc, OnceLock};

use fleeting::{GroupError, InstanceGroup};
use fleeting_local::LocalGroup;
use manager::Providers;
use serde_json::Value;

/// Makes one group and remembers it.
#[derive(Debug, Default)]
pub(crate) struct Local {
    group: OnceLock<Arc<LocalGroup>>,
}

// === impl Local ===

impl Local {
    /// The group, once the manager has asked for it.
    pub(crate) fn group(&self) -> Option<&Arc<LocalGroup>> {
        self.group.get()
    }
}

impl Providers for Local {
    fn names(&self) -> Vec<String> {
        vec!["local".to_owned()]
    }

    fn group(&self, name: &str, config: &Value) -> Result<Arc<dyn InstanceGroup>, GroupError> {
        if name != "local" {
            return Err(GroupError::Configuration { message: format!("the demo has no plugin `{name}`") });
        }
        let made = Arc::new(LocalGroup::from_plugin_config(config)?);
        // A manager that tries again gets the group that it had.
        let group = self.group.get_or_init(|| made);
        Ok(Arc::clone(group) as Arc<dyn InstanceGroup>)
    }
}
