//! `[runners.cache]` and its adapters.

use secrecy::SecretString;

use super::global::count;
use crate::schema::section;

section! {
    /// Cache shared between jobs, in object storage. Without a `Type` caches stay where the job ran.
    pub struct Cache = "[runners.cache]" {
        /// Which storage: `s3`, `gcs` or `azure`, in lower case.
        kind as "Type": Option<String>;
        /// Prefix of the objects.
        path as "Path": Option<String>;
        /// Share the cache between runners.
        shared as "Shared": bool, default "false";
        /// Bigger archives stay local; 0 means no limit.
        max_uploaded_archive_size as "MaxUploadedArchiveSize": Option<i64>, default "0", unit "bytes", since "15.9";
        /// Amazon S3 and what speaks its protocol.
        s3: Option<S3Cache>;
        /// Google Cloud Storage.
        gcs: Option<GcsCache>;
        /// Azure Blob Storage.
        azure: Option<AzureCache>;
    }
}

section! {
    /// Amazon S3 and what speaks its protocol.
    pub struct S3Cache = "[runners.cache.s3]" {
        /// `host` or `host:port`; empty means AWS.
        server_address as "ServerAddress": Option<String>;
        /// Access key.
        access_key as "AccessKey": Option<SecretString>;
        /// Secret key.
        secret_key as "SecretKey": Option<SecretString>;
        /// Session token.
        session_token as "SessionToken": Option<SecretString>;
        /// `access-key` or `iam`, in any case.
        authentication_type as "AuthenticationType": Option<String>, default "`access-key` when address and both keys are set, else `iam`";
        /// Bucket.
        bucket_name as "BucketName": Option<String>;
        /// Region.
        bucket_location as "BucketLocation": Option<String>, default "asked of the bucket";
        /// Plain http.
        insecure as "Insecure": bool, default "false";
        /// Bucket in the path and not in the host name.
        path_style as "PathStyle": Option<bool>, default "by endpoint";
        /// The accelerate endpoint.
        accelerate as "Accelerate": bool, default "false";
        /// IPv6 endpoints.
        dual_stack as "DualStack": Option<bool>, default "true on AWS";
        /// `S3` (or `AES256`), `KMS` or `DSSE-KMS`.
        server_side_encryption as "ServerSideEncryption": Option<String>;
        /// Key for `KMS` and `DSSE-KMS`.
        server_side_encryption_key_id as "ServerSideEncryptionKeyID": Option<String>;
        /// Role that is taken on for each object; uploads in parts.
        role_arn as "RoleARN": Option<String>;
        /// Deprecated: write `RoleARN`.
        upload_role_arn as "UploadRoleARN": Option<String>;
        /// Requests to take on the role at the same time; -1 means no limit.
        assume_role_max_concurrency as "AssumeRoleMaxConcurrency": Option<i64>, default "5";
        /// Ask for new credentials every time.
        disable_assume_role_credentials_caching as "DisableAssumeRoleCredentialsCaching": bool, default "false";
    }
}

section! {
    /// Google Cloud Storage.
    pub struct GcsCache = "[runners.cache.gcs]" {
        /// File with credentials; wins over the two below. Without any, the machine's own are used.
        credentials_file as "CredentialsFile": Option<String>;
        /// Service account.
        access_id as "AccessID": Option<String>;
        /// Key of the service account.
        private_key as "PrivateKey": Option<SecretString>;
        /// Bucket.
        bucket_name as "BucketName": Option<String>;
        /// Domain of the cloud.
        universe_domain as "UniverseDomain": Option<String>;
    }
}

section! {
    /// Azure Blob Storage.
    pub struct AzureCache = "[runners.cache.azure]" {
        /// Storage account.
        account_name as "AccountName": Option<String>;
        /// Key of the account. Without it, the machine's own identity is used.
        account_key as "AccountKey": Option<SecretString>;
        /// Container.
        container_name as "ContainerName": Option<String>;
        /// Domain of the storage.
        storage_domain as "StorageDomain": Option<String>, default "blob.core.windows.net";
    }
}

/// Which storage holds the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// How requests to S3 are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum S3AuthType {
    /// With the configured keys.
    AccessKey,
    /// With what the machine has.
    Iam,
}

/// Encryption of objects in S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum S3Encryption {
    /// With keys of S3.
    Aes256,
    /// With a key of the key management service.
    Kms,
    /// The same, twice.
    DsseKms,
}

// === impl Cache ===

impl Cache {
    /// The storage, if the file names one that exists. GitLab Runner compares exactly.
    #[must_use]
    pub fn cache_type(&self) -> Option<CacheType> {
        match self.kind.as_deref()? {
            "s3" => Some(CacheType::S3),
            "gcs" => Some(CacheType::Gcs),
            "azure" => Some(CacheType::Azure),
            _ => None,
        }
    }

    /// Archives above this many bytes stay local; `None` means no limit.
    #[must_use]
    pub fn max_uploaded_archive_size(&self) -> Option<u64> {
        self.max_uploaded_archive_size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0)
    }
}

// === impl S3Cache ===

impl S3Cache {
    /// How requests are signed; `None` if the file names a way that does not exist.
    #[must_use]
    pub fn auth_type(&self) -> Option<S3AuthType> {
        match self.authentication_type.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("access-key") => Some(S3AuthType::AccessKey),
            Some("iam") => Some(S3AuthType::Iam),
            Some(_) => None,
            None => {
                let all =
                    self.server_address.is_some() && self.access_key.is_some() && self.secret_key.is_some();
                Some(if all { S3AuthType::AccessKey } else { S3AuthType::Iam })
            }
        }
    }

    /// Encryption of objects: `Ok(None)` when none is asked for.
    ///
    /// # Errors
    /// The unknown word.
    pub fn encryption(&self) -> Result<Option<S3Encryption>, &str> {
        let Some(word) = self.server_side_encryption.as_deref() else { return Ok(None) };
        match word.to_ascii_uppercase().as_str() {
            "S3" | "AES256" => Ok(Some(S3Encryption::Aes256)),
            "KMS" | "AWS:KMS" => Ok(Some(S3Encryption::Kms)),
            "DSSE-KMS" | "AWS:KMS:DSSE" => Ok(Some(S3Encryption::DsseKms)),
            _ => Err(word),
        }
    }

    /// The role that is taken on for each object.
    #[must_use]
    pub fn role_arn(&self) -> Option<&str> {
        self.role_arn.as_deref().or(self.upload_role_arn.as_deref())
    }

    /// Requests to take on the role at the same time; `None` means no limit.
    #[must_use]
    pub fn assume_role_max_concurrency(&self) -> Option<u32> {
        match self.assume_role_max_concurrency {
            Some(limit) if limit < 0 => None,
            limit => Some(count(limit).unwrap_or(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(None, Some(S3AuthType::Iam); "nothing set")]
    #[test_case(Some("IAM"), Some(S3AuthType::Iam); "any case")]
    #[test_case(Some("access-key"), Some(S3AuthType::AccessKey); "keys")]
    #[test_case(Some("magic"), None; "unknown")]
    fn s3_authentication_is_the_named_one(word: Option<&str>, expected: Option<S3AuthType>) {
        let cache = S3Cache { authentication_type: word.map(Into::into), ..S3Cache::default() };
        assert_eq!(cache.auth_type(), expected);
    }

    #[test]
    fn s3_keys_are_used_when_address_and_both_keys_are_set() {
        let cache = S3Cache {
            server_address: Some("minio:9000".into()),
            access_key: Some("a".into()),
            secret_key: Some("b".into()),
            ..S3Cache::default()
        };
        assert_eq!(cache.auth_type(), Some(S3AuthType::AccessKey));
        let without = S3Cache { server_address: None, ..cache };
        assert_eq!(without.auth_type(), Some(S3AuthType::Iam));
    }
}
