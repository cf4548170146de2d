//! A stand-in for AWS with a group that a runner entry uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_mock::{AwsMock, GroupOptions, InstanceBackend, InstanceView, Options};
use drover_tests::{Entry, Sshd};
use tempfile::TempDir;

/// Each instance is an OpenSSH server, which lets in only the keys that were pushed.
#[derive(Default)]
struct Servers(Mutex<BTreeMap<String, Sshd>>);

/// AWS, with the group `fleet`.
pub(crate) struct Cloud {
    pub(crate) aws: AwsMock,
    home: TempDir,
}

#[async_trait]
impl InstanceBackend for Servers {
    async fn start(&self, instance: &str) -> Option<String> {
        let server = Sshd::start();
        std::fs::write(server.key_path().with_extension("pub"), "").unwrap();
        let address = server.address();
        self.0.lock().unwrap().insert(instance.to_owned(), server);
        Some(address)
    }

    async fn stop(&self, instance: &str) {
        self.0.lock().unwrap().remove(instance);
    }

    async fn authorize_key(&self, instance: &str, _: &str, public_key: &str) {
        if let Some(server) = self.0.lock().unwrap().get(instance) {
            std::fs::write(server.key_path().with_extension("pub"), format!("{public_key}\n")).unwrap();
        }
    }

    async fn revoke_keys(&self, instance: &str) {
        if let Some(server) = self.0.lock().unwrap().get(instance) {
            std::fs::write(server.key_path().with_extension("pub"), "").unwrap();
        }
    }
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut GroupOptions)) -> Self {
        Self::of(Arc::new(Servers::default()), change).await
    }

    /// The same with other instances.
    pub(crate) async fn of(
        backend: Arc<dyn InstanceBackend>,
        change: impl FnOnce(&mut GroupOptions),
    ) -> Self {
        let options = Options {
            boot_delay: Duration::from_millis(200),
            terminate_delay: Duration::from_millis(100),
            backend,
            ..Options::default()
        };
        let aws = AwsMock::start(options).await.unwrap();
        let mut group = GroupOptions::new("fleet");
        change(&mut group);
        aws.add_group(group);
        let home = tempfile::tempdir().unwrap();
        let keys = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n\
                    [ci]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n";
        std::fs::write(home.path().join("credentials"), keys).unwrap();
        std::fs::write(
            home.path().join("config"),
            "[default]\nregion = eu-west-1\n[profile ci]\nregion = eu-west-1\n",
        )
        .unwrap();
        Self { aws, home }
    }

    /// An entry for the group: at most five instances, one job each at a time.
    pub(crate) fn entry(&self) -> Entry {
        let file = |name: &str| self.home.path().join(name).display().to_string();
        Entry::bare("fleet")
            .set("autoscaler.plugin", "fleeting-plugin-aws")
            .set("autoscaler.plugin_config.name", "fleet")
            .set("autoscaler.plugin_config.profile", "ci")
            .set("autoscaler.plugin_config.config_file", file("config"))
            .set("autoscaler.plugin_config.credentials_file", file("credentials"))
            .set("autoscaler.plugin_config.endpoint", self.aws.url())
            .set("autoscaler.plugin_config.metadata_endpoint", self.aws.metadata_url())
            // A new mark waits a fraction of this for others.
            .set("autoscaler.group_lease_ttl", "2m")
            .set("autoscaler.max_instances", 5)
            .set("autoscaler.capacity_per_instance", 1)
            .set("autoscaler.connector_config.username", Sshd::user())
            .set("autoscaler.connector_config.timeout", "30s")
    }

    /// An entry of the documented examples, with the names and addresses of this cloud. The profile and all settings of
    /// the scaler are the example's.
    pub(crate) fn example(&self, entry: Entry) -> Entry {
        let file = |name: &str| self.home.path().join(name).display().to_string();
        entry
            .set("url", "")
            .set("token", "glrt-example-0123456789abcdef")
            .set("autoscaler.plugin_config.name", "fleet")
            .set("autoscaler.plugin_config.config_file", file("config"))
            .set("autoscaler.plugin_config.credentials_file", file("credentials"))
            .set("autoscaler.plugin_config.endpoint", self.aws.url())
            .set("autoscaler.plugin_config.metadata_endpoint", self.aws.metadata_url())
            .set("autoscaler.connector_config.username", Sshd::user())
    }

    pub(crate) fn members(&self) -> Vec<InstanceView> {
        self.aws.members("fleet")
    }

    /// Members that are not ending.
    pub(crate) fn serving(&self) -> Vec<String> {
        let members = self.members().into_iter();
        members.filter(|member| member.lifecycle == "InService").map(|member| member.id).collect()
    }
}
