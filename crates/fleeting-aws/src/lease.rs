//! Which manager scales the group: a tag of the group, which comes with each listing.

use async_trait::async_trait;
use aws_sdk_autoscaling::types::{AutoScalingGroup, Tag};
use fleeting::GroupError;
use fleeting::lease::{GroupLease, Lease};

use crate::diagnose::located;
use crate::error::classify;
use crate::group::AwsGroup;

/// Key of the tag. Instances do not get it.
pub(crate) const TAG: &str = "drover:lease";

const KIND: &str = "auto-scaling-group";

/// What is known of the mark.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// The last listing's.
    pub(crate) seen: Option<Lease>,
    /// What this process wrote last and has not removed.
    written: Option<Lease>,
}

// === impl Mark ===

impl Mark {
    /// Takes in a listing.
    pub(crate) fn listed(&mut self, group: &AutoScalingGroup) {
        let tag = group.tags().iter().find(|tag| tag.key() == Some(TAG));
        let text = tag.and_then(|tag| tag.value());
        self.seen = text.and_then(Lease::parse);
        if let Some(text) = text.filter(|_| self.seen.is_none()) {
            tracing::debug!(tag = TAG, text, "the mark of the group cannot be read and counts as none");
        }
    }

    /// An error if a listing from right before a change shows that another manager has taken the group over.
    pub(crate) fn check(&self) -> Result<(), GroupError> {
        self.written.as_ref().map_or(Ok(()), |written| written.stands(self.seen.as_ref()))
    }
}

#[async_trait]
impl GroupLease for AwsGroup {
    fn seen(&self) -> Option<Lease> {
        self.state().mark.seen.clone()
    }

    async fn mark(&self, lease: &Lease) -> Result<(), GroupError> {
        let tag = Tag::builder()
            .resource_id(self.name())
            .resource_type(KIND)
            .key(TAG)
            .value(lease.to_string())
            .propagate_at_launch(false)
            .build();
        let clients = self.clients().await?;
        clients
            .autoscaling
            .create_or_update_tags()
            .tags(tag)
            .send()
            .await
            .map_err(|error| classify("autoscaling:CreateOrUpdateTags", &error))?;
        self.state().mark.written = Some(lease.clone());
        Ok(())
    }

    async fn unmark(&self) -> Result<(), GroupError> {
        let tag = Tag::builder().resource_id(self.name()).resource_type(KIND).key(TAG).build();
        let clients = self.clients().await?;
        clients
            .autoscaling
            .delete_tags()
            .tags(tag)
            .send()
            .await
            .map_err(|error| classify("autoscaling:DeleteTags", &error))?;
        self.state().mark = Mark::default();
        Ok(())
    }

    fn removal(&self) -> String {
        let command = format!(
            "aws autoscaling delete-tags --tags ResourceId={},ResourceType={KIND},Key={TAG}",
            self.name()
        );
        located(&command, self.region(), self.config())
    }
}
