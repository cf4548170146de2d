//! Asking the metadata service of an instance, from that instance.
//!
//! AWS tells a spot instance of its interruption two minutes ahead, and tells EC2's calls later. So instances with jobs are asked
//! themselves, every few seconds, over the connection that is open to them anyway. It is the service's version 2: a token
//! comes first, and is renewed before it ends.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use fleeting::{Doom, InstanceId, Reach, Watch, WatchError};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;

use crate::announced::{self, Unreadable};
use crate::inquiry::{Answer, Inquiry};

/// Where every instance of EC2 finds its own service.
const ADDRESS: &str = "http://169.254.169.254";
/// Stands for the name of the instance in a configured address.
const PLACEHOLDER: &str = "{instance}";
/// Between two looks: AWS recommends to look every 5 seconds.
const INTERVAL: Duration = Duration::from_secs(5);
/// Scheduled events are announced days ahead, and listed by EC2 as well.
const EVENTS_INTERVAL: Duration = Duration::from_secs(60);
/// Life of a token, the longest there is, and when it is renewed.
const TOKEN_SECONDS: &str = "21600";
const TOKEN_RENEWAL: Duration = Duration::from_secs(18_000);
/// Longest token.
const LONGEST_TOKEN: usize = 1024;

/// Where the metadata services of instances are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MetadataEndpoint {
    /// At the address that EC2 has for all of them.
    #[default]
    Ec2,
    /// At this `http` URL as each instance sees it; `{instance}` stands for the name of the instance.
    Url(String),
    /// Nowhere: nothing is asked.
    None,
}

/// Asks one instance.
pub(crate) struct MetadataWatch {
    host: String,
    port: u16,
    authority: String,
    /// What comes before `/latest/`.
    prefix: String,
    token: Option<(String, Instant)>,
    /// A connection that answered before.
    kept: Option<Inquiry>,
    /// Scheduled events that were told last, and when they are asked for again.
    events: Option<Doom>,
    events_due: Option<Instant>,
}

/// One look: the connection is its own until all was answered, so that one that is dropped half-way leaves nothing behind.
struct Session<'a> {
    watch: &'a mut MetadataWatch,
    reach: &'a dyn Reach,
    line: Option<Inquiry>,
}

// === impl MetadataEndpoint ===

impl MetadataEndpoint {
    /// Reads the configured value: a URL, or `none`.
    ///
    /// # Errors
    /// What is wrong with it, and what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        target(text, &InstanceId::from("i-0"))
            .map(|_| Self::Url(text.to_owned()))
            .ok_or_else(|| format!("`{text}` must be an http:// URL without a query, or `none`"))
    }

    /// What asks this instance; `None` if nothing is to be asked.
    pub(crate) fn watch(&self, id: &InstanceId) -> Option<MetadataWatch> {
        let text = match self {
            Self::Ec2 => ADDRESS,
            Self::Url(text) => text,
            Self::None => return None,
        };
        let (host, port, authority, prefix) = target(text, id)?;
        Some(MetadataWatch {
            host,
            port,
            authority,
            prefix,
            token: None,
            kept: None,
            events: None,
            events_due: None,
        })
    }
}

// === impl MetadataWatch ===

#[async_trait]
impl Watch for MetadataWatch {
    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn look(&mut self, reach: &dyn Reach) -> Result<Option<Doom>, WatchError> {
        let line = self.kept.take();
        let mut session = Session { watch: self, reach, line };
        let doom = session.look().await;
        let Session { line, .. } = session;
        if doom.is_ok() {
            self.kept = line;
        }
        doom
    }
}

// === impl Session ===

impl Session<'_> {
    async fn look(&mut self) -> Result<Option<Doom>, WatchError> {
        let taken = self.document("spot/instance-action").await?;
        let taken = taken.map(|body| announced::instance_action(&body)).transpose().map_err(unreadable)?;
        if taken.is_some() {
            return Ok(taken);
        }
        let now = Instant::now();
        if self.watch.events_due.is_none_or(|due| due <= now) {
            let body = self.document("events/maintenance/scheduled").await?;
            let events = body.map(|body| announced::scheduled(&body)).transpose().map_err(unreadable)?;
            self.watch.events = events.flatten();
            self.watch.events_due = Some(now + EVENTS_INTERVAL);
        }
        if self.watch.events.is_some() {
            return Ok(self.watch.events.clone());
        }
        let advice = self.document("events/recommendations/rebalance").await?;
        advice.map(|body| announced::rebalance(&body)).transpose().map_err(unreadable)
    }

    /// A document below `meta-data`; none if there is none now.
    async fn document(&mut self, path: &str) -> Result<Option<Bytes>, WatchError> {
        let path = format!("{}/latest/meta-data/{path}", self.watch.prefix);
        // A token may be forgotten before its time, as when the instance was stopped.
        for _ in 0..2 {
            let token = self.token().await?;
            let answer = self.ask(Method::GET, &path, ("x-aws-ec2-metadata-token", &token)).await?;
            match answer.status {
                StatusCode::OK => return Ok(Some(answer.body)),
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::UNAUTHORIZED => self.watch.token = None,
                status => return Err(refused(status)),
            }
        }
        Err(refused(StatusCode::UNAUTHORIZED))
    }

    async fn token(&mut self) -> Result<String, WatchError> {
        let now = Instant::now();
        if let Some((token, _)) = self.watch.token.as_ref().filter(|(_, renewal)| now < *renewal) {
            return Ok(token.clone());
        }
        let path = format!("{}/latest/api/token", self.watch.prefix);
        let life = ("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
        let answer = self.ask(Method::PUT, &path, life).await?;
        match answer.status {
            StatusCode::OK => {}
            // Switched off, or something else that listens there.
            status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
                return Err(WatchError::Unavailable(format!("the metadata service answers {status}")));
            }
            status => return Err(refused(status)),
        }
        let token = std::str::from_utf8(&answer.body).unwrap_or_default();
        if token.is_empty()
            || token.len() > LONGEST_TOKEN
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(WatchError::Failed("the metadata service gave no token".to_owned()));
        }
        self.watch.token = Some((token.to_owned(), now + TOKEN_RENEWAL));
        Ok(token.to_owned())
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        header: (&'static str, &str),
    ) -> Result<Answer, WatchError> {
        let request = || {
            Request::builder()
                .method(method.clone())
                .uri(path)
                .header("host", &self.watch.authority)
                .header(header.0, header.1)
                .body(Empty::new())
                .map_err(|error| WatchError::Unavailable(error.to_string()))
        };
        // One that was kept may have been closed since.
        if let Some(mut kept) = self.line.take()
            && let Ok(answer) = kept.ask(request()?).await
        {
            self.line = Some(kept);
            return Ok(answer);
        }
        let failed = |error: crate::inquiry::Unanswered| WatchError::Failed(error.to_string());
        let stream = self.reach.connect(&self.watch.host, self.watch.port).await?;
        let mut fresh = Inquiry::over(stream).await.map_err(failed)?;
        let answer = fresh.ask(request()?).await.map_err(failed)?;
        self.line = Some(fresh);
        Ok(answer)
    }
}

/// Host, port, authority and path of a URL, with the instance's name in it.
fn target(text: &str, id: &InstanceId) -> Option<(String, u16, String, String)> {
    let uri: Uri = text.replace(PLACEHOLDER, id.as_str()).parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http") && uri.query().is_none())?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let path = uri.path().trim_end_matches('/').to_owned();
    Some((host, authority.port_u16().unwrap_or(80), authority.to_string(), path))
}

fn unreadable(error: Unreadable) -> WatchError {
    WatchError::Failed(error.to_string())
}

fn refused(status: StatusCode) -> WatchError {
    WatchError::Failed(format!("the metadata service answers {status}"))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("http://169.254.169.254" => Some(("169.254.169.254".into(), 80, "169.254.169.254".into(), String::new())); "of EC2")]
    #[test_case("http://[fd00:ec2::254]/" => Some(("fd00:ec2::254".into(), 80, "[fd00:ec2::254]".into(), String::new())); "its other address")]
    #[test_case("http://127.0.0.1:8080/{instance}" => Some(("127.0.0.1".into(), 8080, "127.0.0.1:8080".into(), "/i-1".into())); "one for all")]
    #[test_case("https://169.254.169.254" => None; "with TLS")]
    #[test_case("169.254.169.254" => None; "no URL")]
    #[test_case("http://a@b" => None; "with a login")]
    #[test_case("http://a?b" => None; "with a query")]
    fn targets(text: &str) -> Option<(String, u16, String, String)> {
        target(text, &InstanceId::from("i-1"))
    }
}
