//! The examples of GitLab's documentation run as they stand, but for names, tokens and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_mock::InstanceBackend;
use drover_tests::{Engine, Entry, NESTED_USER, NestedHost, Setup, Sshd, eventually};
use gitlab_mock::JobBuilder;
use tempfile::TempDir;

use crate::cloud::Cloud;
use crate::doctor::{examine, find};

const LINUX: &str = include_str!("../../../fixtures/config/instance-aws.toml");
const WINDOWS: &str = include_str!("../../../fixtures/config/instance-aws-windows.toml");
const MACOS: &str = include_str!("../../../fixtures/config/instance-aws-macos.toml");
const DOCKER: &str = include_str!("../../../fixtures/config/docker-autoscaler-aws.toml");

/// Instances that are hosts of virtual machines. They let in the keys that were pushed.
struct Macs {
    /// Where each host has its own daemon.
    folder: TempDir,
    /// Of whoever logs in to hosts.
    login: Sshd,
    hosts: Mutex<BTreeMap<String, NestedHost>>,
}

/// The keys of a table that say something, with what they say.
fn keys(value: &toml::Value, path: &str, found: &mut BTreeMap<String, String>) {
    if let Some(table) = value.as_table() {
        for (key, value) in table {
            keys(value, &format!("{path}.{key}"), found);
        }
    } else if let Some(values) = value.as_array().filter(|values| values.iter().all(toml::Value::is_table)) {
        for value in values {
            keys(value, path, found);
        }
    } else {
        found.insert(path.to_owned(), value.to_string());
    }
}

/// The username is the login of whoever runs the tests, the builds folder lies beside the rest of a test.
#[tokio::test]
async fn only_names_tokens_and_addresses_of_the_examples_are_changed() {
    const CHANGED: [&str; 9] = [
        ".runners.autoscaler.connector_config.username",
        ".runners.autoscaler.plugin_config.config_file",
        ".runners.autoscaler.plugin_config.credentials_file",
        ".runners.autoscaler.plugin_config.endpoint",
        ".runners.autoscaler.plugin_config.metadata_endpoint",
        ".runners.autoscaler.plugin_config.name",
        ".runners.builds_dir",
        ".runners.token",
        ".runners.url",
    ];
    // Of hosts with virtual machines: the file of the login's key, and where the daemon's socket is.
    const NESTED: [&str; 2] =
        [".runners.autoscaler.connector_config.key_path", ".runners.autoscaler.vm_isolation.nesting_host"];
    let cloud = Cloud::start().await;
    let macs = Macs::new();
    for text in [LINUX, WINDOWS, MACOS, DOCKER] {
        let nested = text.contains("vm_isolation");
        let example = |entry| if nested { macs.example(&cloud, entry) } else { cloud.example(entry) };
        let used = Setup::of_file(text, example).text("http://gitlab", Path::new("/folder"));
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        keys(&text.parse::<toml::Table>().unwrap().into(), "", &mut before);
        keys(&used.parse::<toml::Table>().unwrap().into(), "", &mut after);
        let changed = |key: &&String| before.get(*key) != after.get(*key);
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: BTreeSet<&str> = all.into_iter().filter(changed).map(String::as_str).collect();
        let allowed = CHANGED.iter().chain(NESTED.iter().filter(|_| nested));
        assert_eq!(changed, allowed.copied().collect());
    }
}

#[tokio::test]
async fn one_job_per_instance_with_five_kept_ready() {
    let cloud = Cloud::start().await;
    let world = Setup::of_file(LINUX, |entry| cloud.example(entry)).start().await;
    eventually("five instances are kept ready", || cloud.serving().len() == 5).await;
    for _ in 0..2 {
        world.run(JobBuilder::new("once").script(["echo hello"])).await.succeeded().has_line("hello");
    }
    // Each was for one job, and was replaced.
    eventually("used ones are replaced", || cloud.aws.launched() >= 7 && cloud.serving().len() == 5).await;
    assert!(cloud.aws.desired("fleet") <= 10);
    world.stop().await;
}

/// Its instances run Windows; what is examined here is its way of scaling: five jobs per instance, used without end.
#[tokio::test]
async fn five_jobs_per_instance_without_end() {
    let cloud = Cloud::start().await;
    let world = Setup::of_file(WINDOWS, |entry| cloud.example(entry)).start().await;
    // Five idle places are one instance.
    eventually("an instance is kept ready", || cloud.serving().len() == 1).await;
    for _ in 0..3 {
        world.run(JobBuilder::new("again").script(["echo hello"])).await.succeeded().has_line("hello");
    }
    assert!(cloud.aws.launched() <= 2, "{}", cloud.aws.launched());
    world.stop().await;
}

/// Login and password of the virtual machines are the example's, too.
#[tokio::test]
async fn two_jobs_per_host_each_in_a_virtual_machine() {
    let macs = Arc::new(Macs::new());
    let cloud = Cloud::of(Arc::clone(&macs) as Arc<dyn InstanceBackend>, |_| ()).await;
    let world = Setup::of_file(MACOS, |entry| macs.example(&cloud, entry)).start().await;
    eventually("a host is kept ready for two jobs", || cloud.serving().len() == 1).await;
    let gate = world.folder().join("gate").display().to_string();
    let waiting =
        ["id -un".to_owned(), "echo begun".to_owned(), format!("until [ -e {gate} ]; do sleep 0.1; done")];
    let job = JobBuilder::new("isolated").image("macos-sonoma").script(waiting);
    let jobs = world.gitlab.enqueue_many(&world.runners[0], job, 3).unwrap();
    for job in &jobs {
        world.says(job, "begun\n").await;
    }
    // Two on the first host; another one for the third job and the places that are kept idle.
    let busy: Vec<usize> = macs.machines().into_iter().filter(|count| *count > 0).collect();
    assert_eq!(busy, [1, 2]);
    std::fs::write(gate, "").unwrap();
    for job in &jobs {
        world
            .finished(job)
            .await
            .succeeded()
            .has_line(NESTED_USER)
            .says("Creating nesting VM macos-sonoma\n");
    }
    eventually("the machines are removed", || macs.machines().iter().all(|count| *count == 0)).await;
    assert!(cloud.aws.launched() <= 4);
    world.stop().await;
}

#[tokio::test]
async fn the_doctor_says_whether_the_daemon_answers_and_makes_nothing_there() {
    let macs = Arc::new(Macs::new());
    let cloud = Cloud::of(Arc::clone(&macs) as Arc<dyn InstanceBackend>, |_| ()).await;
    cloud.aws.set_desired("fleet", 1);
    eventually("a host serves", || cloud.serving().len() == 1).await;
    let setup = Setup::of_file(MACOS, |entry| macs.example(&cloud, entry));
    let (said, code) = examine(&setup, &["--connect"]).await;
    assert_eq!(code, Some(0), "{said:#}");
    let found = find(&said, "instance/nesting");
    let what = found["what"].as_str().unwrap();
    assert!(what.ends_with("answers: it is not initialized yet, which the manager does"), "{found}");
    let calls = |macs: &Macs| macs.each(|host| host.daemon().calls());
    assert_eq!(calls(&macs), [["List"]]);

    macs.each(|host| host.daemon = None);
    let (said, code) = examine(&setup, &["--connect"]).await;
    assert_eq!(code, Some(1), "{said:#}");
    let found = find(&said, "instance/nesting");
    let what = found["what"].as_str().unwrap();
    assert!(what.contains("ssh: rejected: connect failed") && what.contains("nesting.sock"), "{found}");
    macs.each(NestedHost::restart_daemon);
}

/// What stands in for a registry, and for an engine of each instance's own, is set too.
#[tokio::test]
async fn a_job_per_instance_in_a_container() {
    let cloud = Cloud::start().await;
    let engine = Engine::shared();
    engine.import(&[], "busybox:latest");
    let entry = |entry| {
        cloud
            .example(entry)
            .set("builds_dir", "/builds")
            .set("docker.host", engine.host())
            .set("docker.network_mode", "host")
            .set("docker.pull_policy", "if-not-present")
            .set("docker.helper_image_archive", engine.helper_archive().display().to_string())
    };
    let world = Setup::of_file(DOCKER, entry).start().await;
    let job = JobBuilder::new("contained").variable("GIT_STRATEGY", "none").script(["echo hello", "busybox"]);
    world.run(job).await.succeeded().has_line("hello").says("BusyBox");
    eventually("the used instance is replaced", || cloud.aws.launched() >= 6).await;
    world.stop().await;
}

// === impl Macs ===

impl Macs {
    fn new() -> Self {
        let folder = TempDir::with_prefix("Application Support").unwrap();
        Self { folder, login: Sshd::start(), hosts: Mutex::default() }
    }

    /// The example with what only these hosts have.
    fn example(&self, cloud: &Cloud, entry: Entry) -> Entry {
        let socket = format!("unix://{}/nesting.sock", self.folder.path().display());
        cloud
            .example(entry)
            .set("autoscaler.connector_config.key_path", self.login.key_path().display().to_string())
            .set("autoscaler.vm_isolation.nesting_host", socket)
    }

    /// How many machines run on each host, the fewest first.
    fn machines(&self) -> Vec<usize> {
        let mut counts = self.each(|host| host.daemon().machines().len());
        counts.sort_unstable();
        counts
    }

    fn each<T>(&self, ask: impl FnMut(&mut NestedHost) -> T) -> Vec<T> {
        self.hosts.lock().unwrap().values_mut().map(ask).collect()
    }

    fn allow(&self, instance: &str, keys: &str) {
        if let Some(host) = self.hosts.lock().unwrap().get(instance) {
            std::fs::write(host.sshd.key_path().with_extension("pub"), keys).unwrap();
        }
    }
}

#[async_trait]
impl InstanceBackend for Macs {
    async fn start(&self, instance: &str) -> Option<String> {
        let host = NestedHost::start(self.folder.path());
        let address = host.sshd.address();
        self.hosts.lock().unwrap().insert(instance.to_owned(), host);
        self.allow(instance, "");
        Some(address)
    }

    async fn stop(&self, instance: &str) {
        self.hosts.lock().unwrap().remove(instance);
    }

    async fn authorize_key(&self, instance: &str, _: &str, public_key: &str) {
        self.allow(instance, &format!("{public_key}\n"));
    }

    async fn revoke_keys(&self, instance: &str) {
        self.allow(instance, "");
    }
}
