//! Upload and download of artifacts.

use drover_gitlab_mock::{Config, Job, JobBuilder, Rule};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response, StatusCode};

use crate::support::*;

const ZIP: &[u8] = b"PK\x05\x06 not much of an archive";

async fn upload(bench: &Bench, job: &Job, query: &str, name: &str, data: &[u8]) -> Response {
    let form = Form::new().part("file", Part::bytes(data.to_vec()).file_name(name.to_owned()));
    upload_form(bench, job, query, form).await
}

async fn upload_form(bench: &Bench, job: &Job, query: &str, form: Form) -> Response {
    let call = bench.call(Method::POST, &format!("jobs/{}/artifacts?{query}", job.id()));
    call.header("JOB-TOKEN", job.token()).multipart(form).send().await.unwrap()
}

async fn download(bench: &Bench, job: &Job, token: &str, query: &str) -> Response {
    let call = bench.call(Method::GET, &format!("jobs/{}/artifacts?{query}", job.id()));
    call.header("JOB-TOKEN", token).send().await.unwrap()
}

/// A finished job with an archive.
async fn with_archive(config: Config) -> (Bench, Job) {
    let bench = Bench::with(config).await;
    let job = bench.take(JobBuilder::new("build")).await;
    let reply = upload(&bench, &job, "artifact_type=archive&artifact_format=zip", "out.zip", ZIP).await;
    assert_eq!(reply.status(), 201);
    bench.finish(&job, "success", b"").await;
    (bench, job)
}

#[tokio::test]
async fn upload_is_stored_with_what_was_said_about_it() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let query = "expire_in=1%20week&artifact_format=zip&artifact_type=archive";
    let data = [ZIP, &vec![7; 3 << 20]].concat();
    assert_eq!(upload(&bench, &job, query, "out.zip", &data).await.status(), 201);
    let stored = &job.artifacts()[0];
    assert_eq!(
        (stored.view.filename.as_str(), stored.view.expire_in.as_deref()),
        ("out.zip", Some("1 week"))
    );
    assert_eq!(stored.view.artifact_type, "archive");
    assert!(stored.data == data);
    let query = "artifact_format=gzip&artifact_type=junit";
    assert_eq!(upload(&bench, &job, query, "junit.xml.gz", b"\x1f\x8b...").await.status(), 201);
    assert_eq!(job.view().calls.uploads, 2);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn uploads_that_gitlab_would_not_take_are_refused() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    for query in ["artifact_type=novel", "artifact_type=junit&artifact_format=zip", "artifact_format=rar"] {
        assert_eq!(upload(&bench, &job, query, "x", ZIP).await.status(), 400, "{query}");
        bench.expect_violations(&[Rule::BadArtifact]);
    }
    for form in [Form::new(), Form::new().text("file", "no name"), Form::new().text("other", "x")] {
        assert_eq!(upload_form(&bench, &job, "", form).await.status(), 400);
        bench.expect_violations(&[Rule::MalformedBody]);
    }
    let call = bench.call(Method::POST, &format!("jobs/{}/artifacts", job.id()));
    assert_eq!(call.header("JOB-TOKEN", job.token()).body("x").send().await.unwrap().status(), 400);
    bench.expect_violations(&[Rule::MalformedBody]);
    let call = bench.call(Method::POST, &format!("jobs/{}/artifacts", job.id()));
    assert_eq!(call.header("JOB-TOKEN", "wrong").body("x").send().await.unwrap().status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
    assert!(job.artifacts().is_empty());
}

#[tokio::test]
async fn odd_uploads_are_taken_and_recorded() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    assert_eq!(upload(&bench, &job, "", "x.zip", b"not a zip").await.status(), 201);
    bench.expect_violations(&[Rule::BadArtifact]);
    assert_eq!(upload(&bench, &job, "colour=red", "x.zip", b"not a zip").await.status(), 201);
    bench.expect_violations(&[Rule::UnknownField, Rule::BadArtifact]);
}

#[tokio::test]
async fn second_archive_is_refused_unless_it_is_the_same() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    assert_eq!(upload(&bench, &job, "", "x.zip", ZIP).await.status(), 201);
    assert_eq!(upload(&bench, &job, "", "x.zip", ZIP).await.status(), 201);
    bench.mock.assert_no_violations();
    assert_eq!(upload(&bench, &job, "", "x.zip", b"PK other").await.status(), 400);
    bench.expect_violations(&[Rule::BadArtifact]);
}

#[tokio::test]
async fn upload_is_refused_when_too_large_disabled_or_late() {
    let bench = Bench::with(Config { max_artifact_bytes: 100, ..Config::default() }).await;
    let job = bench.take(JobBuilder::new("a")).await;
    assert_eq!(upload(&bench, &job, "", "x.zip", &[ZIP, &[0; 100]].concat()).await.status(), 413);
    bench.mock.assert_no_violations();
    bench.finish(&job, "success", b"").await;
    assert_eq!(upload(&bench, &job, "", "x.zip", ZIP).await.status(), 403);
    bench.expect_violations(&[Rule::NotRunning]);
    let bench = Bench::with(Config { artifacts_enabled: false, ..Config::default() }).await;
    let job = bench.take(JobBuilder::new("a")).await;
    assert_eq!(upload(&bench, &job, "", "x.zip", ZIP).await.status(), 405);
}

#[tokio::test]
async fn dependent_job_downloads_with_the_token_of_the_payload() {
    let (bench, job) = with_archive(Config::default()).await;
    bench.mock.enqueue(&bench.runner, JobBuilder::new("test").needs(&job));
    let payload: serde_json::Value = bench.request().await.json().await.unwrap();
    let dependency = &payload["dependencies"][0];
    assert_eq!(
        (&dependency["name"], &dependency["artifacts_file"]["filename"]),
        (&"build".into(), &"out.zip".into())
    );
    let reply = download(&bench, &job, dependency["token"].as_str().unwrap(), "").await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.bytes().await.unwrap(), ZIP);
    let own = download(&bench, &job, payload["token"].as_str().unwrap(), "").await;
    assert_eq!(own.status(), 200);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn downloads_are_refused_as_gitlab_does() {
    let (bench, job) = with_archive(Config::default()).await;
    let call = bench.call(Method::GET, &format!("jobs/{}/artifacts", job.id()));
    assert_eq!(call.send().await.unwrap().status(), 401);
    bench.expect_violations(&[Rule::MissingHeader]);
    let stranger = bench.take(JobBuilder::new("stranger")).await;
    assert_eq!(download(&bench, &job, stranger.token(), "").await.status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
    assert_eq!(download(&bench, &stranger, stranger.token(), "").await.status(), 404);
}

#[tokio::test]
async fn direct_download_leads_to_the_storage() {
    let config = Config { direct_download: Some(StatusCode::TEMPORARY_REDIRECT), ..Config::default() };
    let (bench, job) = with_archive(config).await;
    let reply = download(&bench, &job, job.token(), "direct_download=true").await;
    assert_eq!(reply.status(), 307);
    let location = text(reply.headers(), "location").to_owned();
    assert!(!location.starts_with(bench.mock.url()), "{location}");
    assert_eq!(bench.http.get(&location).send().await.unwrap().bytes().await.unwrap(), ZIP);
    let part = bench.http.get(&location).header("Range", "bytes=0-0").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(text(part.headers(), "content-range"), format!("bytes 0-0/{}", ZIP.len()));
    assert_eq!(part.bytes().await.unwrap(), &ZIP[..1]);
    let beyond = bench.http.get(&location).header("Range", "bytes=9999-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    bench.mock.assert_no_violations();

    bench.http.get(&location).header("JOB-TOKEN", job.token()).send().await.unwrap();
    bench.expect_violations(&[Rule::CredentialLeak]);
    let unsigned = location.split('?').next().unwrap();
    let reply = bench.http.get(unsigned).send().await.unwrap();
    assert_eq!(reply.status(), 403);
    assert!(reply.text().await.unwrap().contains("<Code>SignatureDoesNotMatch</Code>"));
    let leaks: Vec<bool> = bench.mock.storage_requests().iter().map(|request| request.token_leaked).collect();
    assert_eq!(leaks, [false, false, false, true, false]);
}

#[tokio::test]
async fn without_object_storage_a_direct_download_is_served() {
    let (bench, job) = with_archive(Config { direct_download: None, ..Config::default() }).await;
    assert_eq!(download(&bench, &job, job.token(), "direct_download=true").await.status(), 200);
}
