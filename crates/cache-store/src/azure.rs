//! Azure Blob Storage.
//!
//! GitLab Runner hands a job a signature for its whole object and a helper that speaks Azure's protocol. Here the job gets
//! addresses, as with the other storages: a service SAS for one blob.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use config::AzureCache;
use hmac::{Hmac, KeyInit as _, Mac as _};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::signer::Method;
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::Sha256;

use crate::object::encoded;
use crate::{CacheStoreError, LibrarySigner, Signed, path, required, retry};

pub(crate) const TABLE: &str = "[runners.cache.azure]";
const DOMAIN: &str = "blob.core.windows.net";
/// The version whose string to sign is written below.
const VERSION: &str = "2020-12-06";
/// Clocks differ.
const BEFORE: TimeDelta = TimeDelta::hours(1);

/// A container.
pub(crate) struct Azure {
    account: String,
    container: String,
    domain: String,
    signing: Signing,
}

enum Signing {
    /// With the key of the account.
    Key(SecretBox<[u8]>),
    /// With a key that the machine's identity is given.
    Identity(LibrarySigner),
}

// === impl Azure ===

impl Azure {
    pub(crate) fn new(azure: &AzureCache) -> Result<Self, CacheStoreError> {
        let account = required(azure.account_name.as_deref(), "AccountName", TABLE)?.to_owned();
        let container = required(azure.container_name.as_deref(), "ContainerName", TABLE)?.to_owned();
        let domain = azure.storage_domain.as_deref().filter(|domain| !domain.is_empty()).unwrap_or(DOMAIN);
        let domain = domain.trim_matches('/').to_owned();
        let signing = match azure.account_key.as_ref().filter(|key| !key.expose_secret().is_empty()) {
            Some(key) => {
                let key = BASE64_STANDARD.decode(key.expose_secret().trim());
                let key = key.map_err(|_| CacheStoreError::Invalid {
                    key: "AccountKey",
                    table: TABLE,
                    why: "it must be base64".to_owned(),
                })?;
                Signing::Key(SecretBox::new(key.into_boxed_slice()))
            }
            None => Signing::Identity(Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_account(&account)
                    .with_container_name(&container)
                    .with_endpoint(format!("https://{account}.{domain}"))
                    .with_retry(retry())
                    .build()
                    .map_err(CacheStoreError::sign("azure"))?,
            )),
        };
        Ok(Self { account, container, domain, signing })
    }

    pub(crate) async fn sign(
        &self,
        method: &Method,
        object: &str,
        lifetime: Duration,
    ) -> Result<Signed, CacheStoreError> {
        // Azure stores nothing that is not told its kind.
        let headers = match *method {
            Method::PUT => vec![("x-ms-blob-type".to_owned(), "BlockBlob".to_owned())],
            _ => Vec::new(),
        };
        let url = match &self.signing {
            Signing::Key(key) => self.service_sas(key.expose_secret(), method, object, Utc::now(), lifetime),
            Signing::Identity(signer) => {
                // The library signs the name as it stands in the URL, Azure checks it as it is.
                if encoded(object) != object {
                    return Err(CacheStoreError::Key(object.to_owned()));
                }
                // Who may read may ask; the library has no word for the latter.
                let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
                let url = signer.signed_url(method, &path(object)?, lifetime).await;
                url.map_err(CacheStoreError::sign("azure"))?.into()
            }
        };
        Ok(Signed { url, headers })
    }

    /// A service SAS for one blob, over https only.
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>
    fn service_sas(
        &self,
        key: &[u8],
        method: &Method,
        object: &str,
        now: DateTime<Utc>,
        lifetime: Duration,
    ) -> String {
        let permissions = if *method == Method::PUT { "cw" } else { "r" };
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let (start, end) = (time(now - BEFORE), time(now + lifetime));
        let Self { account, container, domain, .. } = self;
        let to_sign = [
            permissions,
            &start,
            &end,
            &format!("/blob/{account}/{container}/{object}"),
            "", // identifier of a policy
            "", // addresses
            "https",
            VERSION,
            "b", // a blob
            "",  // snapshot
            "",  // encryption scope
            "",
            "",
            "",
            "",
            "", // headers of the answer
        ]
        .join("\n");
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("any length is good"));
        mac.update(to_sign.as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("sv", VERSION)
            .append_pair("spr", "https")
            .append_pair("st", &start)
            .append_pair("se", &end)
            .append_pair("sr", "b")
            .append_pair("sp", permissions)
            .append_pair("sig", &signature)
            .finish();
        format!("https://{account}.{domain}/{container}/{}?{query}", encoded(object))
    }
}

impl std::fmt::Debug for Azure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Azure")
            .field("account", &self.account)
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}
