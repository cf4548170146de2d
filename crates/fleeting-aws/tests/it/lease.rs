//! The mark of the manager that has a group.

use std::time::Duration;

use aws_mock::{Fault, Options};
use chrono::{DateTime, Utc};
use fleeting::lease::{Lease, Owner};
use fleeting::{GroupError, InstanceGroup};

use crate::common::{Cloud, running};

pub(crate) fn lease(manager: &str, generation: u64) -> Lease {
    let since: DateTime<Utc> = "2026-08-24T10:00:00Z".parse().unwrap();
    Lease {
        owner: Owner::new(manager, "https://gitlab.example.com", "7", "build", "host"),
        generation,
        since,
        until: since + Duration::from_secs(900),
        valid: Duration::from_secs(900),
    }
}

/// Writes, sees, overwrites and removes a mark.
pub(crate) async fn marks_are_seen_with_the_listing(group: &dyn InstanceGroup, other: &dyn InstanceGroup) {
    let (place, others) = (group.lease().unwrap(), other.lease().unwrap());
    group.update().await.unwrap();
    assert_eq!(place.seen(), None);
    place.mark(&lease("a", 1)).await.unwrap();
    assert_eq!(place.seen(), None, "it counts when a listing shows it");
    for group in [group, other] {
        group.update().await.unwrap();
        assert_eq!(group.lease().unwrap().seen(), Some(lease("a", 1)));
    }
    others.mark(&lease("b", 2)).await.unwrap();
    group.update().await.unwrap();
    assert_eq!(place.seen(), Some(lease("b", 2)));
    others.unmark().await.unwrap();
    group.update().await.unwrap();
    assert_eq!(place.seen(), None);
    // What is not there can be removed.
    others.unmark().await.unwrap();
}

#[tokio::test]
async fn a_mark_is_a_tag_of_the_group() {
    let cloud = Cloud::new(Options::default()).await;
    let (group, other) = (cloud.build().await, cloud.build().await);
    marks_are_seen_with_the_listing(&group, &other).await;
    group.lease().unwrap().mark(&lease("a", 1)).await.unwrap();
    assert_eq!(cloud.aws.tag("build", "drover:lease"), Some(lease("a", 1).to_string()));
    assert!(
        group.lease().unwrap().removal().ends_with(
            "delete-tags --tags ResourceId=build,ResourceType=auto-scaling-group,Key=drover:lease"
        )
    );
    // Whatever else the tag holds is no mark.
    cloud.aws.set_tag("build", "drover:lease", Some("hands off"));
    group.update().await.unwrap();
    assert_eq!(group.lease().unwrap().seen(), None);
}

#[tokio::test]
async fn a_group_that_was_taken_over_since_the_last_listing_is_not_changed() {
    let cloud = Cloud::new(Options::default()).await;
    let (group, other) = (cloud.build().await, cloud.build().await);
    group.lease().unwrap().mark(&lease("a", 1)).await.unwrap();
    assert_eq!(group.increase(2).await.done, 2);
    let ids = running(&group, 2).await;
    other.lease().unwrap().mark(&lease("b", 2)).await.unwrap();
    let grown = group.increase(1).await;
    let Some(GroupError::Transient { message }) = &grown.error else { panic!("{grown:?}") };
    assert!(message.contains("taken over by entry `build` of manager b"), "{message}");
    let shrunk = group.decrease(&ids).await;
    assert!(shrunk.error.is_some() && shrunk.done.is_empty(), "{shrunk:?}");
    assert_eq!((cloud.aws.desired("build"), cloud.aws.launched()), (2, 2));
    // A later process of the same entry is another one too.
    other.lease().unwrap().mark(&lease("a", 2)).await.unwrap();
    assert!(group.increase(1).await.error.is_some());
    // Its own renewals, seen late, are not.
    group.lease().unwrap().mark(&lease("a", 3)).await.unwrap();
    cloud.aws.set_tag("build", "drover:lease", Some(&lease("a", 2).to_string()));
    assert_eq!(group.increase(1).await.done, 1);
}

#[tokio::test]
async fn a_mark_that_is_not_allowed_names_the_action() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    for action in ["CreateOrUpdateTags", "DeleteTags"] {
        cloud.aws.fail(action, Fault::AccessDenied, None);
    }
    let place = group.lease().unwrap();
    for (error, action) in
        [(place.mark(&lease("a", 1)).await, "CreateOrUpdateTags"), (place.unmark().await, "DeleteTags")]
    {
        let Err(GroupError::Denied { message }) = error else { panic!("{error:?}") };
        assert!(message.contains(&format!("the IAM policy lacks autoscaling:{action}")), "{message}");
    }
}
