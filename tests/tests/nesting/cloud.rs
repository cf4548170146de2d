//! Hosts of a cloud, which takes them away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_mock::{AwsMock, GroupOptions, InstanceBackend, Options};
use drover_tests::{Entry, NESTED_USER, NestedHost, Setup, Sshd, eventually};
use nesting_mock::Fault;
use tempfile::TempDir;

use crate::world::job;

/// Each instance is a host with a daemon of its own, which lets in only the keys that were pushed.
struct Hosts {
    running: Mutex<BTreeMap<String, NestedHost>>,
    folder: TempDir,
}

#[async_trait]
impl InstanceBackend for Hosts {
    async fn start(&self, instance: &str) -> Option<String> {
        let host = NestedHost::start(self.folder.path());
        std::fs::write(host.sshd.key_path().with_extension("pub"), "").unwrap();
        let address = host.sshd.address();
        self.running.lock().unwrap().insert(instance.to_owned(), host);
        Some(address)
    }

    async fn stop(&self, instance: &str) {
        self.running.lock().unwrap().remove(instance);
    }

    async fn authorize_key(&self, instance: &str, _: &str, public_key: &str) {
        if let Some(host) = self.running.lock().unwrap().get(instance) {
            std::fs::write(host.sshd.key_path().with_extension("pub"), format!("{public_key}\n")).unwrap();
        }
    }

    async fn revoke_keys(&self, _: &str) {}
}

/// The instance whose daemon was asked for a machine.
fn asked(hosts: &Hosts) -> Option<String> {
    let running = hosts.running.lock().unwrap();
    let mut asked = running.iter().filter(|(_, host)| host.daemon().calls_of("Create") > 0);
    asked.next().map(|(instance, _)| instance.clone())
}

#[tokio::test]
async fn a_host_that_the_cloud_takes_while_it_makes_a_machine_gives_its_job_to_another_one() {
    let hosts = Arc::new(Hosts { running: Mutex::default(), folder: tempfile::tempdir().unwrap() });
    let options = Options {
        boot_delay: Duration::from_millis(200),
        terminate_delay: Duration::from_millis(100),
        backend: hosts.clone(),
        ..Options::default()
    };
    let aws = AwsMock::start(options).await.unwrap();
    let mut group = GroupOptions::new("mac");
    group.spot = true;
    aws.add_group(group);
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let keys = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n";
    let entry = Entry::bare("mac")
        .set("autoscaler.plugin", "aws")
        .set("autoscaler.plugin_config.name", "mac")
        .set("autoscaler.plugin_config.region", "eu-west-1")
        .set("autoscaler.plugin_config.config_file", file("config", "[default]\n"))
        .set("autoscaler.plugin_config.credentials_file", file("credentials", keys))
        .set("autoscaler.plugin_config.endpoint", aws.url())
        .set("autoscaler.plugin_config.metadata_endpoint", aws.metadata_url())
        .set("autoscaler.group_lease_ttl", "2m")
        .set("autoscaler.max_instances", 3)
        .set("autoscaler.capacity_per_instance", 1)
        .set("autoscaler.connector_config.username", Sshd::user())
        .set("autoscaler.connector_config.timeout", "30s")
        .nested(hosts.folder.path())
        .policy([("idle_count", 1.into()), ("idle_time", "10m".into())]);
    let world = Setup::new().runner(entry).start().await;
    world.logs(&["instance is ready"]).await;
    for host in hosts.running.lock().unwrap().values() {
        host.daemon().fault("Create", Fault::Hold, 1);
    }
    let waiting = world.enqueue(job("macos"));
    eventually("a machine is being made", || asked(&hosts).is_some()).await;
    let doomed = asked(&hosts).unwrap();
    aws.interrupt_in(&doomed, Duration::from_secs(100));
    world
        .finished(&waiting)
        .await
        .succeeded()
        .has_line(NESTED_USER)
        .says("will be taken away: spot interruption notice (terminate)")
        .says(&format!("Instance {doomed} is given up; another one is taken."));
    world.stop().await;
}
