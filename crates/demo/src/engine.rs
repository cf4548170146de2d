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

// === impl Docker ===

impl Docker {
    /// The engine that `docker_host` (the variable `DOCKER_HOST`) names, or the usual one.
    ///
    /// # Errors
    /// [`DemoError::NoEngine`] if it does not answer.
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
        match tokio::time::timeout(PATIENCE, found.ping()).await {
            Ok(Ok(())) => Ok(found),
            Ok(Err(error)) => Err(found.silent(&error.to_string())),
            Err(_) => Err(found.silent("no answer")),
        }
    }

    async fn ping(&self) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        if answer.ends_with(b" 200") {
            return Ok(());
        }
        Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
    }

    fn silent(&self, why: &str) -> DemoError {
        DemoError::NoEngine { why: format!("`{}`: {why}", self.socket.display()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn found(answer: Option<&'static str>) -> Result<Docker, String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        if let Some(answer) = answer {
            let listener = UnixListener::bind(&socket).unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
        let host = format!("unix://{}", socket.display());
        Docker::find("alpine", Some(&host)).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_engine_that_answers_is_found() {
        assert_eq!(found(Some("HTTP/1.0 200 OK\r\n\r\nOK")).await.unwrap().image, "alpine");
    }

    #[tokio::test]
    async fn what_is_no_engine_is_named() {
        let nobody = found(None).await.unwrap_err();
        assert!(nobody.contains("engine.sock") && nobody.contains("No such file"), "{nobody}");
        let broken = found(Some("HTTP/1.0 500 no\r\n\r\n")).await.unwrap_err();
        assert!(broken.contains("HTTP/1.0 500"), "{broken}");
        let far = Docker::find("alpine", Some("tcp://10.0.0.1:2375")).await.unwrap_err().to_string();
        assert!(far.contains("tcp://10.0.0.1:2375"), "{far}");
    }
}
