//! Amazon S3 and what speaks its protocol.

mod address;
mod role;

use std::sync::Arc;
use std::time::Duration;

use config::{S3AuthType, S3Cache, S3Encryption};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredentialProvider};
use object_store::signer::{HeaderMap, HeaderName, HeaderValue, Method, SignedUrlOptions, Signer as _};
use secrecy::{ExposeSecret as _, SecretString};

use crate::object::header_text;
use crate::{CacheStoreError, Signed, Upload, missing, path, required, retry};
use address::Address;
use role::AssumedRole;

pub(crate) const TABLE: &str = "[runners.cache.s3]";

/// Variables by which a machine says which credentials it has; no others of the manager's environment are looked at.
const CREDENTIALS: [&str; 11] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// A bucket.
#[derive(Debug)]
pub(crate) struct S3 {
    store: AmazonS3,
    /// Headers that every upload must have.
    encryption: Vec<(&'static str, String)>,
}

// === impl S3 ===

impl S3 {
    pub(crate) async fn new(s3: &S3Cache) -> Result<Self, CacheStoreError> {
        let bucket = required(s3.bucket_name.as_deref(), "BucketName", TABLE)?;
        let encryption = encryption(s3)?;
        let region = match s3.bucket_location.as_deref().filter(|region| !region.is_empty()) {
            Some(region) => region.to_owned(),
            None => address::region(s3, bucket).await?,
        };
        let address = Address::new(s3, bucket, &region)?;
        let keys = keys(s3)?;
        let build = |credentials: Option<AwsCredentialProvider>| {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_region(&region)
                .with_endpoint(&address.base)
                .with_virtual_hosted_style_request(address.virtual_host)
                .with_client_options(ClientOptions::new().with_allow_http(true))
                .with_retry(retry());
            match (&keys, credentials) {
                (_, Some(credentials)) => builder = builder.with_credentials(credentials),
                (Some((id, secret)), None) => {
                    builder = builder
                        .with_access_key_id(id.expose_secret())
                        .with_secret_access_key(secret.expose_secret());
                    if let Some(token) = s3.session_token.as_ref().filter(|token| is_given(token)) {
                        builder = builder.with_token(token.expose_secret());
                    }
                }
                (None, None) => {
                    for name in CREDENTIALS {
                        if let (Ok(key), Ok(value)) = (name.to_ascii_lowercase().parse(), std::env::var(name))
                        {
                            builder = builder.with_config(key, value);
                        }
                    }
                }
            }
            builder.build().map_err(CacheStoreError::sign("s3"))
        };
        let mut store = build(None)?;
        if let Some(role) = s3.role_arn().filter(|role| !role.is_empty()) {
            let base = Arc::clone(store.credentials());
            let assumed = AssumedRole::new(s3, role, &region, address.token_service(&region), base)?;
            store = build(Some(Arc::new(assumed)))?;
        }
        Ok(Self { store, encryption })
    }

    pub(crate) async fn sign(
        &self,
        method: Method,
        object: &str,
        upload: Option<Upload<'_>>,
        lifetime: Duration,
    ) -> Result<Signed, CacheStoreError> {
        let mut headers = Vec::new();
        if let Some(upload) = upload {
            headers.push(("x-amz-meta-cachekey".to_owned(), header_text(upload.key)));
            headers.extend(self.encryption.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        let mut signed = HeaderMap::new();
        for (name, value) in &headers {
            let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            let (name, value) = header.ok_or_else(|| CacheStoreError::Invalid {
                key: "ServerSideEncryptionKeyID",
                table: TABLE,
                why: "it cannot be sent in a header".to_owned(),
            })?;
            signed.insert(name, value);
        }
        let options = signed
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .fold(SignedUrlOptions::default(), |options, (name, value)| {
                options.with_signed_header(name, value)
            });
        let url = self.store.signed_url_opts(method, &path(object)?, lifetime, &options).await;
        Ok(Signed { url: url.map_err(CacheStoreError::sign("s3"))?.into(), headers })
    }
}

/// The configured keys, or none if those of the machine are to be used.
fn keys(s3: &S3Cache) -> Result<Option<(&SecretString, &SecretString)>, CacheStoreError> {
    match s3.auth_type() {
        Some(S3AuthType::Iam) => Ok(None),
        Some(S3AuthType::AccessKey) => {
            let given = |key: &'static str, value: &'_ Option<SecretString>| {
                value.as_ref().filter(|value| is_given(value)).map(drop).ok_or_else(|| missing(key, TABLE))
            };
            given("AccessKey", &s3.access_key)?;
            given("SecretKey", &s3.secret_key)?;
            Ok(s3.access_key.as_ref().zip(s3.secret_key.as_ref()))
        }
        None => Err(CacheStoreError::Invalid {
            key: "AuthenticationType",
            table: TABLE,
            why: "it must be access-key or iam".to_owned(),
        }),
    }
}

fn is_given(secret: &SecretString) -> bool {
    !secret.expose_secret().is_empty()
}

/// Headers that ask for encryption, which S3 wants to be signed.
fn encryption(s3: &S3Cache) -> Result<Vec<(&'static str, String)>, CacheStoreError> {
    const HEADER: &str = "x-amz-server-side-encryption";
    // Objects that should be encrypted are not stored without.
    let kind = s3.encryption().map_err(|word| CacheStoreError::Invalid {
        key: "ServerSideEncryption",
        table: TABLE,
        why: format!("`{word}` is none of S3, KMS and DSSE-KMS"),
    })?;
    let word = match kind {
        None => return Ok(Vec::new()),
        Some(S3Encryption::Aes256) => return Ok(vec![(HEADER, "AES256".to_owned())]),
        Some(S3Encryption::Kms) => "aws:kms",
        Some(S3Encryption::DsseKms) => "aws:kms:dsse",
    };
    let mut headers = vec![(HEADER, word.to_owned())];
    // Without one the key of the account is used.
    if let Some(key) = s3.server_side_encryption_key_id.as_ref().filter(|key| !key.is_empty()) {
        headers.push(("x-amz-server-side-encryption-aws-kms-key-id", key.clone()));
    }
    Ok(headers)
}
