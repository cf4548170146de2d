//! Uploads to GitLab and downloads from it.

use std::io::Read as _;
use std::net::TcpListener;

use gitlab_mock::{Config, Endpoint, Fault, Job, JobBuilder, Rule, StoredArtifact};
use http::StatusCode;
use test_case::test_case;

use crate::support::{Gitlab, Project, noise};

const MANY: usize = 7;

fn only(job: &Job) -> StoredArtifact {
    let mut stored = job.artifacts();
    assert_eq!(stored.len(), 1);
    stored.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_uploaded_and_the_log_says_so() {
    let gitlab = Gitlab::start(Config::default()).await;
    let job = gitlab.job(JobBuilder::new("test")).await;
    let project = Project::new();
    project.file("out/a.xml", "<a/>").file("out/ü b.xml", "<b/>").file("out/c.txt", "c");
    let ran = gitlab
        .run(
            &project,
            &job,
            &[
                "artifacts-uploader",
                "--path",
                "out/*.xml",
                "--artifact-format",
                "gzip",
                "--artifact-type",
                "junit",
                "--expire-in",
                "1 week",
                "--name",
                "${NO_SUCH_NAME:-reports}/junit.xml",
            ],
        )
        .await;
    let token = gitlab_api::short_token(job.token());
    assert_eq!(
        ran.log,
        format!(
            "out/*.xml: found 2 matching artifact files and directories\n\
             Uploading artifacts as \"junit\" to coordinator... 201 Created  id={} responseStatus=201 Created token={token}\n",
            job.id()
        )
    );
    assert_eq!(ran.code, 0);
    let stored = only(&job);
    assert_eq!(
        (stored.view.filename.as_str(), stored.view.artifact_type.as_str()),
        ("junit.xml.gz", "junit")
    );
    assert_eq!(
        (stored.view.artifact_format.as_str(), stored.view.expire_in.as_deref()),
        ("gzip", Some("1 week"))
    );
    // GitLab reads the members as one text, `gzip` does so too.
    let other = Project::new();
    other.file("r.gz", &stored.data);
    assert_eq!(other.program("gzip", &["-dc", "r.gz"]), "<a/><b/>");
    // And the helper finds the files again.
    assert_eq!(other.run(&["cache-extractor", "--file", "r.gz"]).code, 0);
    assert_eq!(other.read("out/ü b.xml"), "<b/>");
    gitlab.mock.assert_no_violations();
}

#[test_case("zip", "artifacts.zip")]
#[test_case("zipzstd", "artifacts.zip"; "zip with zstd")]
#[test_case("tarzstd", "artifacts.tar.zst"; "tar in zstd")]
#[tokio::test(flavor = "multi_thread")]
async fn what_one_job_uploads_another_downloads(format: &str, name: &str) {
    for direct in [false, true] {
        let gitlab = Gitlab::start(Config::default()).await;
        let job = gitlab.job(JobBuilder::new("build")).await;
        // Beyond what is sent in one piece.
        let project = Project::new().with_oddities();
        project.file("odd/big", noise(MANY << 20));
        let arguments = ["artifacts-uploader", "--path", "odd", "--artifact-format", format];
        let ran = gitlab.run(&project, &job, &arguments).await;
        assert_eq!(ran.code, 0, "{}", ran.log);
        assert_eq!(only(&job).view.filename, name);
        std::fs::remove_file(project.path().join("odd/dangling")).unwrap();
        let other = Project::new();
        let direct_flag = format!("--direct-download={direct}");
        let ran = gitlab.run(&other, &job, &["artifacts-downloader", &direct_flag]).await;
        assert_eq!(ran.code, 0, "{}", ran.log);
        let host = if direct { "host=127.0.0.1 " } else { "" };
        let token = gitlab_api::short_token(job.token());
        assert_eq!(
            ran.log,
            format!(
                "{:50}  {host}id={} responseStatus=200 OK token={token}\n",
                "Downloading artifacts from coordinator... ok",
                job.id()
            )
        );
        std::fs::remove_file(other.path().join("odd/dangling")).unwrap();
        assert_eq!(
            gitlab.mock.storage_requests().iter().map(|request| request.token_leaked).collect::<Vec<_>>(),
            if direct { vec![false] } else { vec![] }
        );
        let (mut seen, mut wanted) = (other.seen("odd"), project.seen("odd"));
        // Its time has changed by the removal above.
        seen.remove(std::path::Path::new("odd"));
        wanted.remove(std::path::Path::new("odd"));
        assert_eq!(seen, wanted);
        gitlab.mock.assert_no_violations();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_artifact_is_the_file_itself() {
    let gitlab = Gitlab::start(Config::default()).await;
    let job = gitlab.job(JobBuilder::new("scan")).await;
    let project = Project::new();
    let content = noise(5 << 20);
    project.file("gl-sast.json", &content).file("two.json", "{}");
    let raw = |path: &'static str| {
        ["artifacts-uploader", "--path", path, "--artifact-format", "raw", "--artifact-type", "sast"]
    };
    let ran = gitlab.run(&project, &job, &raw("gl-sast.json")).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    let stored = only(&job);
    assert_eq!(stored.view.filename, "gl-sast.json");
    assert!(stored.data == content);
    let named = gitlab.job(JobBuilder::new("named")).await;
    let line = [&raw("two.json")[..], &["--name", "gl-sast-report.json"]].concat();
    let ran = gitlab.run(&project, &named, &line).await;
    assert_eq!((ran.code, only(&named).view.filename.as_str()), (0, "gl-sast-report.json"), "{}", ran.log);
    let ran = gitlab.run(&project, &job, &raw("*.json")).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.log.ends_with("FATAL: the format `raw` takes exactly one file, but 2 were found\n"),
        "{}",
        ran.log
    );
    gitlab.mock.assert_no_violations();
}

#[test]
fn nothing_to_upload_is_no_failure() {
    let ran = Project::new().run(&[
        "artifacts-uploader",
        "--url",
        "http://127.0.0.1:1",
        "--token",
        "t",
        "--id",
        "1",
        "--path",
        "x",
    ]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.log.starts_with("WARNING: x: no matching files. Ensure that the artifact path"),
        "{}",
        ran.log
    );
    assert!(ran.log.ends_with("ERROR: No files to upload\n"), "{}", ran.log);
}

#[test]
fn credentials_have_to_be_there() {
    let project = Project::new();
    let ran = project.run(&["artifacts-uploader", "--url", "http://g", "--id", "1", "--token", ""]);
    assert_eq!((ran.code, ran.log.as_str()), (1, "FATAL: Missing runner credentials\n"));
    let ran = project.run(&["artifacts-downloader", "--url", "http://g", "--token", "t", "--id", "0"]);
    assert_eq!((ran.code, ran.log.as_str()), (1, "FATAL: Missing build ID\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_pass_are_tried_again_with_the_archive_made_anew() {
    let gitlab = Gitlab::start(Config::default()).await;
    let job = gitlab.job(JobBuilder::new("build")).await;
    let project = Project::new();
    project.file("big", noise(MANY << 20));
    // A reset ends a try; two 500 are repeated within one.
    gitlab.mock.inject(Fault::reset().on([Endpoint::UploadArtifact]).times(1));
    gitlab.mock.inject(Fault::status(500).on([Endpoint::UploadArtifact]).times(2));
    let ran = gitlab.run(&project, &job, &["artifacts-uploader", "--path", "big"]).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert!(ran.log.contains("WARNING: Uploading artifacts to coordinator... no answer  id="), "{}", ran.log);
    assert!(
        ran.log.contains("WARNING: Retrying...                                context=artifacts-uploader\n"),
        "{}",
        ran.log
    );
    let other = Project::new();
    other.file("a.zip", &only(&job).data);
    other.program("unzip", &["-q", "a.zip"]);
    assert!(std::fs::read(other.path().join("big")).unwrap() == noise(MANY << 20));
    gitlab.mock.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_final_and_explained() {
    let gitlab = Gitlab::start(Config { max_artifact_bytes: 100, ..Config::default() }).await;
    let job = gitlab.job(JobBuilder::new("build")).await;
    let project = Project::new();
    project.file("f", noise(1000));
    let upload = ["artifacts-uploader", "--path", "f", "--artifact-type", "archive"];
    let ran = gitlab.run(&project, &job, &upload).await;
    assert_eq!(ran.code, 1);
    let token = gitlab_api::short_token(job.token());
    let line = format!(
        "ERROR: Uploading artifacts as \"archive\" to coordinator... 413 Payload Too Large  id={} \
         responseStatus=413 Payload Too Large status=413 token={token}\n",
        job.id()
    );
    assert!(ran.log.contains(&line), "{}", ran.log);
    assert!(ran.log.contains("ERROR: GitLab refuses the artifact because it is larger"), "{}", ran.log);
    assert!(ran.log.contains("Before compression the 1 selected files have "), "{}", ran.log);
    assert!(ran.log.ends_with("FATAL: too large\n"), "{}", ran.log);

    let fault = gitlab.mock.inject(Fault::status(413).on([Endpoint::UploadArtifact]));
    let ran = gitlab.run(&project, &job, &upload).await;
    assert!(ran.log.contains("most likely from a proxy before it"), "{}", ran.log);
    assert_eq!((ran.code, gitlab.mock.faults()[0].hits), (1, 1));
    gitlab.mock.remove_fault(fault);

    gitlab.mock.inject(Fault::status(403).on([Endpoint::UploadArtifact]));
    let ran = gitlab.run(&project, &job, &upload).await;
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("... 403 Forbidden  id="), "{}", ran.log);
    assert!(ran.log.ends_with("FATAL: permission denied\n"), "{}", ran.log);
    gitlab.mock.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_cannot_be_had_fail_with_their_reason() {
    let gitlab = Gitlab::start(Config::default()).await;
    let job = gitlab.job(JobBuilder::new("build")).await;
    let project = Project::new();
    let ran = gitlab.run(&project, &job, &["artifacts-downloader"]).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.log.contains("ERROR: Downloading artifacts from coordinator... not found  id="),
        "{}",
        ran.log
    );
    assert!(ran.log.ends_with("FATAL: file does not exist\n"), "{}", ran.log);

    let stranger = gitlab.job(JobBuilder::new("stranger")).await;
    let id = job.id().to_string();
    let arguments = [
        "artifacts-downloader".to_owned(),
        "--url".to_owned(),
        gitlab.mock.url().to_owned(),
        "--token".to_owned(),
        stranger.token().to_owned(),
        "--id".to_owned(),
        id,
    ];
    let directory = project.path().to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        crate::support::run_in(&directory, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .unwrap();
    assert_eq!(ran.code, 1);
    assert!(ran.log.ends_with("FATAL: permission denied\n"), "{}", ran.log);
    assert_eq!(gitlab.mock.take_violations()[0].rule, Rule::WrongToken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_tried_three_times() {
    let gitlab =
        Gitlab::start(Config { direct_download: Some(StatusCode::FOUND), ..Config::default() }).await;
    let job = gitlab.job(JobBuilder::new("build")).await;
    let project = Project::new();
    project.file("f", "content");
    assert_eq!(gitlab.run(&project, &job, &["artifacts-uploader", "--path", "f"]).await.code, 0);
    // 400 is not repeated by the layer below.
    gitlab.mock.inject(Fault::status(400).on([Endpoint::DownloadArtifact]).times(2));
    let other = Project::new();
    let download = ["artifacts-downloader", "--retry-time", "10ms", "--direct-download"];
    let ran = gitlab.run(&other, &job, &download).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(other.read("f"), "content");
    assert_eq!(ran.log.matches("WARNING: Retrying...").count(), 2);
    // Only the first try goes to the storage.
    assert_eq!(gitlab.mock.storage_requests().len(), 0);

    gitlab.mock.inject(Fault::status(400).on([Endpoint::DownloadArtifact]));
    let ran = gitlab.run(&other, &job, &download).await;
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("ERROR: Downloading artifacts from coordinator... error  id="), "{}", ran.log);
    assert_eq!(gitlab.mock.faults()[1].hits, 3);
}

/// Answers each connection with one of the answers, then no more.
fn scripted(answers: Vec<Vec<u8>>) -> String {
    use std::io::Write as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(&answer).unwrap();
        }
    });
    url
}

#[test]
fn a_download_that_breaks_off_is_fetched_again_from_its_start() {
    let source = Project::new();
    source.file("f", "content");
    source.program("zip", &["-q", "a.zip", "f"]);
    let zip = std::fs::read(source.path().join("a.zip")).unwrap();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", zip.len()).into_bytes();
    let whole = [head.clone(), zip.clone()].concat();
    let half = [head, zip[..zip.len() / 2].to_vec()].concat();
    let url = scripted(vec![half.clone(), whole]);
    let project = Project::new();
    let arguments = |url: &str| {
        ["artifacts-downloader", "--url", url, "--token", "t", "--id", "1", "--retry-time", "10ms"]
            .map(str::to_owned)
    };
    let run = |url: &str| project.run(&arguments(url).each_ref().map(String::as_str));
    let ran = run(&url);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(project.read("f"), "content");
    let ran = run(&scripted(vec![half; 3]));
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("FATAL: GET http://127.0.0.1:"), "{}", ran.log);
}

/// Answers with a zip of everything in `in/`.
fn offered(source: &Project) -> String {
    source.program("zip", &["-q", "-r", "-y", "a.zip", "in"]);
    let zip = std::fs::read(source.path().join("a.zip")).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", zip.len()).into_bytes();
    scripted(vec![[head, zip].concat()])
}

#[test]
fn links_come_as_they_were_and_are_no_door_for_the_next_artifacts() {
    let source = Project::new();
    source.file("in/file", "x");
    let outside = Project::new();
    let away = outside.path().display().to_string();
    let links =
        [("file", "in/near"), (away.as_str(), "in/away"), ("../../up", "in/up"), ("nowhere", "in/broken")];
    for (target, name) in links {
        std::os::unix::fs::symlink(target, source.path().join(name)).unwrap();
    }
    let project = Project::new();
    let download =
        |url: &str| project.run(&["artifacts-downloader", "--url", url, "--token", "t", "--id", "1"]);
    let ran = download(&offered(&source));
    assert_eq!(ran.code, 0, "{}", ran.log);
    for (target, name) in links {
        let found = std::fs::read_link(project.path().join(name)).unwrap();
        assert_eq!(found.to_str(), Some(target), "{name}");
    }

    // Another job's artifacts want to go through.
    let next = Project::new();
    next.file("in/away/evil", "x");
    let ran = download(&offered(&next));
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("holds `in/away`, which leads outside of the directory"), "{}", ran.log);
    assert!(!outside.has("evil"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_provenance_joins_the_archive() {
    let gitlab = Gitlab::start(Config::default()).await;
    let project = Project::new();
    project.file("out/a", "abc").file("out/b", "");
    let job = gitlab.job(JobBuilder::new("build").script(["true"])).await;
    let ran = gitlab
        .run(
            &project,
            &job,
            &[
                "artifacts-uploader",
                "--path",
                "out",
                "--name",
                "binaries",
                "--generate-artifacts-metadata",
                "--repo-url",
                "https://gitlab.test/g/p",
                "--repo-digest",
                "abcdef",
                "--job-name",
                "build",
                "--metadata-parameter",
                "CI",
            ],
        )
        .await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    let artifact = &job.artifacts()[0];
    project.file("got.zip", &artifact.data[..]);
    let text = project.program("unzip", &["-p", "got.zip", "binaries-metadata.json"]);
    let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = statement["subject"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subject| subject["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["out/a", "out/b"]);
    // Recomputed by another program.
    let digest = project.program("sha256sum", &["out/a"]);
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.split(' ').next().unwrap());
    assert_eq!(statement["predicate"]["buildDefinition"]["internalParameters"]["job"], job.id().to_string());
}
