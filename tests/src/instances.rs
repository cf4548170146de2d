//! Instances that are containers of the engine of the tests, each with an SSH server and an engine of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use toml::Value;

use crate::{Engine, Entry};

/// What the engine of an instance needs. All at once (`--privileged`) would also ask for capabilities that the tests' own root
/// may lack.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
    SYS_NICE SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG";
const IMAGE: &str = "drover-instance:test";
const LABEL: &str = "drover.instance-group";

/// One group of such instances. What is left of it goes with this value.
#[derive(Debug)]
pub struct Instances {
    group: String,
}

// === impl Instances ===

impl Instances {
    /// A group that nobody else uses; the engine has its image.
    ///
    /// # Panics
    /// When the image cannot be built.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static IMPORTED: OnceLock<()> = OnceLock::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        IMPORTED.get_or_init(|| {
            let archive = instance_archive();
            Engine::shared().docker(&["import", &archive.display().to_string(), IMAGE]);
        });
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { group: format!("{name}-{}-{number}", std::process::id()) }
    }

    /// Name of the group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The keys of `plugin_config`.
    #[must_use]
    pub fn plugin_config(&self) -> toml::Table {
        let list =
            |words: &[&str]| Value::from(words.iter().map(|word| Value::from(*word)).collect::<Vec<_>>());
        let capabilities: Vec<&str> = CAPABILITIES.split_whitespace().collect();
        [
            ("name", Value::from(self.group.clone())),
            ("image", IMAGE.into()),
            ("host", Engine::shared().host().into()),
            ("command", list(&["/sbin/instance"])),
            ("capabilities", list(&capabilities)),
            ("security_opt", list(&["seccomp=unconfined", "apparmor=unconfined"])),
            ("volumes", list(&["/var/lib/docker", "/sys/fs/cgroup:/sys/fs/cgroup:rw"])),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// A runner entry whose jobs run in containers on these instances, in the image `box:1`: at most three, four jobs each.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry::bare(&self.group)
            .set("executor", "docker-autoscaler")
            .set("builds_dir", "/builds")
            .set("autoscaler.plugin", "docker")
            .set("autoscaler.plugin_config", self.plugin_config())
            .set("autoscaler.max_instances", 3)
            .set("autoscaler.capacity_per_instance", 4)
            .set("docker.image", "box:1")
            .set("docker.pull_policy", "if-not-present")
            .set("docker.helper_image_archive", Engine::shared().helper_archive().display().to_string())
    }

    /// The instances that are there, in whatever state.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let filter = format!("label={LABEL}={}", self.group);
        let listed = Engine::shared().docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Ends an instance without warning, as a power failure would.
    pub fn kill(&self, instance: &str) {
        Engine::shared().docker(&["kill", instance]);
    }

    /// Runs a command on an instance; what it says.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn exec(&self, instance: &str, command: &str) -> String {
        Engine::shared().docker(&["exec", instance, "sh", "-c", command])
    }

    /// What the engine of an instance has that jobs could have left: containers, networks, and volumes that are not there for
    /// the next job; each by name.
    #[must_use]
    pub fn left_on(&self, instance: &str) -> Vec<String> {
        let lists = "docker ps -aq; docker network ls -q --filter type=custom; docker volume ls -q | while read -r name; do \
                     docker volume ls -q --filter label=com.gitlab.gitlab-runner.reusable=true | grep -qx \"$name\" || \
                     echo \"$name\"; done";
        self.exec(instance, lists).lines().map(str::to_owned).collect()
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        for name in self.names() {
            if std::thread::panicking() {
                let shown = Command::new("docker")
                    .args([
                        "-H",
                        &Engine::shared().host(),
                        "exec",
                        &name,
                        "tail",
                        "-n",
                        "20",
                        "/var/log/docker.log",
                    ])
                    .output();
                eprintln!(
                    "engine of {name}: {}",
                    String::from_utf8_lossy(&shown.map(|shown| shown.stdout).unwrap_or_default())
                );
            }
            let _ = Engine::shared().try_docker(&["rm", "-fv", &name]);
        }
    }
}

/// The file system of an instance, built once and kept beside the tests: programs of a Docker engine, and in `/images` what jobs
/// use.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn instance_archive() -> PathBuf {
    let engine = Engine::shared();
    let helper = engine.helper_archive();
    let archive = helper.with_file_name("drover-instance-image.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/instance-image/build.sh");
    let time = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if time(&archive)
        .is_none_or(|built| [helper, &script].into_iter().filter_map(time).any(|part| part > built))
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let small = folder.path().join("box.tar");
        let container = engine.docker(&["create", "box:1", "sh"]);
        engine.docker(&["export", "--output", &small.display().to_string(), &container]);
        engine.docker(&["rm", &container]);
        let version = env!("CARGO_PKG_VERSION");
        let done = Command::new("sh")
            .arg(&script)
            .arg(&archive)
            .arg(format!("box:1={}", small.display()))
            .arg(format!("drover-helper:{version}={}", helper.display()))
            .output()
            .expect("tests need sh");
        assert!(
            done.status.success(),
            "the instance image was not built: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    archive
}
