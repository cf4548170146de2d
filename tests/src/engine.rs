//! A real Docker engine of the test process's own, and what tests look at in it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::Entry;
use crate::program::bin;

/// An engine that runs already: its socket. Saves the start when tests are run again and again.
const RUNNING: &str = "DROVER_TEST_ENGINE";
/// Time for an engine to come up.
const START: Duration = Duration::from_secs(120);

/// Starts the engine (further arguments are the engine's own), and ends it with everything in it when the test process ends,
/// however that happens: the pipe to this script closes then. The bridge is its own, because engines that share one take it from
/// each other. The runtime `lenient` is runc without the capability that root of a virtual machine may lack: there, privileged
/// containers do not start otherwise.
const KEEPER: &str = r#"
set -eu
folder=$1 net=$2 name=$3
shift 3
# Another engine may have the network: that of a test process that has just ended, or of one beside this.
while ip -4 -oneline address show | grep -q "inet 10\.$net\."; do net=$((128 + (net - 127) % 120)); done
ip link add "$name" type bridge
ip addr add "10.$net.0.1/20" dev "$name"
ip link set "$name" up
cat >"$folder/lenient" <<'RUNTIME'
#!/bin/sh
previous=
for word in "$@"; do
    case $previous in
    --bundle) sed -i 's/"CAP_SYS_RESOURCE",//g' "$word/config.json" ;;
    --process) sed -i 's/"CAP_SYS_RESOURCE",//g' "$word" ;;
    esac
    previous=$word
done
exec runc "$@"
RUNTIME
chmod 0755 "$folder/lenient"
dockerd -H "unix://$folder/engine.sock" --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
    --bridge "$name" --default-address-pool "base=10.$net.64.0/18,size=27" \
    --add-runtime "lenient=$folder/lenient" "$@" >"$folder/log" 2>&1 </dev/null &
engine=$!
read -r _ || :
kill "$engine" 2>/dev/null || :
wait "$engine" || :
ip link delete "$name" || :
umount "$folder/exec/netns/default" 2>/dev/null || :
rm -rf "$folder"
"#;

/// A Docker engine with the images `box` (a busybox with a shell and little else) and the helper's archive at hand.
pub struct Engine {
    socket: PathBuf,
    archive: PathBuf,
    _keeper: Option<Child>,
}

/// A socket that leads to an engine and counts the calls that go through it.
pub struct Counted {
    socket: PathBuf,
    calls: Arc<AtomicU64>,
    starts: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

// === impl Engine ===

impl Engine {
    /// The engine of this test process.
    pub fn shared() -> &'static Self {
        // One that does not start is not tried again: the first test that needs it says why, and the others fail at once.
        static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::start);
        &ENGINE
    }

    fn start() -> Self {
        let archive = helper_archive();
        let engine = match std::env::var_os(RUNNING) {
            Some(socket) => Self { socket: socket.into(), archive, _keeper: None },
            None => Self::launch(archive, 0, &[]),
        };
        engine.comes_up();
        if !engine.try_docker(&["image", "inspect", "drover-helper:0.1.0"]) {
            let archive = engine.archive.display().to_string();
            engine.docker(&["import", &archive, "drover-helper:0.1.0"]);
        }
        engine
    }

    /// One more engine, which has no helper image. `number` tells those of one process apart; `arguments` are the engine's own.
    #[must_use]
    pub fn another(number: u32, arguments: &[&str]) -> Self {
        let engine = Self::launch(helper_archive(), number, arguments);
        engine.comes_up();
        engine
    }

    fn comes_up(&self) {
        let end = Instant::now() + START;
        while !self.try_docker(&["version"]) {
            assert!(
                Instant::now() < end,
                "the engine does not come up: see the log beside {}",
                self.socket.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        if !self.try_docker(&["image", "inspect", "box:1"]) {
            self.import(&[], "box:1");
        }
    }

    fn launch(archive: PathBuf, number: u32, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let id = std::process::id() + number * 61;
        let net = (128 + id % 120).to_string();
        let keeper = Command::new("sh")
            .args([
                "-c",
                KEEPER,
                "engine",
                &folder.display().to_string(),
                &net,
                &format!("drv{}x{number}", std::process::id()),
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("tests need sh");
        Self { socket: folder.join("engine.sock"), archive, _keeper: Some(keeper) }
    }

    /// Its address.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file system of the helper image.
    #[must_use]
    pub fn helper_archive(&self) -> &Path {
        &self.archive
    }

    /// A runner entry whose jobs run here, in the image `box:1`.
    #[must_use]
    pub fn entry(&self, name: &str) -> Entry {
        Entry::plain(name)
            .set("token", Self::token())
            .set("executor", "docker")
            .set("builds_dir", "/builds")
            .set("docker.host", self.host())
            .set("docker.image", "box:1")
            .set("docker.pull_policy", "if-not-present")
            .set("docker.helper_image_archive", self.archive.display().to_string())
    }

    /// A token whose short form is no other's, so that what jobs of one test have is told apart from what others have: job ids
    /// are the same in every test.
    #[must_use]
    pub fn token() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed));
        format!("glrt-{process:05}{number:03}x0123456789abcdef")
    }

    /// Makes an image of a busybox with these changes (`ENTRYPOINT [...]`, `USER ...`).
    pub fn import(&self, changes: &[&str], name: &str) {
        self.import_for("", changes, name);
    }

    /// The same as an image for another platform; it is not.
    pub fn import_for(&self, platform: &str, changes: &[&str], name: &str) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path();
        let script = "mkdir -p bin etc tmp root home && chmod 1777 tmp && cp \"$(command -v busybox)\" bin/busybox && \
                      for n in $(bin/busybox --list); do [ $n = busybox ] || ln -s busybox bin/$n; done && \
                      printf 'root:x:0:0::/root:/bin/sh\\nuser:x:1000:1000::/home:/bin/sh\\n' >etc/passwd && \
                      printf 'root:x:0:\\nuser:x:1000:\\n' >etc/group && \
                      printf '#!/bin/sh\\nexport FROM_ENTRYPOINT=yes\\nexec \"$@\"\\n' >bin/entry && chmod +x bin/entry && \
                      tar --owner=0 --group=0 -cf image.tar bin etc tmp root home";
        let made = Command::new("sh").args(["-ec", script]).current_dir(root).status();
        assert!(
            made.expect("tests need sh").success(),
            "tests need busybox (Debian: apt-get install busybox-static)"
        );
        let archive = root.join("image.tar").display().to_string();
        let mut args = vec!["import"];
        if !platform.is_empty() {
            args.extend(["--platform", platform]);
        }
        args.extend(changes.iter().flat_map(|change| ["--change", change]));
        args.extend([archive.as_str(), name]);
        self.docker(&args);
    }

    /// Runs the engine's own client; what it says.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        let output =
            self.client(args).output().expect("tests need docker (Debian: apt-get install docker.io)");
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same where it may fail.
    #[must_use]
    pub fn try_docker(&self, args: &[&str]) -> bool {
        self.client(args).output().is_ok_and(|output| output.status.success())
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(self.host()).args(args).stdin(Stdio::null());
        command
    }

    /// What the engine says of a container, volume or network.
    ///
    /// # Panics
    /// When it does not know it.
    #[must_use]
    #[track_caller]
    pub fn inspect(&self, kind: &str, name: &str) -> serde_json::Value {
        let said = self.docker(&[kind, "inspect", name]);
        let mut found: Vec<serde_json::Value> = serde_json::from_str(&said).expect("the client speaks JSON");
        found.swap_remove(0)
    }

    /// What a job of the runner with this token has on the engine: containers, temporary volumes, networks, each by name.
    #[must_use]
    pub fn belongings(&self, token: &str, job: u64) -> Vec<String> {
        let filter = format!("label=com.gitlab.gitlab-runner.job.id={job}");
        let short = token.trim_start_matches("glrt-").get(..9).unwrap_or_default();
        let runner = format!("label=com.gitlab.gitlab-runner.runner.id={short}");
        let lists: [&[&str]; 3] = [
            &["ps", "-a", "--format", "{{.Names}}", "--filter", &filter, "--filter", &runner],
            &[
                "volume",
                "ls",
                "--format",
                "{{.Name}}",
                "--filter",
                &filter,
                "--filter",
                &runner,
                "--filter",
                "label=com.gitlab.gitlab-runner.reusable=false",
            ],
            &["network", "ls", "--format", "{{.Name}}", "--filter", &filter, "--filter", &runner],
        ];
        lists
            .iter()
            .flat_map(|args| self.docker(args).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

// === impl Counted ===

impl Counted {
    /// A way to the engine that counts.
    ///
    /// # Panics
    /// When there is no socket to listen on.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("counted.sock");
        let listener = UnixListener::bind(&socket).expect("the folder can be written to");
        let (calls, starts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&calls), Arc::clone(&starts));
        let target = engine.socket.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target.clone(), counters.clone()));
            }
        });
        Self { socket, calls, starts, _folder: folder }
    }

    /// Its address.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Calls so far, and how many of them started a container.
    #[must_use]
    pub fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::SeqCst), self.starts.load(Ordering::SeqCst))
    }
}

async fn forward(client: UnixStream, target: PathBuf, counters: (Arc<AtomicU64>, Arc<AtomicU64>)) {
    let Ok(engine) = UnixStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let back = tokio::spawn(async move {
        // A connection that ends is an end in this direction, too.
        let _ = tokio::io::copy(&mut from_engine, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
        // Requests are written in one piece, and scripts do not look like one.
        let piece = &buffer[..read];
        for line in piece.split(|byte| *byte == b'\n').filter(|line| line.ends_with(b" HTTP/1.1\r")) {
            counters.0.fetch_add(1, Ordering::SeqCst);
            let line = String::from_utf8_lossy(line);
            if line.contains("/containers/") && line.contains("/start ") {
                counters.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        if to_engine.write_all(piece).await.is_err() {
            break;
        }
    }
    let _ = to_engine.shutdown().await;
    let _ = back.await;
}

/// Builds the file system of the helper image once for all test processes.
fn helper_archive() -> PathBuf {
    let helper = bin("drover-helper");
    let archive = helper.with_file_name("drover-helper-image.tar");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/helper-image/build.sh");
    let time = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let parts = [helper.as_path(), Path::new(script)];
    if time(&archive).is_none_or(|built| parts.iter().any(|part| time(part).is_some_and(|time| time > built)))
    {
        let done = Command::new("sh").arg(script).args([&helper, &archive]).output().expect("tests need sh");
        // What is missing is for the test to say.
        let _ = std::io::stderr().write_all(&done.stderr);
        assert!(done.status.success(), "the helper image was not built");
    }
    archive
}
