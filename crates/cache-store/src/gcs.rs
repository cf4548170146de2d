//! Google Cloud Storage.

use std::time::Duration;

use config::GcsCache;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions};
use secrecy::ExposeSecret as _;

use crate::object::{encoded, header_text};
use crate::{CacheStoreError, LibrarySigner, Signed, Upload, missing, path, required, retry};

pub(crate) const TABLE: &str = "[runners.cache.gcs]";

/// A bucket.
#[derive(Debug)]
pub(crate) struct Gcs {
    signer: LibrarySigner,
}

// === impl Gcs ===

impl Gcs {
    /// A file with credentials wins over a key, and that over what the machine has.
    pub(crate) fn new(gcs: &GcsCache) -> Result<Self, CacheStoreError> {
        let bucket = required(gcs.bucket_name.as_deref(), "BucketName", TABLE)?;
        let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket).with_retry(retry());
        if let Some(universe) = gcs.universe_domain.as_deref().filter(|domain| !domain.is_empty()) {
            builder = builder.with_base_url(&format!("https://storage.{universe}"));
        }
        let file = gcs.credentials_file.as_deref().filter(|file| !file.is_empty());
        let account = gcs.access_id.as_deref().filter(|id| !id.is_empty());
        let key = gcs.private_key.as_ref().filter(|key| !key.expose_secret().is_empty());
        builder = match (file, account, key) {
            (Some(file), ..) => builder.with_service_account_path(file),
            (None, Some(account), Some(key)) => {
                builder.with_service_account_key(account_json(account, key.expose_secret()))
            }
            (None, Some(_), None) => return Err(missing("PrivateKey", TABLE)),
            (None, None, Some(_)) => return Err(missing("AccessID", TABLE)),
            (None, None, None) => match std::env::var("GOOGLE_APPLICATION_CREDENTIALS") {
                Ok(file) if !file.is_empty() => builder.with_application_credentials(file),
                _ => builder,
            },
        };
        let store = builder.build().map_err(CacheStoreError::sign("gcs"))?;
        Ok(Self { signer: std::sync::Arc::new(store) })
    }

    pub(crate) async fn sign(
        &self,
        method: Method,
        object: &str,
        upload: Option<Upload<'_>>,
        lifetime: Duration,
    ) -> Result<Signed, CacheStoreError> {
        let mut headers = Vec::new();
        let mut options = SignedUrlOptions::default();
        if let Some(upload) = upload {
            headers.push(("x-goog-meta-cachekey", header_text(upload.key)));
            // The storage itself refuses what is larger.
            headers.extend(upload.limit.map(|limit| ("x-goog-content-length-range", format!("0,{limit}"))));
            for (name, value) in &headers {
                let value =
                    HeaderValue::try_from(value).map_err(|_| CacheStoreError::Key(upload.key.to_owned()))?;
                options = options.with_signed_header(HeaderName::from_static(name), value);
            }
        }
        // The library puts the name into the URL as it is.
        let path = path(&encoded(object))?;
        let url = self.signer.signed_url_opts(method, &path, lifetime, &options).await;
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Signed { url: url.map_err(CacheStoreError::sign("gcs"))?.into(), headers })
    }
}

/// A key as the file that Google hands out for it. People copy keys with `\n` in place of line ends.
fn account_json(account: &str, key: &str) -> String {
    serde_json::json!({
        "type": "service_account",
        "client_email": account,
        "private_key": key.replace("\\n", "\n"),
        "private_key_id": "",
    })
    .to_string()
}
