//! The life of one instance, as its group sees it: one task from the request until nothing is left.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fleeting::{InstanceId, InstanceState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::group::{KeeperCount, Shared};
use crate::protocol::{Parameters, Ready};
use crate::{processes, tree};

/// From the start of the process until it must take connections.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// From the order to end until the process is killed. Longer than the grace that it gives to commands.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of what a failing process says is kept.
const LAST_WORDS: usize = 2000;

/// What can be asked of a keeper.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    pub(crate) delete: CancellationToken,
    pub(crate) kill: Arc<Notify>,
}

/// How the time of an instance ended.
enum End {
    /// Deleted on request, or the group is closed.
    Ordered,
    /// The process ended by itself or was killed by somebody.
    Died(String),
    /// It never came to life; it stays listed until it is deleted.
    Failed(String),
}

struct Process {
    child: Child,
    /// Open for as long as the instance shall live.
    stdin: ChildStdin,
    pid: Pid,
}

pub(crate) async fn keep(
    shared: Arc<Shared>,
    id: InstanceId,
    number: u64,
    orders: Orders,
    _counted: KeeperCount,
) {
    let Some(prepared) = shared.prepared() else { return };
    let dir = prepared.work_dir.join(id.as_str());
    let mut process = None;
    let end = tokio::select! {
        () = orders.delete.cancelled() => End::Ordered,
        () = shared.closing.cancelled() => End::Ordered,
        end = live(&shared, &id, number, &dir, &orders, &mut process) => end,
    };
    let fate = match end {
        End::Ordered => Some("deleted on request".to_owned()),
        End::Died(fate) => {
            info!(instance = %id, "{fate}");
            // At once, so that nobody counts on it; what it leaves is cleaned up afterwards.
            shared.gone(&id, fate);
            None
        }
        End::Failed(why) => {
            warn!(instance = %id, "instance failed to start: {why}");
            clean_up(process.take(), &id, &dir).await;
            shared.set_state(&id, InstanceState::Timeout, None);
            tokio::select! {
                () = orders.delete.cancelled() => {}
                () = shared.closing.cancelled() => {}
            }
            Some(why)
        }
    };
    clean_up(process, &id, &dir).await;
    if prepared.temporary && shared.closing.is_cancelled() {
        let _ = std::fs::remove_dir(&prepared.work_dir);
    }
    if let Some(fate) = fate {
        shared.gone(&id, fate);
    }
    debug!(instance = %id, "nothing is left of the instance");
}

/// Boots the instance and watches it. May be dropped at any time; what it has started is in `process` then.
async fn live(
    shared: &Shared,
    id: &InstanceId,
    number: u64,
    dir: &Path,
    orders: &Orders,
    process: &mut Option<Process>,
) -> End {
    let config = &shared.config;
    // Drawn in this order whatever the configuration, so that the same seed means the same fortune.
    let mut chance =
        StdRng::seed_from_u64(config.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let (boot, age): (f64, f64) = (chance.random(), chance.random());

    tokio::time::sleep(config.boot_delay).await;
    if boot < config.boot_failure_rate {
        return End::Failed("boot failure (plugin_config.boot_failure_rate)".to_owned());
    }
    let started = match start(shared, id, dir).await {
        Ok(started) => process.insert(started),
        Err(error) => return End::Failed(error.to_string()),
    };
    let mut stderr = started.child.stderr.take();
    let ready = match tokio::time::timeout(START_TIMEOUT, ready(started)).await {
        Ok(Ok(ready)) => ready,
        Ok(Err(error)) => {
            let mut words = String::new();
            if let Some(stderr) = &mut stderr {
                let _ = stderr.take(LAST_WORDS as u64).read_to_string(&mut words).await;
            }
            return End::Failed(format!("{error}: {}", words.trim()));
        }
        Err(_) => return End::Failed(format!("not ready within {} s", START_TIMEOUT.as_secs())),
    };
    shared.set_state(id, InstanceState::Running, Some(ready));

    let death = async {
        match config.sudden_death {
            Some(mean) => tokio::time::sleep(mean.mul_f64(-(1.0 - age).ln())).await,
            None => std::future::pending().await,
        }
    };
    let mut words = Vec::new();
    tokio::select! {
        status = started.child.wait() => {
            let fate = status.map_or_else(|error| format!("process lost: {error}"), describe);
            if let Some(stderr) = &mut stderr {
                let _ = stderr.take(LAST_WORDS as u64).read_to_end(&mut words).await;
            }
            match String::from_utf8_lossy(&words).trim() {
                "" => End::Died(fate),
                words => End::Died(format!("{fate}: {words}")),
            }
        }
        () = orders.kill.notified() => killed(started).await,
        () = death => killed(started).await,
    }
}

async fn killed(process: &mut Process) -> End {
    let _ = process.child.start_kill();
    End::Died(match process.child.wait().await {
        Ok(status) => describe(status),
        Err(error) => format!("process lost: {error}"),
    })
}

async fn start(shared: &Shared, id: &InstanceId, dir: &Path) -> io::Result<Process> {
    let Some(prepared) = shared.prepared() else {
        return Err(io::Error::other("the group is not initialised"));
    };
    std::fs::DirBuilder::new().mode(0o700).create(dir)?;
    let mut command = Command::new(&prepared.program);
    command
        .arg0("drover")
        .args(&shared.config.arguments)
        .env_clear()
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let mut child = command.spawn()?;
    let lost = || io::Error::other("the process has no standard input");
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw).ok_or_else(lost)?;
    let mut stdin = child.stdin.take().ok_or_else(lost)?;
    let parameters = Parameters {
        id: id.to_string(),
        dir: dir.to_owned(),
        parent: prepared.temporary.then(|| prepared.work_dir.clone()),
        username: prepared.username.clone(),
        authorized_key: prepared.login.public.clone(),
        shell: shared.config.shell.clone(),
    };
    let mut line = serde_json::to_vec(&parameters)?;
    line.push(b'\n');
    // Fits into the pipe, hence does not wait for the reader.
    let _ = stdin.write_all(&line).await;
    Ok(Process { child, stdin, pid })
}

/// Reads up to the line that says that the instance takes connections. Other lines may come before it, where a program
/// greets its user.
async fn ready(process: &mut Process) -> io::Result<Ready> {
    let stdout = process.child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Ok(ready) = serde_json::from_str(&line) {
            return Ok(ready);
        }
    }
    let status = process.child.wait().await?;
    Err(io::Error::other(describe(status)))
}

/// Ends the process, whatever runs on it, and its directory.
async fn clean_up(process: Option<Process>, id: &InstanceId, dir: &Path) {
    if let Some(Process { mut child, stdin, pid }) = process {
        // Asked by a signal: at the end of its input it would take its manager for dead.
        if child.id().is_some() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        if tokio::time::timeout(END_TIMEOUT, child.wait()).await.is_err() {
            warn!(instance = %id, "instance does not end, killing it");
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        drop(stdin);
        if !processes::sweep(pid, id.as_str()).await {
            warn!(instance = %id, "processes of the instance cannot be ended");
        }
    }
    let dir: PathBuf = dir.to_owned();
    let removed = tokio::task::spawn_blocking(move || tree::remove(&dir)).await;
    if let Ok(Err(error)) = removed {
        warn!(instance = %id, "cannot remove the directory of the instance: {error}");
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("process ended with signal {signal}"),
        (None, Some(code)) => format!("process ended with exit code {code}"),
        (None, None) => "process ended".to_owned(),
    }
}
