//! A cloud, a group in it, and what connects the two.

use std::time::Duration;

use aws_mock::{AwsMock, GroupOptions, Options};
use drover_fleeting_aws::{AwsGroup, Intervals};
use fleeting::{ConnectorSettings, InstanceGroup, InstanceId, InstanceState, Seen};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For everything that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cloud with the group `build`.
pub(crate) struct Cloud {
    pub(crate) aws: AwsMock,
    home: TempDir,
}

impl Cloud {
    pub(crate) async fn new(options: Options) -> Self {
        let cloud = Self { aws: AwsMock::start(options).await.unwrap(), home: home() };
        cloud.aws.add_group(GroupOptions::new("build"));
        cloud
    }

    pub(crate) fn table(&self, name: &str) -> Value {
        table(self.aws.url(), &self.home, name)
    }

    /// The group of this name, which looks for everything whenever it is asked.
    pub(crate) fn named(&self, name: &str) -> AwsGroup {
        eager(&self.table(name))
    }

    /// The group `build`, initialised.
    pub(crate) async fn build(&self) -> AwsGroup {
        self.build_with(&ConnectorSettings::default()).await
    }

    pub(crate) async fn build_with(&self, settings: &ConnectorSettings) -> AwsGroup {
        let group = self.named("build");
        group.init(settings).await.unwrap();
        group
    }
}

/// A folder with credentials.
pub(crate) fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join("credentials"),
        "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n",
    )
    .unwrap();
    std::fs::write(home.path().join("config"), "[default]\nregion = eu-west-1\n").unwrap();
    home
}

pub(crate) fn table(url: &str, home: &TempDir, name: &str) -> Value {
    json!({
        "name": name,
        "endpoint": url,
        "profile": "default",
        "config_file": home.path().join("config"),
        "credentials_file": home.path().join("credentials"),
    })
}

pub(crate) fn eager(table: &Value) -> AwsGroup {
    AwsGroup::from_plugin_config(table).unwrap().with_intervals(Intervals {
        events: Duration::ZERO,
        spot: Duration::ZERO,
        activities: Duration::ZERO,
    })
}

/// Looks until the listing is as wanted.
pub(crate) async fn until(group: &AwsGroup, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let mut last = Vec::new();
    let waiting = async {
        loop {
            last = group.update().await.unwrap();
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(found.is_ok(), "{what}: not seen; the last listing is {last:?}");
    last
}

/// Waits for so many running members.
pub(crate) async fn running(group: &AwsGroup, n: usize) -> Vec<InstanceId> {
    let listing = until(group, &format!("{n} running"), |seen| {
        seen.len() == n && seen.iter().all(|line| line.state == InstanceState::Running)
    })
    .await;
    listing.into_iter().map(|line| line.id).collect()
}
