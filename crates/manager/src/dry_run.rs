//! A manager that decides and changes nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use config::Capabilities;
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, Finding, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Seen,
};
use serde_json::Value;

use crate::providers::Providers;

/// Providers whose groups are looked at and never changed.
///
/// Instances that would be created are listed as being created, under the names `dry-run-1`, `dry-run-2`, ...; they never
/// run, so the scaler gives them up after its creation timeout and asks for others. Instances that would be deleted are
/// listed no more, although they are still there. No instance is connected to.
#[derive(Clone)]
pub struct DryRun(Arc<dyn Providers>);

struct DryGroup {
    name: String,
    inner: Arc<dyn InstanceGroup>,
    pretence: Mutex<Pretence>,
}

/// What would differ from what is.
#[derive(Debug, Default)]
struct Pretence {
    asked: u64,
    made: BTreeSet<InstanceId>,
    deleted: BTreeSet<InstanceId>,
}

// === impl DryRun ===

impl DryRun {
    /// The same providers, with groups that nothing changes.
    #[must_use]
    pub fn new(providers: Arc<dyn Providers>) -> Self {
        Self(providers)
    }
}

impl Providers for DryRun {
    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn group(&self, name: &str, config: &Value) -> Result<Arc<dyn InstanceGroup>, GroupError> {
        let inner = self.0.group(name, config)?;
        Ok(Arc::new(DryGroup { name: name.to_owned(), inner, pretence: Mutex::default() }))
    }
}

// === impl DryGroup ===

impl DryGroup {
    fn pretence(&self) -> std::sync::MutexGuard<'_, Pretence> {
        self.pretence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl InstanceGroup for DryGroup {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        self.inner.init(settings).await
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let real = self.inner.update().await?;
        let mut pretence = self.pretence();
        let there: BTreeSet<InstanceId> = real.iter().map(|seen| seen.id.clone()).collect();
        pretence.deleted.retain(|id| there.contains(id));
        let mut listing: Vec<Seen> =
            real.into_iter().filter(|seen| !pretence.deleted.contains(&seen.id)).collect();
        listing.extend(pretence.made.iter().map(|id| Seen::new(id.clone(), InstanceState::Creating)));
        Ok(listing)
    }

    fn max_size(&self) -> Option<u32> {
        self.inner.max_size()
    }

    async fn increase(&self, n: u32) -> Changed<u32> {
        tracing::info!(plugin = self.name, amount = n, "dry run: would create instances");
        let mut pretence = self.pretence();
        for _ in 0..n {
            pretence.asked += 1;
            let id = InstanceId::from(format!("dry-run-{}", pretence.asked));
            pretence.made.insert(id);
        }
        Changed::all(n)
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        let names: Vec<&str> = ids.iter().map(InstanceId::as_str).collect();
        tracing::info!(plugin = self.name, instances = names.join(" "), "dry run: would delete instances");
        let mut pretence = self.pretence();
        for id in ids {
            if !pretence.made.remove(id) {
                pretence.deleted.insert(id.clone());
            }
        }
        Changed::all(ids.to_vec())
    }

    async fn connect_info(&self, _: &InstanceId) -> Result<ConnectInfo, GroupError> {
        // It may provision credentials, which is a change.
        Err(GroupError::Unsupported { what: "connecting to an instance in a dry run" })
    }

    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        self.inner.heartbeat(id).await
    }

    async fn fate(&self, id: &InstanceId) -> Option<String> {
        self.inner.fate(id).await
    }

    async fn diagnose(&self) -> Vec<Finding> {
        self.inner.diagnose().await
    }

    /// No: what a dry run makes of the instances must not be remembered, nor what is remembered be touched.
    fn outlives_process(&self) -> bool {
        false
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        self.inner.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group with one instance that fails the test when it is changed.
    struct Untouchable;

    #[async_trait]
    impl InstanceGroup for Untouchable {
        async fn init(&self, _: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
            Ok(GroupInfo { id: "x".into(), max_size: 5, provider: "x".into(), has_heartbeat: false })
        }
        async fn update(&self) -> Result<Vec<Seen>, GroupError> {
            Ok(vec![Seen::new("real", InstanceState::Running)])
        }
        async fn increase(&self, _: u32) -> Changed<u32> {
            panic!("increased")
        }
        async fn decrease(&self, _: &[InstanceId]) -> Changed<Vec<InstanceId>> {
            panic!("decreased")
        }
        async fn connect_info(&self, _: &InstanceId) -> Result<ConnectInfo, GroupError> {
            panic!("connected")
        }
        async fn heartbeat(&self, _: &InstanceId) -> Result<(), HeartbeatError> {
            Ok(())
        }
        async fn shutdown(&self) -> Result<(), GroupError> {
            Ok(())
        }
    }

    struct OnlyUntouchable;

    impl Providers for OnlyUntouchable {
        fn names(&self) -> Vec<String> {
            vec!["x".to_owned()]
        }
        fn group(&self, _: &str, _: &Value) -> Result<Arc<dyn InstanceGroup>, GroupError> {
            Ok(Arc::new(Untouchable))
        }
    }

    #[tokio::test]
    async fn what_would_be_done_shows_in_the_listing_and_nowhere_else() {
        let group = DryRun::new(Arc::new(OnlyUntouchable)).group("x", &Value::Null).unwrap();
        assert_eq!(group.increase(2).await, Changed::all(2));
        assert_eq!(names(&group).await, ["real", "dry-run-1", "dry-run-2"]);
        let ids = [InstanceId::from("real"), InstanceId::from("dry-run-1")];
        assert_eq!(group.decrease(&ids).await, Changed::all(ids.to_vec()));
        assert_eq!(names(&group).await, ["dry-run-2"]);
        assert!(group.connect_info(&InstanceId::from("real")).await.is_err());
    }

    async fn names(group: &Arc<dyn InstanceGroup>) -> Vec<String> {
        group.update().await.unwrap().iter().map(|seen| seen.id.as_str().to_owned()).collect()
    }
}
