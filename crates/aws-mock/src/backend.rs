//! What instances really are.

use async_trait::async_trait;

/// Starts and stops what stands behind an instance, for example an SSH server.
#[async_trait]
pub trait InstanceBackend: Send + Sync + 'static {
    /// The instance boots. The answer is its address: a host or, where several share one, `host:port`.
    async fn start(&self, instance: &str) -> Option<String>;

    /// The instance is taken away, with all that runs on it.
    async fn stop(&self, instance: &str);

    /// A public key is let in for this login, until it is taken back.
    async fn authorize_key(&self, instance: &str, user: &str, public_key: &str);

    /// What was let in is no longer.
    async fn revoke_keys(&self, instance: &str);
}

/// Nothing stands behind the instances: they have addresses at which nobody answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

#[async_trait]
impl InstanceBackend for Nothing {
    async fn start(&self, _: &str) -> Option<String> {
        None
    }

    async fn stop(&self, _: &str) {}

    async fn authorize_key(&self, _: &str, _: &str, _: &str) {}

    async fn revoke_keys(&self, _: &str) {}
}
