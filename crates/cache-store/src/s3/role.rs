//! `RoleARN`: addresses are signed by a role that the manager takes on.
//!
//! GitLab Runner hands the role's credentials to the job. Here they stay with the manager, which signs with them: a job gets
//! addresses of its own objects, and no credential.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use config::S3Cache;
use object_store::CredentialProvider;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::signer::{HeaderValue, Method};
use tokio::sync::{Mutex, Semaphore};

use super::TABLE;
use crate::{CacheStoreError, RoleError};

/// Lifetime of a session, in seconds: the longest that roles which are taken on by roles may have.
const SESSION: u32 = 3600;
/// What is signed ends with the session, so a session that ends soon is not used.
const LEFT: TimeDelta = TimeDelta::minutes(30);
/// A cluster may ask for as many sessions as it has jobs.
const WAITING: usize = Semaphore::MAX_PERMITS;

/// Credentials of a role.
pub(crate) struct AssumedRole {
    base: AwsCredentialProvider,
    http: reqwest::Client,
    service: String,
    region: String,
    role: String,
    /// Sessions are used again.
    caching: bool,
    room: Semaphore,
    session: Mutex<Option<(Arc<AwsCredential>, DateTime<Utc>)>>,
}

// === impl AssumedRole ===

impl AssumedRole {
    pub(crate) fn new(
        s3: &S3Cache,
        role: &str,
        region: &str,
        service: String,
        base: AwsCredentialProvider,
    ) -> Result<Self, CacheStoreError> {
        if !role.starts_with("arn:") {
            return Err(CacheStoreError::Invalid {
                key: "RoleARN",
                table: TABLE,
                why: "it must begin with `arn:`".to_owned(),
            });
        }
        let failed =
            |source| CacheStoreError::Role { role: role.to_owned(), source: RoleError::Call(source) };
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().map_err(failed)?;
        let room = s3.assume_role_max_concurrency().map_or(WAITING, |most| (most as usize).max(1));
        Ok(Self {
            base,
            http,
            service: format!("{}/", service.trim_end_matches('/')),
            region: region.to_owned(),
            role: role.to_owned(),
            caching: !s3.disable_assume_role_credentials_caching,
            room: Semaphore::new(room),
            session: Mutex::default(),
        })
    }

    async fn assume(&self) -> Result<(Arc<AwsCredential>, DateTime<Utc>), RoleError> {
        let unsigned = |source: object_store::Error| RoleError::Sign(Box::new(source));
        let own = self.base.get_credential().await.map_err(unsigned)?;
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRole")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &self.role)
            .append_pair("RoleSessionName", "drover-cache")
            .append_pair("DurationSeconds", &SESSION.to_string())
            .finish();
        let mut request = HttpRequest::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.service.parse().map_err(|_| RoleError::Unreadable)?;
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert("content-type", form);
        AwsAuthorizer::new(&own, "sts", &self.region).try_authorize(&mut request, None).map_err(unsigned)?;
        let sent = self.http.post(&self.service).headers(request.headers().clone()).body(body).send().await;
        let call = |error: reqwest::Error| RoleError::Call(error.without_url());
        let answer = sent.map_err(call)?;
        let status = answer.status();
        let text = answer.text().await.map_err(call)?;
        if !status.is_success() {
            let code = inside(&text, "Code").unwrap_or("no reason is given").to_owned();
            return Err(RoleError::Refused { status: status.as_u16(), code });
        }
        session(&text).ok_or(RoleError::Unreadable)
    }
}

#[async_trait]
impl CredentialProvider for AssumedRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let failed = |source: RoleError| object_store::Error::Generic {
            store: "S3",
            source: Box::new(CacheStoreError::Role { role: self.role.clone(), source }),
        };
        if !self.caching {
            // The semaphore is never closed.
            let _room = self.room.acquire().await.ok();
            return Ok(self.assume().await.map_err(failed)?.0);
        }
        // Whoever comes while a session is asked for waits for that one.
        let mut session = self.session.lock().await;
        if let Some((credential, end)) = &*session
            && *end - Utc::now() > LEFT
        {
            return Ok(Arc::clone(credential));
        }
        let (credential, end) = self.assume().await.map_err(failed)?;
        *session = Some((Arc::clone(&credential), end));
        Ok(credential)
    }
}

impl std::fmt::Debug for AssumedRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AssumedRole").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Reads the answer of `AssumeRole`.
fn session(text: &str) -> Option<(Arc<AwsCredential>, DateTime<Utc>)> {
    let credential = AwsCredential {
        key_id: inside(text, "AccessKeyId")?.to_owned(),
        secret_key: inside(text, "SecretAccessKey")?.to_owned(),
        token: Some(inside(text, "SessionToken")?.to_owned()),
    };
    let end = DateTime::parse_from_rfc3339(inside(text, "Expiration")?).ok()?;
    Some((Arc::new(credential), end.with_timezone(&Utc)))
}

/// The text of the first element of this name; none of those that matter here holds an escape.
fn inside<'a>(xml: &'a str, tag: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{tag}>"))? + tag.len() + 2;
    let end = start + xml[start..].find(&format!("</{tag}>"))?;
    Some(xml[start..end].trim()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_and_never_shown() {
        let text = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>\
            <SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>t0k3n</SessionToken>\
            <Expiration>2026-11-21T15:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";
        let (credential, end) = session(text).unwrap();
        assert_eq!((credential.key_id.as_str(), credential.secret_key.as_str()), ("ASIA1", "s3cr3t"));
        assert_eq!(end.to_rfc3339(), "2026-11-21T15:00:00+00:00");
        let shown = format!("{credential:?}");
        assert!(!shown.contains("s3cr3t") && !shown.contains("t0k3n"), "{shown}");
        assert!(session("<Credentials></Credentials>").is_none());
    }
}
