//! A server and a manager, each a process of its own, in a folder that goes away with them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::machine::Machine;
use crate::mock::Mock;

const TOKEN: &str = "glrt-bench000000000000000";
/// Jobs on one instance at a time.
const CAPACITY_PER_INSTANCE: u32 = 5;
/// For a server to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// For a manager to end when it has no jobs; in `callgrind` it is slow.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// For the first jobs, which wait for their instances.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(120);

/// The two programs.
#[derive(Debug)]
pub(crate) struct Programs {
    drover: PathBuf,
    gitlab_mock: PathBuf,
}

/// What a scene is like.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// `concurrent`, `request_concurrency`, and slots of the pool.
    pub(crate) concurrency: u32,
    /// `output_limit`, in KiB.
    pub(crate) output_limit: u64,
    /// Whether the server answers a held request with a job, or lets the manager ask again, as Workhorse does.
    pub(crate) dispatch_held: bool,
    /// Jobs run in containers of this engine, in place of instances.
    pub(crate) containers: Option<Containers>,
    /// Jobs run on one machine that is there before, reached over SSH, in place of local instances.
    pub(crate) on_a_machine: bool,
    /// GitLab Runner, in place of Drover.
    pub(crate) upstream: Option<PathBuf>,
    /// The manager runs in `callgrind`, which writes to this file what was called.
    pub(crate) traced: Option<PathBuf>,
}

/// The engine of container jobs.
#[derive(Debug, Clone)]
pub(crate) struct Containers {
    pub(crate) socket: PathBuf,
    pub(crate) image: String,
    /// A folder that becomes the repository `bench/app`.
    pub(crate) repository: PathBuf,
}

/// Both processes, running.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) mock: Mock,
    manager: Child,
    /// Process id of the manager.
    pub(crate) pid: u32,
    _server: Child,
    _machine: Option<Machine>,
    folder: TempDir,
}

// === impl Programs ===

impl Programs {
    /// Finds both in a folder, by default that of this program.
    pub(crate) fn find(folder: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let folder = folder.or(own.parent()).context("this program is in no folder")?;
        let program = |name: &str| {
            // Made absolute, because the processes run in another folder.
            let path = std::path::absolute(folder.join(name))?;
            if !path.is_file() {
                bail!("there is no `{}`: build it there, or name its folder with --bin-dir", path.display());
            }
            Ok(path)
        };
        Ok(Self { drover: program("drover")?, gitlab_mock: program("gitlab-mock")? })
    }

    /// The manager.
    pub(crate) fn drover(&self) -> &Path {
        &self.drover
    }
}

// === impl Setting ===

impl Setting {
    /// As a configuration has it that says nothing else; the server behaves like Workhorse.
    pub(crate) fn new(concurrency: u32) -> Self {
        Self {
            concurrency,
            output_limit: 4096,
            dispatch_held: false,
            containers: None,
            on_a_machine: false,
            upstream: None,
            traced: None,
        }
    }

    fn config(&self, url: &str, folder: &Path, machine: Option<&Machine>) -> String {
        let Self { concurrency, output_limit, .. } = self;
        let head = format!(
            r#"concurrent = {concurrency}
check_interval = 1
[[runners]]
  name = "bench"
  url = "{url}"
  token = "{TOKEN}"
  request_concurrency = {concurrency}
"#
        );
        if let Some(machine) = machine {
            let (folder, tables) = (folder.display(), machine.tables());
            return format!(
                r#"{head}  executor = "instance"
  shell = "bash"
  builds_dir = "{folder}/builds"
  cache_dir = "{folder}/cache"
  output_limit = {output_limit}
  [runners.autoscaler]
    capacity_per_instance = {concurrency}
{tables}    [[runners.autoscaler.policy]]
      idle_count = 1
      idle_time = "30m0s"
"#
            );
        }
        if let Some(Containers { socket, image, .. }) = &self.containers {
            let socket = socket.display();
            return format!(
                r#"{head}  executor = "docker"
  [runners.docker]
    host = "unix://{socket}"
    image = "{image}"
    network_mode = "host"
    pull_policy = "if-not-present"
"#
            );
        }
        let instances = concurrency.div_ceil(CAPACITY_PER_INSTANCE);
        format!(
            r#"{head}  executor = "instance"
  shell = "sh"
  output_limit = {output_limit}
  [runners.autoscaler]
    plugin = "local"
    capacity_per_instance = {CAPACITY_PER_INSTANCE}
    max_instances = {instances}
    delete_instances_on_shutdown = true
    reservation_throttling = false
    [[runners.autoscaler.policy]]
      idle_count = {concurrency}
      idle_time = "30m0s"
"#
        )
    }
}

// === impl Scene ===

impl Scene {
    /// Starts both.
    pub(crate) async fn start(programs: &Programs, setting: Setting) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("drover-bench-").context("failed to make a folder")?;
        let mut server = Command::new(&programs.gitlab_mock);
        server.args(["serve", "--listen", "127.0.0.1:0", "--runner-token", TOKEN]);
        if setting.dispatch_held {
            server.arg("--dispatch-held");
        }
        if let Some(containers) = &setting.containers {
            server.arg("--repo").arg(format!("bench/app={}", containers.repository.display()));
        }
        let mut server = server
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start gitlab-mock")?;
        let mock = Mock::new(address(&mut server).await?)?;

        let machine = if setting.on_a_machine { Some(Machine::start(folder.path()).await?) } else { None };
        let config = folder.path().join("config.toml");
        let mut text = setting.config(mock.url(), folder.path(), machine.as_ref());
        if setting.traced.is_some() {
            // An instance is the running program once more, which is valgrind then.
            let drover = programs.drover.display();
            text.push_str(&format!("    [runners.autoscaler.plugin_config]\n      program = \"{drover}\"\n"));
        }
        std::fs::write(&config, text).context("failed to write a configuration")?;
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600))?;
        let log = std::fs::File::create(folder.path().join("manager.log"))?;
        let program = setting.upstream.as_ref().unwrap_or(&programs.drover);
        let mut manager = match &setting.traced {
            Some(file) => traced(program, file),
            None => Command::new(program),
        };
        let manager = manager
            .args(["run", "--config"])
            .arg(&config)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start `{}`", program.display()))?;
        let pid = manager.id().context("the manager has ended at once")?;
        Ok(Self { mock, manager, pid, _server: server, _machine: machine, folder })
    }

    /// Runs so many trivial jobs, so that instances are up and connected.
    pub(crate) async fn warm_up(&self, jobs: u32) -> anyhow::Result<()> {
        let ids = self.mock.enqueue(jobs, "true").await?;
        self.mock.successful(&ids, WARM_UP_PATIENCE).await.with_context(|| self.log())?;
        Ok(())
    }

    /// Ends both. The manager deletes its instances first.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).context("a process id is too large")?;
        kill(Pid::from_raw(pid), Signal::SIGQUIT).context("failed to stop the manager")?;
        match timeout(STOP_PATIENCE, self.manager.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => bail!("the manager ended badly: {status:?}\n{}", self.log()),
            Err(_) => bail!("the manager did not end within {STOP_PATIENCE:?}\n{}", self.log()),
        }
    }

    /// The manager's own log, for errors.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("manager.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        format!("the end of the manager's log:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

/// The program in `callgrind`, with the names of its functions as the linker knows them.
fn traced(program: &Path, file: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--quiet", "--tool=callgrind", "--demangle=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program);
    valgrind
}

/// The address that the server took, as its first line says it.
async fn address(server: &mut Child) -> anyhow::Result<String> {
    let stdout = server.stdout.take().context("gitlab-mock has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let first = timeout(START_PATIENCE, lines.next_line()).await.context("gitlab-mock said nothing")??;
    let first = first.context("gitlab-mock ended at once")?;
    let url = first.rsplit_once(" as ").map(|(_, url)| url.to_owned());
    url.with_context(|| format!("gitlab-mock names no address: {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_holds_as_many_jobs_as_run_at_once() {
        let config = Setting::new(50).config("http://127.0.0.1:1", Path::new("/tmp"), None);
        assert!(config.contains("max_instances = 10\n"), "{config}");
        let config = Setting::new(1).config("http://127.0.0.1:1", Path::new("/tmp"), None);
        assert!(config.contains("max_instances = 1\n"), "{config}");
    }
}
