//! The provider contract, kept by the fake, and seen to be broken where the fake is made to break it.

#![expect(clippy::wildcard_enum_match_arm, reason = "a way to break one call leaves the other calls alone")]

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use drover_fleeting_fake::{Builder, Delay, FakeCloud, Operation};
use fleeting::conformance::{self, Harness, Rule, Verdict, Violations};
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, InstanceState, Seen,
};

struct Virtual<F>(F);

#[async_trait]
impl<G: InstanceGroup + AsRef<FakeCloud>, F: Fn() -> G + Send + Sync> Harness for Virtual<F> {
    type Group = G;

    async fn group(&self) -> G {
        (self.0)()
    }

    async fn pause(&self, group: &G) {
        group.as_ref().advance(Duration::from_secs(1));
    }

    fn can_be_filled(&self) -> bool {
        true
    }

    async fn foreign(&self, group: &G) -> Option<InstanceId> {
        Some(group.as_ref().appear_foreign())
    }

    async fn existing(&self, group: &G) -> Option<BTreeSet<InstanceId>> {
        let all = group.as_ref().instances().into_iter();
        Some(all.filter(|one| one.state != Some(InstanceState::Deleted)).map(|one| one.id).collect())
    }
}

/// A provider that breaks one rule.
struct Broken {
    cloud: FakeCloud,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    NotAtAll,
    NamesTwice,
    ListsForeign,
    GrowsByOneMore,
    DeletesAll,
    DeletesForeign,
    RefusesRepeats,
    EmptyDeletesAll,
    NoAddress,
    AnswersForAll,
    EverybodyIsHealthy,
    DeletesAtShutdown,
    SaysItGrantedAll,
}

impl AsRef<FakeCloud> for Broken {
    fn as_ref(&self) -> &FakeCloud {
        &self.cloud
    }
}

impl Broken {
    fn all(&self) -> Vec<InstanceId> {
        self.cloud.instances().into_iter().filter(|one| one.owned).map(|one| one.id).collect()
    }
}

#[async_trait]
impl InstanceGroup for Broken {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        self.cloud.init(settings).await
    }

    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let mut listing = self.cloud.update().await?;
        match self.how {
            How::NamesTwice => listing.extend(listing.first().cloned()),
            How::ListsForeign => {
                let foreign = self.cloud.instances().into_iter().filter(|one| !one.owned);
                listing.extend(foreign.map(|one| Seen::new(one.id.as_str(), InstanceState::Running)));
            }
            _ => {}
        }
        Ok(listing)
    }

    async fn increase(&self, n: u32) -> Changed<u32> {
        match self.how {
            How::GrowsByOneMore => {
                let mut answer = self.cloud.increase(n + 1).await;
                answer.done = answer.done.min(n);
                answer
            }
            How::SaysItGrantedAll => {
                self.cloud.increase(n).await;
                Changed::all(n)
            }
            _ => self.cloud.increase(n).await,
        }
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        match self.how {
            How::DeletesAll => {
                self.cloud.decrease(&self.all()).await;
                Changed::all(ids.to_vec())
            }
            How::EmptyDeletesAll if ids.is_empty() => self.cloud.decrease(&self.all()).await,
            How::DeletesForeign => {
                ids.iter().for_each(|id| {
                    self.cloud.vanish(id, "deleted");
                });
                Changed::all(ids.to_vec())
            }
            How::RefusesRepeats => {
                let gone = |id: &&InstanceId| {
                    self.cloud.instance(id).is_some_and(|one| one.state == Some(InstanceState::Deleted))
                };
                match ids.iter().find(gone) {
                    Some(id) => Changed::partly(Vec::new(), GroupError::NotFound { what: id.to_string() }),
                    None => self.cloud.decrease(ids).await,
                }
            }
            _ => self.cloud.decrease(ids).await,
        }
    }

    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        match self.how {
            How::AnswersForAll => Ok(ConnectInfo::new(id.as_str(), ConnectorSettings::default())),
            How::NoAddress => {
                let mut info = self.cloud.connect_info(id).await?;
                info.internal_addr = None;
                Ok(info)
            }
            _ => self.cloud.connect_info(id).await,
        }
    }

    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        match self.how {
            How::EverybodyIsHealthy => Ok(()),
            _ => self.cloud.heartbeat(id).await,
        }
    }

    async fn shutdown(&self) -> Result<(), GroupError> {
        if self.how == How::DeletesAtShutdown {
            self.cloud.decrease(&self.all()).await;
        }
        self.cloud.shutdown().await
    }
}

async fn run(setup: Builder, how: How) -> Result<Vec<(Rule, Verdict)>, Violations> {
    let group = || Broken { cloud: setup.clone().build(), how };
    conformance::run(&Virtual(group)).await
}

fn small() -> Builder {
    FakeCloud::builder().max_size(4)
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let verdicts = run(small(), How::NotAtAll).await.unwrap();
    assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Kept), "{verdicts:?}");
}

#[tokio::test]
async fn the_fake_keeps_the_contract_also_when_everything_takes_time() {
    let delay = |min, max| Delay::Uniform { min: Duration::from_secs(min), max: Duration::from_secs(max) };
    let setup = small()
        .seed(7)
        .appear_delay(delay(0, 5))
        .boot_delay(delay(5, 60))
        .delete_delay(delay(1, 30))
        .keep_deleted(Duration::from_secs(10));
    run(setup, How::NotAtAll).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_fake_keeps_the_contract_also_when_calls_take_time() {
    let setup = Operation::ALL.into_iter().fold(small().tokio_clock(), |setup, operation| {
        setup.latency(operation, Delay::Fixed(Duration::from_millis(300)))
    });
    run(setup, How::NotAtAll).await.unwrap();
}

#[tokio::test]
async fn each_way_to_break_the_contract_is_named() {
    for (how, rule) in [
        (How::NamesTwice, Rule::IncreaseMakesInstances),
        (How::ListsForeign, Rule::ForeignIsRefusedAndUntouched),
        (How::GrowsByOneMore, Rule::IncreaseByNoneIsNoChange),
        (How::DeletesAll, Rule::DecreaseDeletesExactlyTheNamed),
        (How::DeletesForeign, Rule::ForeignIsRefusedAndUntouched),
        (How::RefusesRepeats, Rule::DecreaseMayBeRepeated),
        (How::EmptyDeletesAll, Rule::DecreaseOfNoneIsNoChange),
        (How::NoAddress, Rule::ConnectInfoOfRunning),
        (How::AnswersForAll, Rule::ConnectInfoOfGone),
        (How::AnswersForAll, Rule::ConnectInfoOfUnknown),
        (How::EverybodyIsHealthy, Rule::HeartbeatTellsTheTruth),
        (How::DeletesAtShutdown, Rule::ShutdownLeavesInstances),
        (How::SaysItGrantedAll, Rule::IncreaseIsPartialAtTheLimit),
    ] {
        let violations = run(small(), how).await.expect_err("a broken provider passes");
        assert!(violations.0.iter().any(|violation| violation.rule == rule), "{how:?}: {violations}");
        assert!(violations.to_string().contains(&format!("{rule:?}: ")), "{violations}");
    }
}
