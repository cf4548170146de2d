//! What an instance's own metadata service tells, and what comes of one that does not answer or says anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_mock::{MetadataFault, Options};
use drover_fleeting_aws::AwsGroup;
use fleeting::{
    ByteStream, ConnectorSettings, DoomKind, InstanceGroup, InstanceId, Reach, ReachError, WatchError,
};
use test_case::test_case;
use tokio::net::TcpStream;

use crate::common::{Cloud, eager, running};

/// This machine reaches what its instances reach.
#[derive(Default)]
struct Here {
    connections: AtomicUsize,
    refuses: bool,
}

#[async_trait]
impl Reach for Here {
    async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn ByteStream>, ReachError> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if self.refuses {
            return Err(ReachError::Refused("administratively prohibited".to_owned()));
        }
        match TcpStream::connect((host, port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(ReachError::Refused(error.to_string())),
        }
    }
}

/// A group with one spot instance.
async fn spot(cloud: &Cloud) -> (AwsGroup, InstanceId) {
    cloud.aws.change_group("build", |group| group.spot = true);
    let mut table = cloud.table("build");
    table["metadata_endpoint"] = cloud.aws.metadata_url().into();
    let group = eager(&table);
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    group.update().await.unwrap();
    (group, id)
}

#[tokio::test]
async fn announcements_are_seen_as_they_come_over_one_connection() {
    let cloud = Cloud::new(Options::default()).await;
    let (group, id) = spot(&cloud).await;
    let mut watch = group.watch(&id).unwrap();
    assert_eq!(watch.interval(), Duration::from_secs(5));
    let here = Here::default();
    assert_eq!(watch.look(&here).await, Ok(None));

    cloud.aws.recommend_rebalance(id.as_str());
    let advised = watch.look(&here).await.unwrap().unwrap();
    assert_eq!((advised.kind, advised.at), (DoomKind::Rebalance, None));

    cloud.aws.interrupt_in(id.as_str(), Duration::from_secs(60));
    let taken = watch.look(&here).await.unwrap().unwrap();
    assert_eq!(
        (taken.kind, taken.why.as_str()),
        (DoomKind::Interruption, "spot interruption notice (terminate)")
    );
    let left = taken.at.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(30) && left <= Duration::from_secs(60), "{left:?}");
    assert_eq!(here.connections.load(Ordering::Relaxed), 1, "it is kept");
}

#[tokio::test]
async fn scheduled_events_are_told_by_the_instance_too() {
    let cloud = Cloud::new(Options::default()).await;
    let (group, id) = spot(&cloud).await;
    cloud.aws.schedule_event_in(id.as_str(), "instance-stop", Duration::from_secs(7200));
    let doom = group.watch(&id).unwrap().look(&Here::default()).await.unwrap().unwrap();
    assert_eq!((doom.kind, doom.why.as_str()), (DoomKind::Maintenance, "AWS has scheduled instance-stop"));
}

#[tokio::test]
async fn only_spot_instances_are_asked_and_none_if_that_is_wanted() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    group.update().await.unwrap();
    assert!(group.watch(&id).is_none());

    let cloud = Cloud::new(Options::default()).await;
    let (group, id) = spot(&cloud).await;
    assert!(group.watch(&id).is_some());
    let mut table = cloud.table("build");
    table["metadata_endpoint"] = "none".into();
    let silent = eager(&table);
    silent.init(&ConnectorSettings::default()).await.unwrap();
    silent.update().await.unwrap();
    assert!(silent.watch(&id).is_none());
}

#[test_case(MetadataFault::Off, true; "switched off")]
#[test_case(MetadataFault::Endless, false; "endless text")]
#[test_case(MetadataFault::Garbage, false; "another document")]
#[test_case(MetadataFault::Forgetful, false; "a token that is not known")]
#[tokio::test]
async fn what_is_no_answer_is_an_error_and_passes(fault: MetadataFault, for_ever: bool) {
    let cloud = Cloud::new(Options::default()).await;
    let (group, id) = spot(&cloud).await;
    let mut watch = group.watch(&id).unwrap();
    let here = Here::default();
    cloud.aws.break_metadata(fault);
    match watch.look(&here).await {
        Err(WatchError::Unavailable(why)) => assert!(for_ever, "{why}"),
        Err(WatchError::Failed(why)) => {
            assert!(!for_ever && !why.contains("proxy"), "{why}");
        }
        Ok(doom) => panic!("{doom:?}"),
    }
    cloud.aws.break_metadata(None);
    assert_eq!(watch.look(&here).await, Ok(None));
}

#[tokio::test]
async fn a_look_that_is_given_up_harms_no_later_one() {
    let cloud = Cloud::new(Options::default()).await;
    let (group, id) = spot(&cloud).await;
    let mut watch = group.watch(&id).unwrap();
    let here = Here::default();
    assert_eq!(watch.look(&here).await, Ok(None));
    cloud.aws.break_metadata(MetadataFault::Silent);
    let given_up = tokio::time::timeout(Duration::from_millis(200), watch.look(&here)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    cloud.aws.break_metadata(None);
    assert_eq!(watch.look(&here).await, Ok(None));
}

#[tokio::test]
async fn an_instance_that_forwards_nothing_is_not_asked_again() {
    let cloud = Cloud::new(Options::default()).await;
    let (group, id) = spot(&cloud).await;
    let mut watch = group.watch(&id).unwrap();
    let refuses = Here { refuses: true, ..Here::default() };
    assert_eq!(
        watch.look(&refuses).await,
        Err(WatchError::Unavailable("administratively prohibited".to_owned()))
    );
}
