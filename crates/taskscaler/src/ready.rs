//! What has to be true of an instance before a job goes there.

use std::sync::Arc;

use async_trait::async_trait;
use connect_info::ConnectInfo;
use fleeting::{HeartbeatError, InstanceId, Reach};

/// Makes instances ready, and notices when they no longer are. The executor implements it.
#[async_trait]
pub trait ReadyUp: Send + Sync + 'static {
    /// Prepares an instance that has just become running: connect, run the ready command. It takes jobs only after this
    /// returned `Ok`. Bounded by the caller through the connector's `timeout`.
    ///
    /// # Errors
    /// Why the instance is no good; it is removed, and its successor comes after a back-off.
    async fn ready_up(&self, info: ConnectInfo) -> Result<(), String>;

    /// Looks whether a ready instance still answers, beside the provider's own health check.
    ///
    /// # Errors
    /// See [`HeartbeatError`].
    async fn probe(&self, instance: &InstanceId) -> Result<(), HeartbeatError> {
        let _ = instance;
        Ok(())
    }

    /// What reaches what the instance can reach, over the connection that is open to it; none without one. Must be quick.
    fn reach(&self, instance: &InstanceId) -> Option<Arc<dyn Reach>> {
        let _ = instance;
        None
    }

    /// The instance is gone or going: let go of what is kept for it.
    fn forget(&self, instance: &InstanceId) {
        let _ = instance;
    }
}

/// Every running instance is ready at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

#[async_trait]
impl ReadyUp for Always {
    async fn ready_up(&self, _: ConnectInfo) -> Result<(), String> {
        Ok(())
    }
}
