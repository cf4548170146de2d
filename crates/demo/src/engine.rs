//! The engine that containers of the demonstration are made by.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::options::DemoError;

/// Where engines listen.
const SOCKET: &str = "/var/run/docker.sock";
/// An engine on the same machine answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Jobs run in containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Docker {
    /// The engine's socket, as each instance sees it.
    pub(crate) socket: PathBuf,
    /// Image of the containers.
    pub(crate) image: String,
}

/// What the engine answers.
struct Answer {
    good: bool,
    /// Its first line.
    status: String,
    body: String,
}

// === impl Answer ===

impl Answer {
    /// What went wrong: said in place of a result, or at the end of the news about a pull.
    fn complaint(&self) -> Option<String> {
        let said = self.body.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut words = said.filter_map(|news| {
            let word = |name: &str| news.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
            word("error").or_else(|| word("message"))
        });
        words.next_back()
    }
}

// === impl Docker ===

impl Docker {
    /// The engine that `docker_host` (the variable `DOCKER_HOST`) names, or the usual one.
    ///
    /// # Errors
    /// [`DemoError::NoEngine`] if it does not answer, [`DemoError::NoImage`] if it neither has the image nor gets it: one message
    /// now in place of one from each job.
    pub(crate) async fn find(image: &str, docker_host: Option<&str>) -> Result<Self, DemoError> {
        let socket = match docker_host.filter(|host| !host.is_empty()) {
            None => PathBuf::from(SOCKET),
            Some(host) => match host.strip_prefix("unix://") {
                Some(path) => PathBuf::from(path),
                None => {
                    let why = format!(
                        "DOCKER_HOST is `{host}`; the demo takes only an engine of this machine (`unix://...`)"
                    );
                    return Err(DemoError::NoEngine { why });
                }
            },
        };
        let found = Self { socket, image: image.to_owned() };
        match tokio::time::timeout(PATIENCE, found.call("GET", "/_ping")).await {
            Ok(Ok(answer)) if answer.good => {}
            Ok(Ok(answer)) => return Err(found.silent(&answer.status)),
            Ok(Err(error)) => return Err(found.silent(&error.to_string())),
            Err(_) => return Err(found.silent("no answer")),
        }
        found.get_image().await?;
        Ok(found)
    }

    async fn get_image(&self) -> Result<(), DemoError> {
        let failed = |why: String| DemoError::NoImage { image: self.image.clone(), why };
        let call = async |method, path: String| {
            self.call(method, &path).await.map_err(|error| failed(error.to_string()))
        };
        if call("GET", format!("/images/{}/json", self.image)).await?.good {
            return Ok(());
        }
        // Without a tag, an engine would fetch all of them. What comes after a slash may be a port's colon.
        let named = self.image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let tag = if named { "" } else { "&tag=latest" };
        let pulled = call("POST", format!("/images/create?fromImage={}{tag}", self.image)).await?;
        match pulled.complaint() {
            None if pulled.good => Ok(()),
            None => Err(failed(pulled.status)),
            Some(complaint) => Err(failed(complaint)),
        }
    }

    /// Makes one call, whose answer is read to its end.
    async fn call(&self, method: &str, path: &str) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes()).await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        let text = String::from_utf8_lossy(&text);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.lines().next().unwrap_or_default().to_owned();
        let good = status.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
        Ok(Answer { good, status, body: body.to_owned() })
    }

    fn silent(&self, why: &str) -> DemoError {
        DemoError::NoEngine { why: format!("`{}`: {why}", self.socket.display()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const GOOD: &str = "HTTP/1.0 200 OK\r\n\r\nOK";

    /// Looks for an engine that gives these answers, one to each call.
    async fn found<const N: usize>(answers: [&'static str; N]) -> Result<Docker, String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        if N > 0 {
            let listener = UnixListener::bind(&socket).unwrap();
            tokio::spawn(async move {
                for answer in answers {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = [0; 256];
                    assert!(stream.read(&mut request).await.unwrap() > 0);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
        let host = format!("unix://{}", socket.display());
        Docker::find("alpine", Some(&host)).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_engine_that_answers_is_found() {
        assert_eq!(found([GOOD, GOOD]).await.unwrap().image, "alpine");
    }

    #[tokio::test]
    async fn an_image_that_is_not_there_is_pulled() {
        let missing = "HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"No such image: alpine\"}";
        let pulled =
            "HTTP/1.0 200 OK\r\n\r\n{\"status\":\"Pulling\"}\r\n{\"status\":\"Status: Downloaded\"}\r\n";
        assert_eq!(found([GOOD, missing, pulled]).await.unwrap().image, "alpine");
        for (pull, why) in [
            ("HTTP/1.0 500 no\r\n\r\n{\"message\":\"dial tcp: no such host\"}", "dial tcp: no such host"),
            (
                "HTTP/1.0 200 OK\r\n\r\n{\"status\":\"Pulling\"}\r\n{\"error\":\"no space left\"}\r\n",
                "no space left",
            ),
            ("HTTP/1.0 502 Bad Gateway\r\n\r\n", "HTTP/1.0 502"),
        ] {
            let error = found([GOOD, missing, pull]).await.unwrap_err();
            assert!(error.contains("`alpine`") && error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_engine_is_named() {
        let nobody = found([]).await.unwrap_err();
        assert!(nobody.contains("engine.sock") && nobody.contains("No such file"), "{nobody}");
        let broken = found(["HTTP/1.0 500 no\r\n\r\n"]).await.unwrap_err();
        assert!(broken.contains("HTTP/1.0 500"), "{broken}");
        let far = Docker::find("alpine", Some("tcp://10.0.0.1:2375")).await.unwrap_err().to_string();
        assert!(far.contains("tcp://10.0.0.1:2375"), "{far}");
    }
}
