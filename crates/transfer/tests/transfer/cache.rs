//! Caches on a server with signed URLs.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};

use crate::support::{Project, Ran, run_in};

const MONDAY: &str = "Mon, 02 Nov 2026 10:00:00 GMT";
const TUESDAY: &str = "Tue, 03 Nov 2026 10:00:00 GMT";

/// An object storage: every request needs its signature.
#[derive(Clone, Default)]
struct Storage(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    url: String,
    objects: BTreeMap<String, Object>,
    /// Answers in place of the real ones: status, and the body.
    faults: VecDeque<(StatusCode, &'static str)>,
    /// Breaks off so many downloads half way.
    truncate: u32,
    calls: Vec<(Method, String, HeaderMap)>,
}

#[derive(Clone)]
struct Object {
    data: Vec<u8>,
    modified: Option<String>,
}

impl Storage {
    async fn start() -> Self {
        let storage = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        storage.inner().url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(storage.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        storage
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn url(&self, key: &str) -> String {
        format!("{}/bucket/{key}?X-Amz-Signature=s3cr3t", self.inner().url)
    }

    fn put(&self, key: &str, data: Vec<u8>, modified: &str) {
        let object = Object { data, modified: Some(modified.to_owned()) };
        self.inner().objects.insert(format!("/bucket/{key}"), object);
    }

    fn calls(&self) -> Vec<String> {
        self.inner().calls.iter().map(|(method, path, _)| format!("{method} {path}")).collect()
    }
}

async fn answer(State(storage): State<Storage>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let reply = |status: StatusCode| Response::builder().status(status);
    let path = head.uri.path().to_owned();
    storage.inner().calls.push((head.method.clone(), path.clone(), head.headers.clone()));
    if head.uri.query() != Some("X-Amz-Signature=s3cr3t") {
        let page = "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>";
        return reply(StatusCode::FORBIDDEN).body(page.into()).unwrap();
    }
    let data = to_bytes(body, usize::MAX).await.unwrap();
    let mut inner = storage.inner();
    if let Some((status, page)) = inner.faults.pop_front() {
        return reply(status).body(page.into()).unwrap();
    }
    if head.method == Method::PUT {
        let modified = head.headers.get("last-modified").map(|value| value.to_str().unwrap().to_owned());
        inner.objects.insert(path, Object { data: data.to_vec(), modified });
        return reply(StatusCode::OK).body(Body::empty()).unwrap();
    }
    let Some(object) = inner.objects.get(&path).cloned() else {
        return reply(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    let mut answer = reply(StatusCode::OK).header("content-length", object.data.len());
    if let Some(modified) = object.modified {
        answer = answer.header("last-modified", modified);
    }
    if head.method == Method::GET && inner.truncate > 0 {
        inner.truncate -= 1;
        let half = object.data[..object.data.len() / 2].to_vec();
        let broken = [Ok(half), Err(std::io::Error::other("gone"))];
        return answer.body(Body::from_stream(futures_util::stream::iter(broken))).unwrap();
    }
    answer.body(object.data.into()).unwrap()
}

/// Runs on a thread of its own, so that the storage can answer.
async fn run(project: &Project, arguments: &[&str]) -> Ran {
    let directory = project.path().to_owned();
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        run_in(&directory, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .unwrap()
}

fn zip_with(content: &str) -> Vec<u8> {
    let project = Project::new();
    project.file("f", content);
    project.program("zip", &["-q", "a.zip", "f"]);
    fs::read(project.path().join("a.zip")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_goes_to_the_server_and_comes_back() {
    let storage = Storage::start().await;
    let project = Project::new().with_oddities();
    let ran = run(
        &project,
        &[
            "cache-archiver",
            "--file",
            "../c/k/cache.zip",
            "--path",
            "odd",
            "--url",
            &storage.url("k"),
            "--header",
            "x-amz-meta-cachekey: a key",
            "--header",
            "Content-Type: application/zip",
        ],
    )
    .await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    let url = storage.inner().url.clone();
    assert!(ran.log.ends_with(&format!("Uploading cache.zip to {url}/bucket/k\n")), "{}", ran.log);
    let (_, _, headers) = storage.inner().calls[0].clone();
    let archive = fs::metadata(project.path().join("../c/k/cache.zip")).unwrap();
    assert_eq!(headers["content-length"], archive.len().to_string());
    assert_eq!(
        (&headers["x-amz-meta-cachekey"], &headers["content-type"]),
        (&"a key".parse().unwrap(), &"application/zip".parse().unwrap())
    );
    assert!(headers["last-modified"].to_str().unwrap().ends_with(" GMT"));
    assert!(!headers.contains_key("transfer-encoding"));

    let other = Project::new();
    let ran = run(&other, &["cache-extractor", "--file", "k/cache.zip", "--url", &storage.url("k")]).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(ran.log, format!("Downloading cache.zip from {url}/bucket/k\n"));
    assert_eq!(other.seen("odd"), project.seen("odd"));
    // The archive that is there is as new as the server's.
    let ran = run(&other, &["cache-extractor", "--file", "k/cache.zip", "--url", &storage.url("k")]).await;
    assert_eq!((ran.code, ran.log.as_str()), (0, "cache.zip is up to date\n"));
    fs::remove_dir_all(project.path().join("../c")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_nothing_is_newer_than_stays() {
    let storage = Storage::start().await;
    let project = Project::new();
    project.file("f", "1");
    let (url, check) = (storage.url("k"), storage.url("check"));
    let common = ["cache-archiver", "--file", "c/cache.zip", "--path", "f"];
    let created = run(&project, &common).await;
    assert!(created.log.contains("No URL provided, cache will not be uploaded"), "{}", created.log);
    let archive = fs::read(project.path().join("c/cache.zip")).unwrap();

    // Without an alternate file that is all.
    let ran = run(&project, &[&common[..], &["--url", &url]].concat()).await;
    assert!(ran.log.ends_with("Archive is up to date!\n"), "{}", ran.log);
    assert!(storage.calls().is_empty());

    // With one the server is asked.
    let asked =
        [&common[..], &["--url", &url, "--check-url", &check, "--alternate-file", "old/cache.zip"]].concat();
    let ran = run(&project, &asked).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(storage.calls(), ["HEAD /bucket/check", "PUT /bucket/k"]);
    assert_eq!(storage.inner().objects["/bucket/k"].data, archive);
    storage.put("check", archive.clone(), MONDAY);
    let ran = run(&project, &asked).await;
    assert!(ran.log.ends_with("Archive is up to date!\n"), "{}", ran.log);
    assert_eq!(storage.calls().len(), 3);

    // Something newer makes a new archive, which needs no question.
    project.file("f", "2");
    let later = SystemTime::now() + Duration::from_secs(5);
    fs::File::open(project.path().join("f")).unwrap().set_modified(later).unwrap();
    let ran = run(&project, &asked).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(storage.calls().last().unwrap(), "PUT /bucket/k");
    assert_ne!(storage.inner().objects["/bucket/k"].data, archive);
}

#[test]
fn an_archive_under_the_other_name_is_taken_over() {
    let project = Project::new();
    project.file("f", "1");
    let run = |file: &str, more: &[&str]| {
        let ran = project.run(&[&["cache-archiver", "--file", file, "--path", "f"], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.log);
    };
    run("old/cache.zip", &[]);
    let archive = fs::read(project.path().join("old/cache.zip")).unwrap();
    run("new/cache.zip", &["--alternate-file", "old/cache.zip"]);
    assert!(!project.has("old/cache.zip"));
    assert_eq!(fs::read(project.path().join("new/cache.zip")).unwrap(), archive);
    assert!(project.has("new/metadata.json"));
}

#[test]
fn metadata_lies_beside_the_archive() {
    let project = Project::new();
    project.file("f", "1").file("env", "CACHE_METADATA={\"cachekey\":\"main\"}\n");
    let ran = project.run(&["cache-archiver", "--file", "c/cache.zip", "--path", "f", "--env-file", "env"]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(project.read("c/metadata.json"), r#"{"cachekey":"main"}"#);
    assert_eq!(project.program("stat", &["-c", "%a", "c/metadata.json"]).trim(), "640");
    // Nothing half made is left over.
    assert_eq!(fs::read_dir(project.path().join("c")).unwrap().count(), 2);
}

#[test]
fn no_files_no_cache() {
    let project = Project::new();
    let ran = project.run(&["cache-archiver", "--file", "c/cache.zip", "--path", "none"]);
    assert_eq!(ran.code, 0);
    assert!(ran.log.ends_with("No files to cache.\n"), "{}", ran.log);
    assert!(!project.has("c/cache.zip"));
    let ran = project.run(&["cache-archiver", "--path", "none"]);
    assert_eq!((ran.code, ran.log.as_str()), (1, "FATAL: Missing cache file\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_too_large_stays_here() {
    let storage = Storage::start().await;
    let project = Project::new();
    project.file("f", "1");
    let line =
        ["cache-archiver", "--file", "c.zip", "--path", "f", "--max-uploaded-archive-size", "10", "--url"];
    let ran = run(&project, &[&line[..], &[&storage.url("k")]].concat()).await;
    assert_eq!(ran.code, 0);
    assert!(ran.log.contains("is too big (Limit is set to 10), cache won't be uploaded"), "{}", ran.log);
    assert!(storage.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_are_tried_three_times_and_explained() {
    let storage = Storage::start().await;
    let project = Project::new();
    project.file("f", "1");
    let url = storage.url("k");
    let archive = ["cache-archiver", "--file", "c.zip", "--path", "f", "--url", &url];
    storage.inner().faults.extend([(StatusCode::INTERNAL_SERVER_ERROR, ""), (StatusCode::BAD_GATEWAY, "")]);
    let ran = run(&project, &archive).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(ran.log.matches("WARNING: Retrying...").count(), 2);
    assert_eq!(storage.calls().len(), 3);

    let page = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    storage.inner().faults.extend([(StatusCode::SERVICE_UNAVAILABLE, page); 3]);
    let ran = run(&project, &["cache-extractor", "--file", "d.zip", "--url", &url]).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.log.ends_with(
            "WARNING: received: 503 Service Unavailable. Request failed with code: SlowDown, message: Please reduce your request rate.\n"
        ),
        "{}",
        ran.log
    );

    // A signature that has expired is final.
    let before = storage.calls().len();
    let unsigned = format!("{}/bucket/k", storage.inner().url);
    let ran = run(&project, &["cache-extractor", "--file", "d.zip", "--url", &unsigned]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("WARNING: received: 403 Forbidden. Request failed with code: "), "{}", ran.log);
    assert_eq!(storage.calls().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_have_is_no_cache() {
    let storage = Storage::start().await;
    let project = Project::new();
    let ran = run(&project, &["cache-extractor", "--file", "c.zip", "--url", &storage.url("k")]).await;
    assert_eq!((ran.code, ran.log.as_str()), (1, "WARNING: file does not exist\n"));
    let ran = run(&project, &["cache-extractor", "--file", "c.zip"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("No URL provided, cache will not be downloaded"), "{}", ran.log);
    assert!(ran.log.ends_with("WARNING: Cache file does not exist\n"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_mean_nothing_cost_no_cache() {
    let project = Project::new();
    project.file("a", "x");
    let line = ["cache-archiver", "--file", "c.zip", "--path", "a", "--compression-format", "rar"];
    let ran = run(&project, &[&line[..], &["--compression-level", "most"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    let warning = "WARNING: compression level \"most\" is invalid, falling back to default\n";
    assert!(ran.log.contains(warning), "{}", ran.log);
    assert_eq!(run(&project, &["cache-extractor", "--file", "c.zip"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_names_is_taken() {
    let storage = Storage::start().await;
    let (one, two) = (storage.url("one"), storage.url("two"));
    let line = |head: bool| {
        let mut line = vec!["cache-extractor", "--file", "c.zip", "--url", &one, "--alternate-url", &two];
        if head {
            line.extend(["--head-url", &one, "--alternate-head-url", &two]);
        }
        line.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for head in [true, false] {
        for (first, second, wanted) in [
            (Some(MONDAY), Some(TUESDAY), "two"),
            (Some(TUESDAY), Some(MONDAY), "one"),
            (Some(MONDAY), Some(MONDAY), "one"),
            (None, Some(MONDAY), "two"),
            (Some(MONDAY), None, "one"),
        ] {
            storage.inner().objects.clear();
            for (key, date) in [("one", first), ("two", second)] {
                if let Some(date) = date {
                    storage.put(key, zip_with(key), date);
                }
            }
            let project = Project::new();
            let line = line(head);
            let ran = run(&project, &line.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(ran.code, 0, "{}", ran.log);
            assert_eq!(project.read("f"), wanted, "{first:?} {second:?}");
        }
    }
    storage.inner().objects.clear();
    let line = line(true);
    let ran = run(&Project::new(), &line.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!((ran.code, ran.log.as_str()), (1, "WARNING: file does not exist\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_archive_here_is_replaced_and_a_newer_one_is_not() {
    let storage = Storage::start().await;
    storage.put("k", zip_with("server"), MONDAY);
    let url = storage.url("k");
    for (seconds, wanted) in [(1, "server"), (4_000_000_000, "here")] {
        let project = Project::new();
        project.file("c.zip", zip_with("here"));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(project.path().join("c.zip")).unwrap().set_modified(time).unwrap();
        let ran = run(&project, &["cache-extractor", "--file", "c.zip", "--url", &url]).await;
        assert_eq!(ran.code, 0, "{}", ran.log);
        assert_eq!(project.read("f"), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_never_becomes_the_archive() {
    let storage = Storage::start().await;
    // Large enough to be sent in parts.
    let content = "content\n".repeat(1 << 18);
    let source = Project::new();
    source.file("f", &content);
    source.program("zip", &["-q", "-0", "a.zip", "f"]);
    storage.put("k", fs::read(source.path().join("a.zip")).unwrap(), MONDAY);
    let url = storage.url("k");
    let project = Project::new();
    storage.inner().truncate = 2;
    let ran = run(&project, &["cache-extractor", "--file", "c/c.zip", "--url", &url]).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert!(project.read("f") == content);
    fs::remove_dir_all(project.path().join("c")).unwrap();
    storage.inner().truncate = 3;
    let ran = run(&project, &["cache-extractor", "--file", "c/c.zip", "--url", &url]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(fs::read_dir(project.path().join("c")).unwrap().count(), 0);
}

#[test]
fn folders_of_caches_are_opened_to_everybody() {
    let project = Project::new();
    project.file("volume/file", "x");
    let ran = project.run(&["cache-init", "volume"]);
    assert_eq!((ran.code, ran.log.as_str()), (0, ""));
    assert_eq!(project.program("stat", &["-c", "%a", "volume"]).trim(), "777");
    let ran = project.run(&["cache-init"]);
    assert_eq!(
        (ran.code, ran.log.as_str()),
        (1, "FATAL: No arguments passed, at least one path is required.\n")
    );
    let ran = project.run(&["cache-init", "none"]);
    assert!(
        ran.code == 1 && ran.log.starts_with("FATAL: failed to change permissions of `none`: "),
        "{}",
        ran.log
    );
}
