//! The provider contract, kept by real processes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::config;
use async_trait::async_trait;
use drover_fleeting_local::{Config, LocalGroup};
use fleeting::InstanceId;
use fleeting::conformance::{self, Harness, Rule, Verdict};

struct Local(tempfile::TempDir);

#[async_trait]
impl Harness for Local {
    type Group = LocalGroup;

    async fn group(&self) -> LocalGroup {
        LocalGroup::new(Config { max_size: 4, ..config(self.0.path()) })
    }

    async fn pause(&self, group: &LocalGroup) {
        let _ =
            tokio::time::timeout(Duration::from_millis(50), fleeting::InstanceGroup::changed(group)).await;
    }

    fn can_be_filled(&self) -> bool {
        true
    }

    /// What has a directory and a process that lives in it.
    async fn existing(&self, _: &LocalGroup) -> Option<BTreeSet<InstanceId>> {
        let names = std::fs::read_dir(self.0.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        Some(
            names
                .filter(|name| !crate::common::processes_in(&self.0.path().join(name)).is_empty())
                .map(InstanceId::from)
                .collect(),
        )
    }
}

#[tokio::test]
async fn local_instances_keep_the_contract() {
    let verdicts = conformance::run(&Local(tempfile::tempdir().unwrap())).await.unwrap();
    let unchecked: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Kept).collect();
    assert!(unchecked.is_empty(), "{unchecked:?}");
    assert_eq!(verdicts.len(), Rule::ALL.len());
}
