//! Uploads and downloads against scripted servers.

use crate::peer::{Peer, job, options, reply};
use bytes::Bytes;
use drover_gitlab_api::{
    ArtifactBody, ArtifactUpload, Client, Download, DownloadError, Timeouts, UploadError, Uploaded,
};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::test]
async fn an_upload_is_one_multipart_file() {
    let peer = Peer::start([reply(201, &[("x-request-id", "corr")], "{}")]).await;
    let uploaded = upload(&peer.client(), &mut pieces).await.unwrap();
    assert_eq!(uploaded, Uploaded { tries: 1, correlation_id: "corr".into() });
    let [seen] = peer.seen().try_into().unwrap();
    assert_eq!(
        seen.line,
        "POST /api/v4/jobs/42/artifacts?artifact_format=zip&artifact_type=archive&expire_in=1+week"
    );
    assert_eq!(seen.headers["job-token"], "glcbt-job");
    assert_eq!(seen.headers["transfer-encoding"], "chunked");
    assert_eq!(file(&seen.headers, seen.body).await, ("file".into(), "a\"b.zip".into(), b"one two".to_vec()));
}

#[tokio::test]
async fn a_known_length_is_sent() {
    let peer = Peer::start([reply(201, &[], "{}")]).await;
    let mut body = || ArtifactBody::from_bytes(Bytes::from_static(b"content"));
    upload(&peer.client(), &mut body).await.unwrap();
    let [seen] = peer.seen().try_into().unwrap();
    assert_eq!(seen.headers["content-length"], seen.body.len().to_string());
    assert!(!seen.headers.contains_key("transfer-encoding"));
    assert_eq!(file(&seen.headers, seen.body).await.2, b"content");
}

#[tokio::test]
async fn the_body_is_made_anew_for_every_attempt_of_every_try() {
    // 502 is repeated by the retry layer, 400 by the uploader.
    let peer =
        Peer::start([reply(502, &[], ""), reply(400, &[], ""), reply(400, &[], ""), reply(201, &[], "")])
            .await;
    let mut made = 0;
    let uploaded = upload(&peer.client(), &mut || {
        made += 1;
        pieces()
    })
    .await
    .unwrap();
    assert_eq!((uploaded.tries, made), (3, 4));
    for seen in peer.seen() {
        assert_eq!(file(&seen.headers, seen.body).await.2, b"one two");
    }
}

#[tokio::test]
async fn other_failures_end_after_three_tries() {
    let peer = Peer::start(
        (0..9).map(|_| reply(400, &[("content-type", "application/json")], r#"{"message":"why"}"#)),
    )
    .await;
    let error = upload(&peer.client(), &mut pieces).await.unwrap_err();
    assert!(matches!(error, UploadError::Failed(_)));
    assert!(error.to_string().ends_with("400 Bad Request (why)"), "{error}");
    assert_eq!(peer.seen().len(), 3);
}

#[tokio::test]
async fn an_unavailable_gitlab_gets_six_tries_of_five_attempts() {
    let peer = Peer::start((0..40).map(|_| reply(503, &[], ""))).await;
    let error = upload(&peer.client(), &mut pieces).await.unwrap_err();
    assert!(matches!(error, UploadError::Unavailable(_)));
    assert_eq!(peer.seen().len(), 30);
}

#[tokio::test]
async fn refusals_are_final() {
    let peer = Peer::start([reply(403, &[], ""), reply(413, &[], "")]).await;
    let client = peer.client();
    assert!(matches!(upload(&client, &mut pieces).await, Err(UploadError::Forbidden(_))));
    assert!(matches!(upload(&client, &mut pieces).await, Err(UploadError::TooLarge(_))));
    assert_eq!(peer.seen().len(), 2);
}

#[tokio::test]
async fn an_upload_moves_to_the_host_that_gitlab_names() {
    let new = Peer::start([reply(201, &[], "{}")]).await;
    let location = format!("http://{}/ignored/path", new.address);
    let old = Peer::start([reply(307, &[("location", &location)], "")]).await;
    let uploaded = upload(&old.client(), &mut pieces).await.unwrap();
    assert_eq!(uploaded.tries, 2);
    let [seen] = new.seen().try_into().unwrap();
    assert!(seen.line.starts_with("POST /api/v4/jobs/42/artifacts?"));
    assert_eq!(file(&seen.headers, seen.body).await.2, b"one two");
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_a_failure() {
    let peer = Peer::start([reply(307, &[], "")]).await;
    assert!(matches!(upload(&peer.client(), &mut pieces).await, Err(UploadError::Failed(_))));
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let peer = Peer::start((0..20).map(|_| reply(307, &[("location", "/")], ""))).await;
    assert!(matches!(upload(&peer.client(), &mut pieces).await, Err(UploadError::Failed(_))));
    assert_eq!(peer.seen().len(), 6);
}

#[tokio::test]
async fn content_that_breaks_off_is_tried_again() {
    let peer = Peer::start([reply(201, &[], "")]).await;
    let mut made = 0;
    let uploaded = upload(&peer.client(), &mut || {
        made += 1;
        if made > 1 {
            return pieces();
        }
        let broken = [Ok(Bytes::from_static(b"one")), Err(std::io::Error::other("disk"))];
        ArtifactBody { bytes: stream::iter(broken).boxed(), length: None }
    })
    .await
    .unwrap();
    assert_eq!(uploaded.tries, 2);
}

#[tokio::test]
async fn a_direct_download_never_shows_the_token_to_the_storage() {
    let storage = Peer::start([reply(200, &[], "zip bytes")]).await;
    let location = format!("http://{}/bucket/a.zip?signature=s", storage.address);
    let gitlab = Peer::start([reply(302, &[("location", &location)], "")]).await;
    let download = gitlab.client().download_artifact(&job(), true).await.unwrap();
    assert_eq!(download.storage_host.as_deref(), Some("127.0.0.1"));
    assert_eq!(all(download).await, "zip bytes");
    let [seen] = gitlab.seen().try_into().unwrap();
    assert_eq!(seen.line, "GET /api/v4/jobs/42/artifacts?direct_download=true");
    assert_eq!(seen.headers["job-token"], "glcbt-job");
    let [seen] = storage.seen().try_into().unwrap();
    assert_eq!(seen.line, "GET /bucket/a.zip?signature=s");
    assert!(!seen.headers.contains_key("job-token"));
}

#[tokio::test]
async fn a_redirect_within_gitlab_keeps_the_token() {
    let peer = Peer::start([reply(307, &[("location", "/moved")], ""), reply(200, &[], "x")]).await;
    let download = peer.client().download_artifact(&job(), false).await.unwrap();
    assert_eq!((download.storage_host.clone(), download.content_length()), (None, Some(1)));
    assert_eq!(all(download).await, "x");
    assert_eq!(peer.lines(), ["GET /api/v4/jobs/42/artifacts", "GET /moved"]);
    assert_eq!(peer.seen()[1].headers["job-token"], "glcbt-job");
}

#[tokio::test]
async fn downloads_follow_the_table() {
    let xml = "<Error><Code>AccessDenied</Code><Message>expired</Message></Error>";
    let peer = Peer::start([
        reply(401, &[], ""),
        reply(403, &[("content-type", "application/xml")], xml),
        reply(404, &[], ""),
        reply(400, &[], ""),
    ])
    .await;
    let client = peer.client();
    let mut errors = Vec::new();
    for _ in 0..4 {
        errors.push(client.download_artifact(&job(), false).await.unwrap_err());
    }
    assert!(matches!(errors[0], DownloadError::Unauthorized(_)));
    assert!(
        matches!(&errors[1], DownloadError::Forbidden(e) if e.to_string().ends_with("(AccessDenied: expired)"))
    );
    assert!(matches!(errors[2], DownloadError::NotFound(_)));
    assert!(matches!(errors[3], DownloadError::Failed(_)));
}

#[tokio::test]
async fn a_circle_of_downloads_ends() {
    let peer = Peer::start((0..20).map(|_| reply(302, &[("location", "/again?secret=s")], ""))).await;
    let error = peer.client().download_artifact(&job(), false).await.unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(peer.seen().len(), 11);
}

#[tokio::test]
async fn a_download_that_breaks_off_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    });
    let client = Client::new(options(url)).unwrap();
    let mut download = client.download_artifact(&job(), false).await.unwrap();
    let mut last = download.chunk().await;
    while matches!(last, Ok(Some(_))) {
        last = download.chunk().await;
    }
    assert!(last.is_err());
}

async fn upload(
    client: &Client,
    body: &mut (dyn FnMut() -> ArtifactBody + Send),
) -> Result<Uploaded, UploadError> {
    let upload = ArtifactUpload {
        file_name: "a\"b.zip".into(),
        expire_in: "1 week".into(),
        format: "zip".into(),
        kind: "archive".into(),
    };
    client.upload_artifact(&job(), &upload, Timeouts::default(), body).await
}

fn pieces() -> ArtifactBody {
    let pieces = [Ok(Bytes::from_static(b"one ")), Ok(Bytes::from_static(b"two"))];
    ArtifactBody { bytes: stream::iter(pieces).boxed(), length: None }
}

/// Part name, file name and content of the only part, read by an independent parser.
async fn file(headers: &http::HeaderMap, body: Bytes) -> (String, String, Vec<u8>) {
    use axum::extract::{FromRequest as _, Multipart};
    let request = http::Request::builder()
        .method("POST")
        .header("content-type", &headers["content-type"])
        .body(axum::body::Body::from(body))
        .unwrap();
    let mut parts = Multipart::from_request(request, &()).await.unwrap();
    let part = parts.next_field().await.unwrap().unwrap();
    let (name, file) = (part.name().unwrap().to_owned(), part.file_name().unwrap().to_owned());
    let content = part.bytes().await.unwrap().to_vec();
    assert!(parts.next_field().await.unwrap().is_none());
    (name, file, content)
}

async fn all(mut download: Download) -> String {
    let mut content = Vec::new();
    while let Some(chunk) = download.chunk().await.unwrap() {
        content.extend_from_slice(&chunk);
    }
    String::from_utf8(content).unwrap()
}
