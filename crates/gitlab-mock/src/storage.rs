//! The object storage behind GitLab: signed links to archives, on a port of its own.

use http::StatusCode;
use serde::Serialize;

use crate::api::Call;
use crate::body::{self, Reply, with_header};
use crate::core::Core;
use crate::job::{JobRecord, StoredArtifact};
use crate::violation::Rule;

/// A request that reached the object storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StorageRequest {
    /// The job whose archive was asked for.
    pub job: Option<u64>,
    /// Whether a GitLab token was sent along, which concerns the storage nothing.
    pub token_leaked: bool,
    /// `Range` of the request.
    pub range: Option<String>,
    /// Status of the answer.
    pub status: u16,
}

/// The archive of a job.
pub(crate) fn archive_of(job: &JobRecord) -> Option<StoredArtifact> {
    job.read(|inner| {
        inner.artifacts.iter().find(|artifact| artifact.view.artifact_type == "archive").cloned()
    })
}

/// A link that opens the archive of one job to whoever has it.
pub(crate) fn signed_url(core: &Core, job: &JobRecord) -> String {
    format!(
        "{}/artifacts/{}/archive?X-Amz-Signature={:016x}",
        core.storage_url,
        job.id,
        signature(core, job.id)
    )
}

/// Serves `GET /artifacts/<job>/archive?X-Amz-Signature=...`.
pub(crate) fn serve(call: &Call<'_>) -> Reply {
    let core = call.core;
    let job_id = call
        .head
        .uri
        .path()
        .strip_prefix("/artifacts/")
        .and_then(|rest| rest.strip_suffix("/archive"))
        .and_then(|id| id.parse::<u64>().ok());
    let leaks = ["job-token", "runner-token", "private-token", "authorization"];
    let leaked: Vec<&str> = leaks.into_iter().filter(|name| call.header(name).is_some()).collect();
    if !leaked.is_empty() {
        core.violation(
            Rule::CredentialLeak,
            call.endpoint,
            job_id,
            None,
            format!("{} was sent to the object storage", leaked.join(", ")),
        );
    }
    let range = call.header("range").map(str::to_owned);
    let reply = answer(call, job_id, range.as_deref());
    core.record_storage_request(StorageRequest {
        job: job_id,
        token_leaked: !leaked.is_empty(),
        range,
        status: reply.status().as_u16(),
    });
    reply
}

fn answer(call: &Call<'_>, job_id: Option<u64>, range: Option<&str>) -> Reply {
    let core = call.core;
    let signed = job_id.map(|id| format!("{:016x}", signature(core, id)));
    if signed.is_none() || call.query("X-Amz-Signature") != signed {
        return error(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "The request signature does not match");
    }
    let Some(archive) = job_id.and_then(|id| core.job(id)).and_then(|job| archive_of(&job)) else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.");
    };
    let total = archive.data.len();
    let Some(range) = range else {
        let reply = body::bytes(StatusCode::OK, Some("application/octet-stream"), archive.data);
        return with_header(reply, "accept-ranges", "bytes");
    };
    let Some((first, last)) = parse_range(range, total) else {
        let reply = error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "The range is not satisfiable");
        return with_header(reply, "content-range", &format!("bytes */{total}"));
    };
    let part = archive.data.slice(first..=last);
    let reply = body::bytes(StatusCode::PARTIAL_CONTENT, Some("application/octet-stream"), part);
    with_header(reply, "content-range", &format!("bytes {first}-{last}/{total}"))
}

/// One range of the form `bytes=<first>-[<last>]`.
fn parse_range(range: &str, total: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { usize::MAX } else { last.parse().ok()? };
    (first < total && first <= last).then(|| (first, last.min(total - 1)))
}

/// Errors of object storages are XML.
fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    body::bytes(status, Some("application/xml"), document.into())
}

/// Ties a link to a job and to this mock; it keeps out the confused, not the malicious.
fn signature(core: &Core, job: u64) -> u64 {
    (core.storage_key ^ job).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ core.storage_key
}
