//! The cache store of a runner entry, as its jobs use it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cache_store::{CacheStore, CacheStoreError};
use config::Runner;
use executors::{CacheAddresses, SignedCaches};
use job::{Context, Stage};

/// A cloud that does not say who this machine is must not keep a job waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// Signs addresses with the store of a runner entry.
pub(crate) struct EntryCaches {
    /// None: caches stay where the job runs.
    store: Option<CacheStore>,
    runner: String,
}

// === impl EntryCaches ===

impl EntryCaches {
    /// Relative paths are below `base`.
    pub(crate) fn new(entry: &Runner, base: &Path) -> Self {
        let mut cache = entry.cache.clone();
        let gcs = cache.as_mut().and_then(|cache| cache.gcs.as_mut());
        if let Some(file) = gcs.and_then(|gcs| gcs.credentials_file.as_mut()).filter(|file| !file.is_empty())
        {
            *file = base.join(&*file).display().to_string();
        }
        let store = cache.and_then(|cache| CacheStore::new(&cache, entry.short_token()));
        Self { store, runner: entry.label() }
    }

    /// The addresses of all keys, or the first reason why there are none.
    async fn all(
        &self,
        store: &CacheStore,
        context: &Context,
        stage: Stage,
    ) -> Result<SignedCaches, CacheStoreError> {
        let mut signed = SignedCaches::default();
        let project = context.job().job_info.project_id;
        let lifetime = context.timeouts().job;
        for key in context.cache_keys(stage) {
            let remote = if matches!(stage, Stage::ArchiveCache(_)) {
                store.save(project, key, lifetime).await
            } else {
                store.restore(project, key, lifetime).await
            };
            match remote {
                Ok(remote) => {
                    signed.addresses.insert(key.name.clone(), remote);
                }
                // The other keys are as good as they were.
                Err(error @ CacheStoreError::Key(_)) => signed.warnings.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(signed)
    }
}

#[async_trait]
impl CacheAddresses for EntryCaches {
    async fn sign(&self, context: &Context, stage: Stage) -> SignedCaches {
        let Some(store) = &self.store else { return SignedCaches::default() };
        let job = context.job().id;
        let why = match tokio::time::timeout(PATIENCE, self.all(store, context, stage)).await {
            Ok(Ok(signed)) => return signed,
            Ok(Err(error)) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(
                    runner = self.runner,
                    job,
                    error = cause,
                    "the cache store cannot be used; caches stay on the instance"
                );
                error.to_string()
            }
            Err(_) => {
                tracing::warn!(
                    runner = self.runner,
                    job,
                    "no credentials for the cache store came within {PATIENCE:?}; caches stay on the instance"
                );
                format!("no credentials came within {} seconds", PATIENCE.as_secs())
            }
        };
        // The cause may tell of the manager's machine and account, which is not the job's business.
        let warning =
            format!("The runner's cache store cannot be used: {why}. Only caches on this machine are used.");
        SignedCaches { warnings: vec![warning], ..SignedCaches::default() }
    }
}
