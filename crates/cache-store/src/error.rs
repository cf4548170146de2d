//! Why a cache store cannot be used.

/// Why no address was signed. It never fails a job: the cache stays on the job's machine, and the job log says so. Texts
/// name keys of the configuration file and never hold a value that is secret.
#[derive(Debug, thiserror::Error)]
pub enum CacheStoreError {
    /// A key of the configuration file is missing.
    #[error("`{key}` is missing in {table}")]
    Missing {
        /// The key.
        key: &'static str,
        /// Where it belongs.
        table: &'static str,
    },
    /// The value of a key cannot be used.
    #[error("`{key}` in {table} cannot be used: {why}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// Where it stands.
        table: &'static str,
        /// What is wrong, and what is expected.
        why: String,
    },
    /// `Type` names no storage.
    #[error(
        "cache type `{0}` does not exist: write s3, gcs or azure, in lower case, as `Type` in [runners.cache]"
    )]
    Type(String),
    /// The key of a cache would leave the folder of its project.
    #[error("the cache key `{0}` leads out of its project and is not used")]
    Key(String),
    /// The cloud was asked where the bucket is, and did not say.
    #[error(
        "the region of bucket `{bucket}` could not be found out; `BucketLocation` in [runners.cache.s3] saves the question"
    )]
    Region {
        /// The bucket.
        bucket: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A role cannot be taken on.
    #[error("the role `{role}` could not be taken on")]
    Role {
        /// `RoleARN`.
        role: String,
        /// Why.
        #[source]
        source: RoleError,
    },
    /// Credentials are missing, cannot be read, or cannot sign.
    #[error("no address could be signed with the credentials of [runners.cache.{store}]")]
    Sign {
        /// `s3`, `gcs` or `azure`.
        store: &'static str,
        /// Why.
        #[source]
        source: Box<object_store::Error>,
    },
}

/// Why a role could not be taken on.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// There was no answer.
    #[error("the token service did not answer")]
    Call(#[source] reqwest::Error),
    /// The answer is a refusal.
    #[error("the token service answered {status}: {code}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// Code of the error, for example `AccessDenied`.
        code: String,
    },
    /// The answer cannot be read.
    #[error("the token service answered without credentials")]
    Unreadable,
    /// The request could not be signed.
    #[error("the request could not be signed with the manager's own credentials")]
    Sign(#[source] Box<object_store::Error>),
}

// === impl CacheStoreError ===

impl CacheStoreError {
    pub(crate) fn sign(store: &'static str) -> impl Fn(object_store::Error) -> Self {
        move |source| Self::Sign { store, source: Box::new(source) }
    }
}
