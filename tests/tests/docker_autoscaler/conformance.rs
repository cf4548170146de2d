//! The provider contract, kept by containers.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use drover_tests::Engine;
use fleeting::conformance::{self, Harness, Rule, Verdict};
use fleeting::{InstanceGroup, InstanceId};
use fleeting_docker::{Config, DockerGroup};

struct Containers(String);

impl Containers {
    fn foreign_name(&self) -> String {
        format!("{}-foreign", self.0)
    }

    fn all(&self) -> Vec<String> {
        let filter = format!("name=^/{}-", self.0);
        let all = Engine::shared().docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]);
        all.lines().map(str::to_owned).collect()
    }
}

#[async_trait]
impl Harness for Containers {
    type Group = DockerGroup;

    async fn group(&self) -> DockerGroup {
        DockerGroup::new(Config {
            host: Engine::shared().host(),
            max_size: 4,
            command: vec!["sleep".to_owned(), "100000".to_owned()],
            ..Config::new(&self.0, "box:1")
        })
    }

    async fn pause(&self, group: &DockerGroup) {
        let _ = tokio::time::timeout(Duration::from_millis(50), group.changed()).await;
    }

    fn can_be_filled(&self) -> bool {
        true
    }

    async fn foreign(&self, _: &DockerGroup) -> Option<InstanceId> {
        let name = self.foreign_name();
        if !self.all().contains(&name) {
            Engine::shared().docker(&[
                "run",
                "-d",
                "--name",
                &name,
                "--network",
                "none",
                "box:1",
                "sleep",
                "100000",
            ]);
        }
        Some(InstanceId::from(name))
    }

    async fn existing(&self, _: &DockerGroup) -> Option<BTreeSet<InstanceId>> {
        Some(self.all().into_iter().map(InstanceId::from).collect())
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for name in self.all() {
            let _ = Engine::shared().try_docker(&["rm", "-fv", &name]);
        }
    }
}

#[tokio::test]
async fn containers_keep_the_contract() {
    let containers = Containers(format!("contract-{}", std::process::id()));
    let verdicts = conformance::run(&containers).await.unwrap();
    let unchecked: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Kept).collect();
    assert!(unchecked.is_empty(), "{unchecked:?}");
    assert_eq!(verdicts.len(), Rule::ALL.len());
    assert_eq!(containers.all(), [containers.foreign_name()], "what is not the group's own is still there");
}
