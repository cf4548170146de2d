//! Credentials that work for a short time only, and how they are made to work again.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

type Renewing = Pin<Box<dyn Future<Output = Result<SystemTime, RenewalError>> + Send>>;

/// Makes the credentials of a [`ConnectInfo`](crate::ConnectInfo) work again after they expired. The credentials stay the
/// same; the provider only has the instance accept them for a while. Cheap to clone.
#[derive(Clone)]
pub struct Renewal(Arc<dyn Fn() -> Renewing + Send + Sync>);

/// Why credentials could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// The instance does not exist any more: there is nothing to connect to, ever.
    #[error("the instance is gone: {0}")]
    Gone(String),
    /// Anything that may pass by itself.
    #[error("{0}")]
    Failed(String),
}

// === impl Renewal ===

impl Renewal {
    /// A renewal by this function, which answers when the credentials stop working again.
    pub fn new<F, R>(renew: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<SystemTime, RenewalError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(renew())))
    }

    /// Makes the credentials work again, and says until when.
    ///
    /// # Errors
    /// [`RenewalError`].
    pub async fn renew(&self) -> Result<SystemTime, RenewalError> {
        (self.0)().await
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}
