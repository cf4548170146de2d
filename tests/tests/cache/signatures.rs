//! moto does not look at signatures, so they are computed a second time, by AWS's own client and by the published rules of
//! Google and Azure.

use std::time::Duration;

use cache_store::CacheStore;
use config::{AzureCache, Cache, GcsCache, S3Cache};
use drover_tests::{Moto, python};
use job::{CacheKey, RemoteCache};

const HOUR: Duration = Duration::from_secs(3600);

fn key(name: &str) -> CacheKey {
    CacheKey { readable: name.to_owned(), name: name.to_owned(), alternate: "0".repeat(64) }
}

/// What is signed for one key, before and after the steps.
async fn signed(cache: &Cache, name: &str) -> (RemoteCache, RemoteCache) {
    let store = CacheStore::new(cache, "t1").unwrap();
    let restore = store.restore(7, &key(name), HOUR).await.unwrap();
    (restore, store.save(7, &key(name), HOUR).await.unwrap())
}

fn header<'a>(remote: &'a RemoteCache, name: &str) -> Option<&'a str> {
    remote.put_headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Signs with boto3 for the moment and the keys of a URL, and prints its signature.
const BOTO: &str = r#"
import sys, datetime, urllib.parse as u
import botocore.auth as auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
method, url, access, secret, token = sys.argv[1:6]
headers = dict(pair.split("=", 1) for pair in sys.argv[6:])
parts = u.urlsplit(url)
query = dict(u.parse_qsl(parts.query))
now = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
auth.get_current_datetime = lambda *args, **kwargs: now
region = query["X-Amz-Credential"].split("/")[2]
signer = auth.S3SigV4QueryAuth(Credentials(access, secret, token or None), "s3", region, expires=int(query["X-Amz-Expires"]))
request = AWSRequest(method=method, url=u.urlunsplit(parts._replace(query="")), headers=headers)
signer.add_auth(request)
theirs = dict(u.parse_qsl(u.urlsplit(request.url).query))
assert theirs.keys() == query.keys(), (theirs.keys(), query.keys())
for name in query:
    assert theirs[name] == query[name], (name, theirs[name], query[name])
print("same")
"#;

fn s3(change: impl FnOnce(&mut S3Cache)) -> Cache {
    let mut s3 = S3Cache {
        authentication_type: Some("access-key".into()),
        access_key: Some("AKIAIOSFODNN7EXAMPLE".to_owned().into()),
        secret_key: Some("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into()),
        bucket_name: Some("caches".into()),
        bucket_location: Some("eu-west-1".into()),
        ..S3Cache::default()
    };
    change(&mut s3);
    Cache { kind: Some("s3".into()), path: Some("ci".into()), s3: Some(s3), ..Cache::default() }
}

fn same_as_boto(method: &str, url: &str, token: &str, headers: &[(String, String)]) {
    let (access, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments = vec![method, url, access, secret, token];
    arguments.extend(headers.iter().map(String::as_str));
    assert_eq!(python(BOTO, &arguments), "same\n");
}

#[tokio::test]
async fn s3_addresses_have_the_signature_that_amazon_would_make() {
    let cache = s3(|_| {});
    let (restore, save) = signed(&cache, "main/deps-1").await;
    let prefix = "https://caches.s3.dualstack.eu-west-1.amazonaws.com/ci/runner/t1/project/7/main/deps-1?";
    for url in [&restore.get_url, &restore.head_url, &save.put_url, &save.check_url] {
        assert!(url.starts_with(prefix), "{url}");
        assert!(url.contains("X-Amz-Expires=3600"), "{url}");
    }
    let other = format!("/project/7/00/{}?", "0".repeat(64));
    assert!(restore.alternate_get_url.contains(&other), "{}", restore.alternate_get_url);
    same_as_boto("GET", &restore.get_url, "", &[]);
    same_as_boto("HEAD", &restore.head_url, "", &[]);
    assert_eq!(header(&save, "x-amz-meta-cachekey"), Some("main/deps-1"));
    same_as_boto("PUT", &save.put_url, "", &save.put_headers);
}

#[tokio::test]
async fn s3_signatures_hold_with_encryption_a_session_and_odd_keys() {
    let cache = s3(|s3| {
        s3.session_token = Some("t0k3n/+=".to_owned().into());
        s3.server_address = Some("minio.test:9000".into());
        s3.insecure = true;
        s3.server_side_encryption = Some("KMS".into());
        s3.server_side_encryption_key_id = Some("arn:aws:kms:eu-west-1:1:key/2".into());
    });
    let (restore, save) = signed(&cache, "a b/ü+c&d=%41~").await;
    assert!(
        restore.get_url.starts_with(
            "http://minio.test:9000/caches/ci/runner/t1/project/7/a%20b/%C3%BC%2Bc%26d%3D%2541~?"
        ),
        "{}",
        restore.get_url
    );
    same_as_boto("GET", &restore.get_url, "t0k3n/+=", &[]);
    assert_eq!(header(&save, "x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(
        header(&save, "x-amz-server-side-encryption-aws-kms-key-id"),
        Some("arn:aws:kms:eu-west-1:1:key/2")
    );
    same_as_boto("PUT", &save.put_url, "t0k3n/+=", &save.put_headers);
}

#[tokio::test]
async fn a_role_is_taken_on_by_the_manager_and_signs() {
    let moto = Moto::start().await;
    let cache = s3(|s3| {
        s3.server_address = Some(moto.address());
        s3.insecure = true;
        s3.role_arn = Some("arn:aws:iam::123456789012:role/cache".into());
    });
    let store = CacheStore::new(&cache, "t1").unwrap();
    for name in ["one", "two"] {
        let remote = store.restore(7, &key(name), HOUR).await.unwrap();
        // A session's own key, and its token.
        assert!(remote.get_url.contains("X-Amz-Credential=ASIA"), "{}", remote.get_url);
        assert!(remote.get_url.contains("X-Amz-Security-Token="), "{}", remote.get_url);
        assert!(!remote.get_url.contains("AKIAIOSFODNN7EXAMPLE"), "{}", remote.get_url);
    }
    // One session serves all.
    assert_eq!(moto.requests().matches("POST / ").count(), 1, "{}", moto.requests());
}

/// Makes a key, or checks Google's V4 signature with its public part.
const GOOGLE: &str = r#"
import sys, hashlib, urllib.parse as u
from cryptography.hazmat.primitives import hashes, serialization as s
from cryptography.hazmat.primitives.asymmetric import padding, rsa
if sys.argv[1] == "key":
    key = rsa.generate_private_key(65537, 2048)
    print(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode(), end="")
    sys.exit()
key, method, url = sys.argv[2:5]
headers = dict(pair.split("=", 1) for pair in sys.argv[5:])
parts = u.urlsplit(url)
headers["host"] = parts.netloc
names = sorted(headers)
query = u.parse_qsl(parts.query)
signature = bytes.fromhex(dict(query)["X-Goog-Signature"])
query = sorted((name, value) for name, value in query if name != "X-Goog-Signature")
given = dict(query)
assert given["X-Goog-SignedHeaders"] == ";".join(names), given
canonical = "\n".join([
    method, parts.path, "&".join(u.quote(n, safe="") + "=" + u.quote(v, safe="") for n, v in query),
    "".join(f"{name}:{headers[name]}\n" for name in names), ";".join(names), "UNSIGNED-PAYLOAD"])
scope = given["X-Goog-Credential"].split("/", 1)[1]
to_sign = "\n".join(["GOOG4-RSA-SHA256", given["X-Goog-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
public = s.load_pem_private_key(key.encode(), None).public_key()
public.verify(signature, to_sign.encode(), padding.PKCS1v15(), hashes.SHA256())
print(given["X-Goog-Credential"].split("/")[0], given["X-Goog-Expires"])
"#;

#[tokio::test]
async fn google_addresses_have_a_signature_that_the_public_key_confirms() {
    let private = python(GOOGLE, &["key"]);
    let gcs = |key: String| GcsCache {
        access_id: Some("ci@project.iam.gserviceaccount.com".into()),
        private_key: Some(key.into()),
        bucket_name: Some("caches".into()),
        ..GcsCache::default()
    };
    // People copy it with line ends written out.
    for key in [private.clone(), private.replace('\n', "\\n")] {
        let cache = Cache {
            kind: Some("gcs".into()),
            shared: true,
            max_uploaded_archive_size: Some(1000),
            gcs: Some(gcs(key)),
            ..Cache::default()
        };
        for name in ["main/deps-1", "a b/ü+c&d=%41~?#"] {
            let (restore, save) = signed(&cache, name).await;
            let check = |method: &str, url: &str, headers: &[(String, String)]| {
                assert!(url.starts_with("https://storage.googleapis.com/caches/project/7/"), "{url}");
                let headers: Vec<String> =
                    headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let mut arguments = vec!["check", private.as_str(), method, url];
                arguments.extend(headers.iter().map(String::as_str));
                assert_eq!(python(GOOGLE, &arguments), "ci@project.iam.gserviceaccount.com 3600\n");
            };
            check("GET", &restore.get_url, &[]);
            check("HEAD", &save.check_url, &[]);
            assert_eq!(header(&save, "x-goog-content-length-range"), Some("0,1000"));
            check("PUT", &save.put_url, &save.put_headers);
        }
    }
}

/// A service SAS by <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>, version 2020-12-06.
const AZURE: &str = r#"
import sys, hmac, hashlib, base64, urllib.parse as u
key, account, url = sys.argv[1:]
parts = u.urlsplit(url)
q = dict(u.parse_qsl(parts.query))
resource = "/blob/" + account + u.unquote(parts.path)
fields = [q["sp"], q["st"], q["se"], resource, q.get("si", ""), q.get("sip", ""), q.get("spr", ""), q["sv"], q["sr"],
          "", q.get("ses", ""), q.get("rscc", ""), q.get("rscd", ""), q.get("rsce", ""), q.get("rscl", ""), q.get("rsct", "")]
mac = hmac.new(base64.b64decode(key), "\n".join(fields).encode(), hashlib.sha256)
assert base64.b64encode(mac.digest()).decode() == q["sig"]
print(q["sp"], q["spr"], q["sv"], q["sr"])
"#;

#[tokio::test]
async fn azure_addresses_have_the_signature_of_a_service_sas() {
    let secret = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let cache = Cache {
        kind: Some("azure".into()),
        azure: Some(AzureCache {
            account_name: Some("devaccount".into()),
            account_key: Some(secret.to_owned().into()),
            container_name: Some("caches".into()),
            ..AzureCache::default()
        }),
        ..Cache::default()
    };
    for name in ["main/deps-1", "a b/ü+c&d=%41~"] {
        let (restore, save) = signed(&cache, name).await;
        for (url, permissions) in
            [(&restore.get_url, "r"), (&restore.head_url, "r"), (&save.check_url, "r"), (&save.put_url, "cw")]
        {
            assert!(
                url.starts_with("https://devaccount.blob.core.windows.net/caches/runner/t1/project/7/"),
                "{url}"
            );
            assert!(!url.contains(secret), "{url}");
            assert_eq!(
                python(AZURE, &[secret, "devaccount", url]),
                format!("{permissions} https 2020-12-06 b\n")
            );
        }
        assert_eq!(header(&save, "x-ms-blob-type"), Some("BlockBlob"));
    }
}

#[tokio::test]
async fn no_address_is_good_for_longer_than_clouds_allow() {
    let store = CacheStore::new(&s3(|_| {}), "t1").unwrap();
    let remote = store.restore(7, &key("k"), Duration::from_secs(30 * 24 * 3600)).await.unwrap();
    assert!(remote.get_url.contains("X-Amz-Expires=604800&"), "{}", remote.get_url);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_says_which_key_is_wrong() {
    let cases: [(Cache, &str); 6] = [
        (s3(|s3| s3.bucket_name = None), "`BucketName` is missing in [runners.cache.s3]"),
        (s3(|s3| s3.secret_key = None), "`SecretKey` is missing in [runners.cache.s3]"),
        (
            s3(|s3| s3.server_side_encryption = Some("rot13".into())),
            "`rot13` is none of S3, KMS and DSSE-KMS",
        ),
        (s3(|s3| s3.role_arn = Some("cache".into())), "`RoleARN` in [runners.cache.s3] cannot be used"),
        (Cache { kind: Some("S3".into()), ..Cache::default() }, "cache type `S3` does not exist"),
        (Cache { kind: Some("azure".into()), ..Cache::default() }, "`ContainerName` is missing"),
    ];
    for (cache, text) in cases {
        let store = CacheStore::new(&cache, "t1").unwrap();
        let error = store.restore(7, &key("k"), HOUR).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(CacheStore::new(&Cache::default(), "t1").is_none());
}
