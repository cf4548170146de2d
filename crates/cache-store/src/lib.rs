//! Where caches of jobs live: S3, Google Cloud Storage, Azure Blob. Signs the addresses that a job gets, so that no
//! credential reaches it.
//!
//! [`CacheStore`] is made of the `[runners.cache]` of one runner entry. For each key of a job it signs the addresses that the
//! helper beside the job is called with: [`CacheStore::restore`] before the steps, [`CacheStore::save`] after them.
//!
//! ```
//! use std::time::Duration;
//!
//! use drover_cache_store::CacheStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = config::Cache {
//!     kind: Some("s3".into()),
//!     shared: true,
//!     s3: Some(config::S3Cache {
//!         server_address: Some("minio.example.com:9000".into()),
//!         access_key: Some("key".to_owned().into()),
//!         secret_key: Some("secret".to_owned().into()),
//!         bucket_name: Some("caches".into()),
//!         bucket_location: Some("us-east-1".into()),
//!         ..config::S3Cache::default()
//!     }),
//!     ..config::Cache::default()
//! };
//! let store = CacheStore::new(&cache, "t1_Abc").ok_or("no cache store is configured")?;
//! let key = job::CacheKey { readable: "main".into(), name: "main".into(), alternate: "d5592...".into() };
//! let addresses = store.restore(42, &key, Duration::from_secs(3600)).await?;
//! assert!(addresses.get_url.starts_with("https://minio.example.com:9000/caches/project/42/main?X-Amz-"));
//! # Ok(())
//! # }
//! ```
//!
//! It does not move caches, and does not decide which caches a job has. Signing is done by the machine's processor alone,
//! but for the machine's own credentials, which are asked for once and kept until they expire. A job without caches costs
//! nothing.

mod azure;
mod error;
mod gcs;
mod object;
mod s3;

use std::sync::Arc;
use std::time::Duration;

use config::{Cache, CacheType};
use job::{CacheKey, RemoteCache};
use object_store::signer::Method;
use tokio::sync::OnceCell;

use azure::Azure;
use gcs::Gcs;
use object::{Prefix, is_hashed};
use s3::S3;

pub use error::{CacheStoreError, RoleError};

/// No cloud signs for longer.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What is signed must outlive one transfer with its repeats.
const SHORTEST: Duration = Duration::from_secs(60);

/// Where the caches of one runner entry are kept.
#[derive(Debug)]
pub struct CacheStore {
    cache: Cache,
    prefix: Prefix,
    /// Made when the first job with a cache comes; a failure is not remembered, so that what was repaired works.
    backend: OnceCell<Backend>,
}

#[derive(Debug)]
enum Backend {
    S3(S3),
    Gcs(Gcs),
    Azure(Azure),
}

/// An address, and the headers without which it is not good.
#[derive(Default)]
pub(crate) struct Signed {
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
}

// === impl CacheStore ===

impl CacheStore {
    /// The store of a runner entry; `None` if it names no `Type`, which means that caches stay where the job ran. Nothing is
    /// read and nobody is asked before the first address is signed. `short_token` is the runner's, as in
    /// `CI_RUNNER_SHORT_TOKEN`.
    #[must_use]
    pub fn new(cache: &Cache, short_token: &str) -> Option<Self> {
        cache.kind.as_deref().filter(|kind| !kind.is_empty())?;
        let prefix = Prefix::new(cache.path.as_deref(), cache.shared, short_token);
        Some(Self { cache: cache.clone(), prefix, backend: OnceCell::new() })
    }

    /// Addresses to download the cache of a key. They are good for `lifetime`, at most seven days.
    ///
    /// # Errors
    /// [`CacheStoreError`].
    pub async fn restore(
        &self,
        project: u64,
        key: &CacheKey,
        lifetime: Duration,
    ) -> Result<RemoteCache, CacheStoreError> {
        let hashed = is_hashed(key);
        let object = self.prefix.object(project, &key.name, hashed)?;
        let backend = self.backend().await?;
        let sign = async |method, object: &str| {
            backend.sign(method, object, None, bounded(lifetime)).await.map(|signed| signed.url)
        };
        let mut remote = RemoteCache {
            get_url: sign(Method::GET, &object).await?,
            head_url: sign(Method::HEAD, &object).await?,
            ..RemoteCache::default()
        };
        // The other name may have no place in this project; then there is nothing under it.
        if let Ok(alternate) = self.prefix.object(project, &key.alternate, !hashed) {
            remote.alternate_get_url = sign(Method::GET, &alternate).await?;
            remote.alternate_head_url = sign(Method::HEAD, &alternate).await?;
        }
        Ok(remote)
    }

    /// Addresses to upload the cache of a key. They are good for `lifetime`, at most seven days.
    ///
    /// # Errors
    /// [`CacheStoreError`].
    pub async fn save(
        &self,
        project: u64,
        key: &CacheKey,
        lifetime: Duration,
    ) -> Result<RemoteCache, CacheStoreError> {
        let object = self.prefix.object(project, &key.name, is_hashed(key))?;
        let backend = self.backend().await?;
        let upload = Upload { key: &key.readable, limit: self.cache.max_uploaded_archive_size() };
        let put = backend.sign(Method::PUT, &object, Some(upload), bounded(lifetime)).await?;
        let check = backend.sign(Method::HEAD, &object, None, bounded(lifetime)).await?;
        Ok(RemoteCache {
            put_url: put.url,
            put_headers: put.headers,
            check_url: check.url,
            ..RemoteCache::default()
        })
    }

    async fn backend(&self) -> Result<&Backend, CacheStoreError> {
        self.backend.get_or_try_init(|| Backend::new(&self.cache)).await
    }
}

/// What an upload says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Upload<'a> {
    /// The readable key.
    pub(crate) key: &'a str,
    /// The most bytes that may be sent.
    pub(crate) limit: Option<u64>,
}

// === impl Backend ===

impl Backend {
    async fn new(cache: &Cache) -> Result<Self, CacheStoreError> {
        match cache.cache_type() {
            Some(CacheType::S3) => {
                let s3 = cache.s3.as_ref().ok_or_else(|| missing("BucketName", s3::TABLE))?;
                Ok(Self::S3(S3::new(s3).await?))
            }
            Some(CacheType::Gcs) => {
                let gcs = cache.gcs.as_ref().ok_or_else(|| missing("BucketName", gcs::TABLE))?;
                Ok(Self::Gcs(Gcs::new(gcs)?))
            }
            Some(CacheType::Azure) => {
                let azure = cache.azure.as_ref().ok_or_else(|| missing("ContainerName", azure::TABLE))?;
                Ok(Self::Azure(Azure::new(azure)?))
            }
            None => Err(CacheStoreError::Type(cache.kind.clone().unwrap_or_default())),
        }
    }

    async fn sign(
        &self,
        method: Method,
        object: &str,
        upload: Option<Upload<'_>>,
        lifetime: Duration,
    ) -> Result<Signed, CacheStoreError> {
        match self {
            Self::S3(s3) => s3.sign(method, object, upload, lifetime).await,
            Self::Gcs(gcs) => gcs.sign(method, object, upload, lifetime).await,
            Self::Azure(azure) => azure.sign(&method, object, lifetime).await,
        }
    }
}

// === helpers ===

fn bounded(lifetime: Duration) -> Duration {
    lifetime.clamp(SHORTEST, LONGEST)
}

pub(crate) fn missing(key: &'static str, table: &'static str) -> CacheStoreError {
    CacheStoreError::Missing { key, table }
}

/// A text of the configuration file that must be there.
pub(crate) fn required<'a>(
    text: Option<&'a str>,
    key: &'static str,
    table: &'static str,
) -> Result<&'a str, CacheStoreError> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| missing(key, table))
}

/// The object's name as the library takes it.
pub(crate) fn path(name: &str) -> Result<object_store::path::Path, CacheStoreError> {
    object_store::path::Path::parse(name).map_err(|_| CacheStoreError::Key(name.to_owned()))
}

/// Bounds on asking a cloud for credentials: jobs wait for it.
pub(crate) fn retry() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
        ..object_store::RetryConfig::default()
    }
}

/// A signer of the library.
pub(crate) type LibrarySigner = Arc<dyn object_store::signer::Signer>;
