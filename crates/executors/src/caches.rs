//! Where caches are kept outside of the places that jobs run in.

use std::collections::BTreeMap;

use async_trait::async_trait;
use job::{Context, RemoteCache, Stage};

/// Signs addresses of caches. It is asked right before each attempt of a stage that moves caches, so that signatures are
/// fresh, and never for a job without caches.
#[async_trait]
pub trait CacheAddresses: Send + Sync + 'static {
    /// Addresses for the keys of a stage, [`Context::cache_keys`]. What goes wrong is a warning: no job fails because of its
    /// cache.
    async fn sign(&self, context: &Context, stage: Stage) -> SignedCaches;
}

/// What a stage that moves caches is told.
#[derive(Debug, Default)]
pub struct SignedCaches {
    /// By the name of the key. A cache without an address stays where the job runs.
    pub addresses: BTreeMap<String, RemoteCache>,
    /// For the job log.
    pub warnings: Vec<String>,
}

/// Caches stay where the job runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalCaches;

#[async_trait]
impl CacheAddresses for LocalCaches {
    async fn sign(&self, _context: &Context, _stage: Stage) -> SignedCaches {
        SignedCaches::default()
    }
}
