//! AWS, by moto's server: S3, STS and others on one port, with objects that stay until it ends. Its Python environment is made
//! by `cargo xtask needs`, or by the first test that needs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::machine::within;
use crate::ports::free_port;

/// Who asks is of no interest to moto, but that it is S3 that is asked.
const SOMEBODY: &str = "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A running server. It ends with this value.
pub struct Moto {
    server: Child,
    port: u16,
    folder: TempDir,
}

// === impl Moto ===

impl Moto {
    /// A server of its own, with nothing in it.
    ///
    /// # Panics
    /// When it cannot be installed, or does not start.
    pub async fn start() -> Self {
        let program = python_environment().join("bin/python");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).expect("the folder can be written to");
        let server = Command::new(program)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("moto's server starts");
        let moto = Self { server, port, folder };
        within("moto's server answers", async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        moto
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an object, or makes a bucket, by its path.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn put(&self, path: &str, data: &[u8]) {
        let url = format!("http://{}/{path}", self.address());
        let sent = reqwest::Client::new()
            .put(url)
            .header("authorization", SOMEBODY)
            .body(data.to_vec())
            .send()
            .await
            .expect("moto answers");
        assert!(sent.status().is_success(), "{path}: {}", sent.status());
    }

    /// An object by its path, if it is there.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Option<Vec<u8>> {
        let url = format!("http://{}/{path}", self.address());
        let asked = reqwest::Client::new().get(url).header("authorization", SOMEBODY).send().await;
        let answer = asked.expect("moto answers");
        let found = answer.status().is_success();
        let data = answer.bytes().await.expect("moto's answer is whole");
        found.then(|| data.to_vec())
    }

    /// The requests that it has answered, one a line: ``"PUT /bucket/key HTTP/1.1" 200``.
    #[must_use]
    pub fn requests(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // A server that has ended by itself is just as well.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The folder of the Python environment that has moto and boto3. `DROVER_PYTHON` names another one; else it is
/// `needs/python` below the target folder, made when it is not there.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn python_environment() -> PathBuf {
    if let Some(folder) = std::env::var_os("DROVER_PYTHON").filter(|folder| !folder.is_empty()) {
        return folder.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    let target = test.ancestors().nth(3).expect("a test is three folders deep");
    let folder = target.join("needs/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python.sh");
    let made = Command::new("sh").arg(script).arg(&folder).status().expect("a shell");
    assert!(made.success(), "the Python environment of the tests cannot be made in {}", folder.display());
    folder
}

/// What a program in the Python environment prints.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn python(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(python_environment().join("bin/python"))
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("Python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}
