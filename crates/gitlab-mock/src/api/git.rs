//! Git over smart HTTP, served by git's own `http-backend`.

use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin};

use super::Call;
use crate::body::{self, Reply, with_header};
use crate::core::Core;
use crate::job::JobRecord;
use crate::repository::git_command;
use crate::violation::{Rule, shorten};

/// Bytes that are read from the backend at once.
const CHUNK: usize = 64 << 10;

pub(crate) async fn serve(call: Call<'_>) -> Reply {
    let path = call.head.uri.path().to_owned();
    let Some((project, service)) = path.trim_start_matches('/').split_once(".git/") else {
        return body::text(StatusCode::NOT_FOUND, "not found\n");
    };
    let job = match authenticate(call.core, call.header("authorization")) {
        Ok(job) => job,
        Err(Refused::NoCredentials) => return challenge(),
        Err(Refused::Wrong(detail)) => {
            call.core.violation(
                Rule::WrongToken,
                call.endpoint,
                None,
                Some(StatusCode::UNAUTHORIZED),
                detail,
            );
            return challenge();
        }
        Err(Refused::Ended) => return challenge(),
    };
    let reads = match service {
        "info/refs" => call.query("service").as_deref() == Some("git-upload-pack"),
        "git-upload-pack" => true,
        _ => false,
    };
    if !reads {
        // A job token does not push, and large files are kept elsewhere.
        let status =
            if service.starts_with("info/lfs") { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN };
        return body::text(status, "You are not allowed to do that with a job token\n");
    }
    let Some(repository) = call.core.repository(project) else {
        let text =
            "The project you were looking for could not be found or you don't have permission to view it.\n";
        return body::text(StatusCode::NOT_FOUND, text);
    };
    job.update(|inner, now| {
        inner.heard_at = now;
        inner.calls.git_requests += 1;
    });
    let path_info = format!("/{}.git/{service}", repository.project());
    match run_backend(call, &path_info).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::error!(%error, "git http-backend failed");
            body::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

enum Refused {
    NoCredentials,
    /// The token was valid until the job ended.
    Ended,
    Wrong(String),
}

/// User `gitlab-ci-token` with the token of a job that is running.
fn authenticate(core: &Core, header: Option<&str>) -> Result<Arc<JobRecord>, Refused> {
    let Some(encoded) = header.and_then(|value| value.strip_prefix("Basic ")) else {
        return Err(Refused::NoCredentials);
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).unwrap_or_default();
    let decoded = String::from_utf8_lossy(&decoded);
    let (user, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
    if password.is_empty() {
        return Err(Refused::NoCredentials);
    }
    if user != "gitlab-ci-token" {
        return Err(Refused::Wrong(format!("git user is `{user}`, not `gitlab-ci-token`")));
    }
    let Some(job) = core.job_by_token(password) else {
        return Err(Refused::Wrong(format!("git password {} is no job token", shorten(password))));
    };
    if job.read(|inner| inner.state.is_processing()) { Ok(job) } else { Err(Refused::Ended) }
}

fn challenge() -> Reply {
    let reply = body::text(StatusCode::UNAUTHORIZED, "HTTP Basic: Access denied.\n");
    with_header(reply, "www-authenticate", "Basic realm=\"GitLab\"")
}

/// Runs the backend as a CGI program; both bodies are streamed.
async fn run_backend(call: Call<'_>, path_info: &str) -> Result<Reply, std::io::Error> {
    let mut command = git_command(&call.core.git_root);
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &call.core.git_root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path_info)
        .env("REQUEST_METHOD", call.head.method.as_str())
        .env("QUERY_STRING", call.head.uri.query().unwrap_or(""))
        .env("REMOTE_USER", "gitlab-ci-token")
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        // Jobs fetch commits by their id.
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_0", "true")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowFilter")
        .env("GIT_CONFIG_VALUE_1", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = call.header(header) {
            command.env(variable, value);
        }
    }
    let mut child = command.spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(std::io::Error::other("git http-backend has no pipes"));
    };
    tokio::spawn(feed(call.body, stdin));
    let mut stdout = BufReader::with_capacity(CHUNK, stdout);
    let (status, headers) = read_head(&mut stdout).await?;
    let mut reply = body::stream(status, chunks(stdout, child).boxed());
    reply.headers_mut().extend(headers);
    Ok(reply)
}

/// Passes the request body on. A backend that has heard enough closes its end.
async fn feed(mut body: Incoming, mut stdin: ChildStdin) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && stdin.write_all(&data).await.is_err()
        {
            break;
        }
    }
    let _ = stdin.shutdown().await;
}

/// Reads the CGI head: header lines up to an empty one; `Status` is the status.
async fn read_head<R>(stdout: &mut BufReader<R>) -> Result<(StatusCode, http::HeaderMap), std::io::Error>
where
    R: AsyncRead + Unpin,
{
    let (mut status, mut headers, mut line) = (StatusCode::OK, http::HeaderMap::new(), String::new());
    loop {
        line.clear();
        if stdout.read_line(&mut line).await? == 0 {
            return Err(std::io::Error::other("git http-backend ended before its head was complete"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or("");
            status = StatusCode::from_bytes(code.as_bytes()).map_err(std::io::Error::other)?;
        } else if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    Ok((status, headers))
}

/// The rest of the output; the child lives as long as its output is wanted.
fn chunks<R>(stdout: R, child: Child) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send
where
    R: AsyncRead + Unpin + Send,
{
    stream::try_unfold((stdout, child), |(mut stdout, mut child)| async move {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        if stdout.read_buf(&mut buffer).await? == 0 {
            child.wait().await?;
            return Ok(None);
        }
        Ok(Some((buffer.freeze(), (stdout, child))))
    })
}
