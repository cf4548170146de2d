//! What stands behind a machine.

use async_trait::async_trait;

/// Starts and ends what stands behind the machines of a daemon.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Starts a machine of an image; its address as the host reaches it.
    ///
    /// # Errors
    /// Why there is none, as the daemon will say it.
    async fn start(&self, id: &str, image: &str) -> Result<String, String>;

    /// Ends a machine. Must be quick.
    fn end(&self, id: &str);
}

/// Machines of which nothing is there but the address, 192.0.2.1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

#[async_trait]
impl Hypervisor for Nothing {
    async fn start(&self, _: &str, _: &str) -> Result<String, String> {
        Ok("192.0.2.1".to_owned())
    }

    fn end(&self, _: &str) {}
}
