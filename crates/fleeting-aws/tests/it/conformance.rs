//! The contract that every provider keeps.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_mock::{GroupOptions, Options};
use drover_fleeting_aws::AwsGroup;
use fleeting::InstanceId;
use fleeting::conformance::{self, Harness, Verdict};

use crate::common::Cloud;

struct Mocked {
    cloud: Cloud,
    groups: AtomicUsize,
}

#[async_trait]
impl Harness for Mocked {
    type Group = AwsGroup;

    async fn group(&self) -> AwsGroup {
        let name = format!("group-{}", self.groups.fetch_add(1, Ordering::Relaxed));
        self.cloud.aws.add_group(GroupOptions { max: 5, ..GroupOptions::new(&name) });
        self.cloud.named(&name)
    }

    async fn pause(&self, _: &AwsGroup) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    fn can_be_filled(&self) -> bool {
        true
    }

    async fn foreign(&self, _: &AwsGroup) -> Option<InstanceId> {
        Some(self.cloud.aws.launch_foreign().into())
    }

    async fn existing(&self, _: &AwsGroup) -> Option<BTreeSet<InstanceId>> {
        Some(self.cloud.aws.instances().into_iter().map(|instance| instance.id.into()).collect())
    }
}

async fn keeps_the_contract(options: Options) {
    let harness = Mocked { cloud: Cloud::new(options).await, groups: AtomicUsize::new(0) };
    let verdicts = conformance::run(&harness).await.unwrap();
    let unchecked: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Kept).collect();
    assert!(unchecked.is_empty(), "{unchecked:?}");
}

#[tokio::test]
async fn the_contract_is_kept() {
    keeps_the_contract(Options::default()).await;
}

#[tokio::test]
async fn the_contract_is_kept_with_slow_launches() {
    let launch_delay = Duration::from_millis(60);
    keeps_the_contract(Options { launch_delay, ..Options::default() }).await;
}
