//! Upload and download of artifacts.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http_body_util::BodyDataStream;

use super::Call;
use super::jobs::{authenticate, find, running};
use crate::body::{self, Reply, refusal, text, with_header};
use crate::endpoint::Endpoint;
use crate::job::{ArtifactView, Inner, JobRecord, StoredArtifact};
use crate::storage;
use crate::violation::{Rule, shorten};

/// Artifact types and the formats that GitLab takes for them.
const TYPES: &[(&str, &[&str])] = &[
    ("archive", &["zip", "zipzstd", "tarzstd"]),
    ("metadata", &["gzip"]),
    ("trace", &["raw"]),
    ("junit", &["gzip"]),
    ("metrics", &["gzip"]),
    ("metrics_referee", &["gzip"]),
    ("network_referee", &["gzip"]),
    ("dotenv", &["gzip"]),
    ("cobertura", &["gzip"]),
    ("coverage_report", &["gzip"]),
    ("jacoco", &["gzip"]),
    ("cluster_applications", &["gzip"]),
    ("lsif", &["zip"]),
    ("annotations", &["gzip"]),
    ("repository_xray", &["gzip"]),
    ("codequality", &["raw", "gzip"]),
    ("sast", &["raw", "gzip"]),
    ("secret_detection", &["raw", "gzip"]),
    ("dependency_scanning", &["raw", "gzip"]),
    ("container_scanning", &["raw", "gzip"]),
    ("cluster_image_scanning", &["raw", "gzip"]),
    ("dast", &["raw", "gzip"]),
    ("api_fuzzing", &["raw", "gzip"]),
    ("coverage_fuzzing", &["raw", "gzip"]),
    ("license_scanning", &["raw", "gzip"]),
    ("performance", &["raw", "gzip"]),
    ("browser_performance", &["raw", "gzip"]),
    ("load_performance", &["raw", "gzip"]),
    ("terraform", &["raw", "gzip"]),
    ("accessibility", &["raw", "gzip"]),
    ("requirements", &["raw", "gzip"]),
    ("requirements_v2", &["raw", "gzip"]),
    ("cyclonedx", &["gzip"]),
    ("sbom", &["gzip"]),
    ("scip", &["gzip"]),
];

/// `POST jobs/{id}/artifacts`.
pub(crate) async fn upload(call: Call<'_>) -> Reply {
    call.check_common_headers();
    uploaded(call).await.unwrap_or_else(|reply| reply)
}

async fn uploaded(mut call: Call<'_>) -> Result<Reply, Reply> {
    let core = Arc::clone(call.core);
    if !core.config().artifacts_enabled {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, ""));
    }
    let job = find(&core, Endpoint::UploadArtifact, call.id)?;
    authenticate(&core, Endpoint::UploadArtifact, &job, call.header("job-token").unwrap_or(""))?;
    running(&core, Endpoint::UploadArtifact, &job, false)?;
    let view = described(&call)?;
    let Some(boundary) = call.header("content-type").and_then(|kind| multer::parse_boundary(kind).ok())
    else {
        let detail = "the body is not `multipart/form-data` with a boundary";
        return Err(call.refuse(StatusCode::BAD_REQUEST, Rule::MalformedBody, detail));
    };
    let (filename, data) = read_file(&mut call, boundary).await?;
    check_magic(&call, &view.artifact_format, &data);
    let view = ArtifactView { filename, size: data.len() as u64, ..view };
    let artifact = StoredArtifact { view, data };
    // The job may have ended while the file came in.
    running(&core, Endpoint::UploadArtifact, &job, false)?;
    if job.update(|inner, now| store(inner, now, artifact)) {
        Ok(text(StatusCode::CREATED, "201"))
    } else {
        let detail = "another artifact of the same type already exists";
        Err(call.refuse(StatusCode::BAD_REQUEST, Rule::BadArtifact, detail))
    }
}

/// Reads type, format and expiry from the query.
fn described(call: &Call<'_>) -> Result<ArtifactView, Reply> {
    let refuse = |detail: String| call.refuse(StatusCode::BAD_REQUEST, Rule::BadArtifact, &detail);
    let known = ["expire_in", "artifact_format", "artifact_type", "accessibility"];
    for (name, _) in url::form_urlencoded::parse(call.head.uri.query().unwrap_or("").as_bytes()) {
        if !known.contains(&&*name) {
            call.note(Rule::UnknownField, &format!("GitLab does not know the query parameter `{name}`"));
        }
    }
    let artifact_type = call.query("artifact_type").unwrap_or_else(|| "archive".to_owned());
    let artifact_format = call.query("artifact_format").unwrap_or_else(|| "zip".to_owned());
    let Some((_, formats)) = TYPES.iter().find(|(name, _)| *name == artifact_type) else {
        return Err(refuse(format!("artifact_type does not have a valid value: `{artifact_type}`")));
    };
    if !formats.contains(&artifact_format.as_str()) {
        return Err(refuse(format!("format `{artifact_format}` is not allowed for type `{artifact_type}`")));
    }
    let expire_in = call.query("expire_in");
    Ok(ArtifactView { artifact_type, artifact_format, filename: String::new(), expire_in, size: 0 })
}

/// The part `file` of the body.
async fn read_file(call: &mut Call<'_>, boundary: String) -> Result<(String, Bytes), Reply> {
    let limit = call.core.config().max_artifact_bytes;
    let core = Arc::clone(call.core);
    let id = call.id;
    let refuse = |detail: &str| {
        let status = StatusCode::BAD_REQUEST;
        core.violation(Rule::MalformedBody, Endpoint::UploadArtifact, id, Some(status), detail);
        refusal(status, detail)
    };
    let stream = BodyDataStream::new(&mut call.body);
    let mut form = multer::Multipart::new(stream.map_err(std::io::Error::other), boundary);
    let mut file = None;
    loop {
        let mut field = match form.next_field().await {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(error) => return Err(refuse(&format!("the multipart body is broken: {error}"))),
        };
        if field.name() != Some("file") || file.is_some() {
            return Err(refuse(&format!("unexpected part {:?}", field.name())));
        }
        let Some(filename) = field.file_name().map(str::to_owned).filter(|name| !name.is_empty()) else {
            return Err(refuse("part `file` has no file name"));
        };
        let mut data = BytesMut::new();
        loop {
            match field.chunk().await {
                Ok(Some(chunk)) => data.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(refuse(&format!("the multipart body is broken: {error}"))),
            }
            if data.len() as u64 > limit {
                return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "File is too large"));
            }
        }
        file = Some((filename, data.freeze()));
    }
    file.ok_or_else(|| refuse("file is missing"))
}

/// What a file begins with, by format.
fn check_magic(call: &Call<'_>, format: &str, data: &[u8]) {
    let magic: &[u8] = match format {
        "zip" | "zipzstd" => b"PK",
        "gzip" => b"\x1f\x8b",
        "tarzstd" => b"\x28\xb5\x2f\xfd",
        _ => b"",
    };
    if !data.starts_with(magic) {
        call.note(Rule::BadArtifact, &format!("the file does not begin as a {format} file does"));
    }
}

/// Stores an artifact. The same one again is no error; another one of its type is.
fn store(inner: &mut Inner, now: std::time::Duration, artifact: StoredArtifact) -> bool {
    inner.heard_at = now;
    let kind = &artifact.view.artifact_type;
    if let Some(existing) = inner.artifacts.iter().find(|other| other.view.artifact_type == *kind) {
        return existing.data == artifact.data;
    }
    inner.calls.uploads += 1;
    inner.artifacts.push(artifact);
    true
}

/// `GET jobs/{id}/artifacts`, with the token of that job or of a running job that needs it.
pub(crate) fn download(call: &Call<'_>) -> Reply {
    call.check_common_headers();
    downloaded(call).unwrap_or_else(|reply| reply)
}

fn downloaded(call: &Call<'_>) -> Result<Reply, Reply> {
    let core = call.core;
    let Some(token) = call.header("job-token").filter(|token| !token.is_empty()) else {
        return Err(call.refuse(StatusCode::UNAUTHORIZED, Rule::MissingHeader, "no `JOB-TOKEN`"));
    };
    let job = find(core, Endpoint::DownloadArtifact, call.id)?;
    let is_dependent = |other: &JobRecord| {
        other.spec.dependencies.contains(&job.id) && other.read(|inner| inner.state.is_processing())
    };
    if token != job.token && !core.job_by_token(token).is_some_and(|other| is_dependent(&other)) {
        let detail = format!("token {} may not read the artifacts of this job", shorten(token));
        return Err(call.refuse(StatusCode::FORBIDDEN, Rule::WrongToken, &detail));
    }
    let Some(archive) = storage::archive_of(&job) else {
        return Err(refusal(StatusCode::NOT_FOUND, "Artifact not found"));
    };
    job.update(|inner, _| inner.calls.downloads += 1);
    let direct = call.query("direct_download").as_deref() == Some("true");
    if let Some(status) = core.direct_download().filter(|_| direct) {
        return Ok(with_header(body::empty(status), "location", &storage::signed_url(core, &job)));
    }
    let reply = body::bytes(StatusCode::OK, Some("application/octet-stream"), archive.data);
    let disposition = format!("attachment; filename=\"{}\"", archive.view.filename);
    Ok(with_header(reply, "content-disposition", &disposition))
}
