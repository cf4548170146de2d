//! The calls that read: paged and in batches, each error with the action that it came from.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::{Activity, AutoScalingGroup};
use aws_sdk_ec2::types::{Filter, Instance, InstanceLifecycleType};
use fleeting::{Doom, GroupError, InstanceId, Os};

use crate::announced::{self, EVENTS, SPOT_MARKS};
use crate::clients::Clients;
use crate::error::classify;
use crate::state::Details;

/// Values that one filter may have.
const FILTER_VALUES: usize = 200;

impl Clients {
    /// The group with its instances.
    pub(crate) async fn group(&self, name: &str) -> Result<AutoScalingGroup, GroupError> {
        let answer = self
            .autoscaling
            .describe_auto_scaling_groups()
            .auto_scaling_group_names(name)
            .send()
            .await
            .map_err(|error| classify("autoscaling:DescribeAutoScalingGroups", &error))?;
        let groups = answer.auto_scaling_groups.unwrap_or_default();
        let found = groups.into_iter().find(|group| group.auto_scaling_group_name() == Some(name));
        found.ok_or_else(|| GroupError::NotFound {
            what: format!("Auto Scaling group `{name}` in region {} (plugin_config.name)", self.region),
        })
    }

    /// The instances among `ids` that EC2 knows.
    pub(crate) async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, GroupError> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(FILTER_VALUES) {
            // A filter, because a name that EC2 does not know yet would fail the whole call otherwise.
            let values = chunk.iter().map(|id| id.as_str().to_owned()).collect();
            let filter = Filter::builder().name("instance-id").set_values(Some(values)).build();
            let mut pages = self.ec2.describe_instances().filters(filter).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| classify("ec2:DescribeInstances", &error))?;
                for reservation in page.reservations.unwrap_or_default() {
                    found.extend(reservation.instances.unwrap_or_default());
                }
            }
        }
        Ok(found)
    }

    /// Maintenance that AWS has scheduled, by instance: one paged call, however many instances the account has.
    pub(crate) async fn scheduled_events(&self) -> Result<BTreeMap<InstanceId, Doom>, GroupError> {
        let codes = EVENTS.iter().map(|code| (*code).to_owned()).collect();
        let filter = Filter::builder().name("event.code").set_values(Some(codes)).build();
        let mut events = BTreeMap::new();
        let mut pages = self.ec2.describe_instance_status().filters(filter).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify("ec2:DescribeInstanceStatus", &error))?;
            for status in page.instance_statuses() {
                let open = status.events().iter().filter(|event| {
                    let words = event.description().unwrap_or_default();
                    !words.starts_with("[Completed]") && !words.starts_with("[Canceled]")
                });
                let open = open.min_by_key(|event| event.not_before().map(|at| at.secs()));
                let (Some(id), Some(event)) = (status.instance_id(), open) else { continue };
                events.insert(InstanceId::from(id), announced::of_event(event));
            }
        }
        Ok(events)
    }

    /// Spot instances that AWS is about to take.
    pub(crate) async fn spot_notices(&self) -> Result<BTreeMap<InstanceId, Doom>, GroupError> {
        let codes = SPOT_MARKS.iter().map(|code| (*code).to_owned()).collect();
        let filter = Filter::builder().name("status-code").set_values(Some(codes)).build();
        let mut notices = BTreeMap::new();
        let mut pages = self.ec2.describe_spot_instance_requests().filters(filter).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify("ec2:DescribeSpotInstanceRequests", &error))?;
            for request in page.spot_instance_requests() {
                let Some(id) = request.instance_id() else { continue };
                notices.insert(InstanceId::from(id), announced::of_request(request.status()));
            }
        }
        Ok(notices)
    }

    /// What the group did last, newest first.
    pub(crate) async fn activities(&self, group: &str, most: i32) -> Result<Vec<Activity>, GroupError> {
        let answer = self
            .autoscaling
            .describe_scaling_activities()
            .auto_scaling_group_name(group)
            .max_records(most)
            .send()
            .await
            .map_err(|error| classify("autoscaling:DescribeScalingActivities", &error))?;
        Ok(answer.activities.unwrap_or_default())
    }
}

/// What EC2 says of an instance, as far as it matters here.
pub(crate) fn details(instance: &Instance) -> Details {
    let architecture = instance.architecture().map_or("x86_64", |architecture| architecture.as_str());
    // EC2 writes `windows`, its published description `Windows`.
    let windows =
        instance.platform().is_some_and(|platform| platform.as_str().eq_ignore_ascii_case("windows"));
    let os = match (architecture.ends_with("_mac"), windows) {
        (true, _) => Os::Darwin,
        (false, true) => Os::Windows,
        (false, false) => Os::Linux,
    };
    let arch = match architecture {
        "i386" => "386",
        "arm64" | "arm64_mac" => "arm64",
        _ => "amd64",
    };
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    Details {
        os,
        arch,
        private: text(instance.private_ip_address()),
        public: text(instance.public_ip_address()),
        zone: instance.placement().and_then(|place| place.availability_zone()).unwrap_or_default().to_owned(),
        spot: instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{ArchitectureValues, PlatformValues};
    use test_case::test_case;

    use super::*;

    #[test_case("i386", None, Os::Linux, "386")]
    #[test_case("x86_64", None, Os::Linux, "amd64")]
    #[test_case("arm64", None, Os::Linux, "arm64")]
    #[test_case("x86_64", Some("windows"), Os::Windows, "amd64")]
    #[test_case("x86_64", Some("Windows"), Os::Windows, "amd64"; "as some answers spell it")]
    #[test_case("x86_64_mac", None, Os::Darwin, "amd64")]
    #[test_case("arm64_mac", None, Os::Darwin, "arm64")]
    fn systems_are_recognised(architecture: &str, platform: Option<&str>, os: Os, arch: &str) {
        let instance = Instance::builder()
            .architecture(ArchitectureValues::from(architecture))
            .set_platform(platform.map(PlatformValues::from))
            .build();
        let details = details(&instance);
        assert_eq!((details.os, details.arch), (os, arch));
    }
}
