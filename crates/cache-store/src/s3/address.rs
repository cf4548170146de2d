//! Under which address a bucket is reached.

use std::net::IpAddr;
use std::time::Duration;

use config::S3Cache;
use url::Url;

use super::TABLE;
use crate::CacheStoreError;

/// The region of servers that have none.
const DEFAULT_REGION: &str = "us-east-1";
/// AWS's server when it is named without its region.
const GLOBAL: &str = "s3.amazonaws.com";

/// A bucket's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Scheme, host and path; with the bucket if that is part of the host.
    pub(crate) base: String,
    /// The bucket is part of the host.
    pub(crate) virtual_host: bool,
    /// The server without the bucket, unless it is AWS.
    own: Option<String>,
}

// === impl Address ===

impl Address {
    pub(crate) fn new(s3: &S3Cache, bucket: &str, region: &str) -> Result<Self, CacheStoreError> {
        let scheme = if s3.insecure { "http" } else { "https" };
        let server = server(s3);
        let aws = server.is_empty() || server == GLOBAL;
        let server = if aws { aws_server(s3, region) } else { server.to_owned() };
        let url = format!("{scheme}://{server}");
        let parsed = Url::parse(&url).ok().filter(|url| url.has_host() && url.username().is_empty());
        let parsed = parsed.ok_or_else(|| CacheStoreError::Invalid {
            key: "ServerAddress",
            table: TABLE,
            why: "it must be a host, with a port and a path where needed".to_owned(),
        })?;
        let host = parsed.host_str().unwrap_or_default();
        let virtual_host = match s3.path_style {
            Some(path_style) => !path_style,
            None => s3.accelerate && aws || wants_virtual_host(host, bucket, scheme),
        };
        let base = if virtual_host { format!("{scheme}://{bucket}.{server}") } else { url.clone() };
        if Url::parse(&base).is_err() {
            return Err(CacheStoreError::Invalid {
                key: "PathStyle",
                table: TABLE,
                why: "the bucket cannot be a part of this server's name; remove the key, or set it to true"
                    .to_owned(),
            });
        }
        let own = (!aws && !is_aws(host)).then(|| url.trim_end_matches('/').to_owned());
        Ok(Self { base: base.trim_end_matches('/').to_owned(), virtual_host, own })
    }

    /// Where roles are taken on: AWS's service of the region, or the server itself, as MinIO has it.
    pub(crate) fn token_service(&self, region: &str) -> String {
        match (std::env::var("AWS_ENDPOINT_URL_STS"), &self.own) {
            (Ok(given), _) if !given.is_empty() => given,
            (_, Some(own)) => own.clone(),
            (_, None) => format!("https://sts.{region}.{}", domain(region)),
        }
    }
}

/// The region of a bucket: AWS tells everybody; others are asked, too, and have [`DEFAULT_REGION`] if they do not answer.
pub(crate) async fn region(s3: &S3Cache, bucket: &str) -> Result<String, CacheStoreError> {
    let plain = S3Cache { accelerate: false, path_style: Some(true), ..s3.clone() };
    let address = Address::new(&plain, bucket, DEFAULT_REGION)?;
    let failed = |source: reqwest::Error| CacheStoreError::Region {
        bucket: bucket.to_owned(),
        source: source.without_url(),
    };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        // The answer that redirects is the one that tells.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(failed)?;
    let answer = match client.head(format!("{}/{bucket}", address.base)).send().await {
        Ok(answer) => answer,
        Err(error) if address.own.is_none() => return Err(failed(error)),
        Err(_) => return Ok(DEFAULT_REGION.to_owned()),
    };
    let region = answer.headers().get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
    Ok(region.filter(|region| !region.is_empty()).unwrap_or(DEFAULT_REGION).to_owned())
}

/// The configured server without a scheme, which people write all the same.
fn server(s3: &S3Cache) -> &str {
    let server = s3.server_address.as_deref().unwrap_or_default().trim();
    server.split_once("://").map_or(server, |(_, rest)| rest).trim_end_matches('/')
}

fn aws_server(s3: &S3Cache, region: &str) -> String {
    let dual_stack = s3.dual_stack.unwrap_or(true);
    let domain = domain(region);
    match (s3.accelerate, dual_stack) {
        (true, true) => format!("s3-accelerate.dualstack.{domain}"),
        (true, false) => format!("s3-accelerate.{domain}"),
        (false, true) => format!("s3.dualstack.{region}.{domain}"),
        (false, false) => format!("s3.{region}.{domain}"),
    }
}

fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// Servers that are known to serve buckets as hosts; certificates of theirs are not good for buckets with dots.
fn wants_virtual_host(host: &str, bucket: &str, scheme: &str) -> bool {
    let known = is_aws(host) || host == "storage.googleapis.com" || host.ends_with(".aliyuncs.com");
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    known && !literal && !(scheme == "https" && bucket.contains('.'))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn s3(server: &str, change: impl FnOnce(&mut S3Cache)) -> S3Cache {
        let mut s3 = S3Cache { server_address: Some(server.to_owned()), ..S3Cache::default() };
        change(&mut s3);
        s3
    }

    #[test_case(s3("", |_| {}), "https://b.s3.dualstack.eu-west-1.amazonaws.com", true; "AWS")]
    #[test_case(s3("s3.amazonaws.com", |s3| s3.dual_stack = Some(false)), "https://b.s3.eu-west-1.amazonaws.com", true; "AWS by name, without IPv6")]
    #[test_case(s3("", |s3| s3.accelerate = true), "https://b.s3-accelerate.dualstack.amazonaws.com", true; "accelerated")]
    #[test_case(s3("", |s3| s3.path_style = Some(true)), "https://s3.dualstack.eu-west-1.amazonaws.com", false; "AWS with the bucket in the path")]
    #[test_case(s3("s3.us-west-2.amazonaws.com", |_| {}), "https://b.s3.us-west-2.amazonaws.com", true; "AWS by its regional name")]
    #[test_case(s3("minio:9000", |s3| s3.insecure = true), "http://minio:9000", false; "another server")]
    #[test_case(s3("https://minio.test/store/", |_| {}), "https://minio.test/store", false; "a path, and a scheme that is not asked for")]
    #[test_case(s3("minio.test", |s3| s3.path_style = Some(false)), "https://b.minio.test", true; "another server with buckets as hosts")]
    #[test_case(s3("storage.googleapis.com", |_| {}), "https://b.storage.googleapis.com", true; "Google by the protocol of S3")]
    #[test_case(s3("[::1]:9000", |s3| s3.insecure = true), "http://[::1]:9000", false; "an address")]
    fn buckets_are_reached_where_they_are(s3: S3Cache, base: &str, virtual_host: bool) {
        let address = Address::new(&s3, "b", "eu-west-1").unwrap();
        assert_eq!((address.base.as_str(), address.virtual_host), (base, virtual_host));
    }

    #[test]
    fn a_bucket_with_dots_is_no_host_of_a_certificate() {
        assert!(!Address::new(&s3("", |_| {}), "a.b", "eu-west-1").unwrap().virtual_host);
        assert!(Address::new(&s3("", |s3| s3.insecure = true), "a.b", "eu-west-1").unwrap().virtual_host);
    }

    #[test]
    fn china_has_a_domain_of_its_own() {
        let address = Address::new(&s3("", |_| {}), "b", "cn-north-1").unwrap();
        assert_eq!(address.base, "https://b.s3.dualstack.cn-north-1.amazonaws.com.cn");
        assert_eq!(address.token_service("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn a_bucket_is_no_part_of_an_address() {
        let server = s3("127.0.0.1:9000", |s3| s3.path_style = Some(false));
        let error = Address::new(&server, "b", "r").unwrap_err().to_string();
        assert!(error.starts_with("`PathStyle` in [runners.cache.s3] cannot be used"), "{error}");
    }

    #[test_case("user:pass@host"; "with a user")]
    #[test_case("a b"; "no host")]
    fn a_server_that_is_none_is_named_without_its_text(server: &str) {
        let error = Address::new(&s3(server, |_| {}), "b", "r").unwrap_err().to_string();
        assert!(
            error.starts_with("`ServerAddress` in [runners.cache.s3]") && !error.contains(server),
            "{error}"
        );
    }
}
