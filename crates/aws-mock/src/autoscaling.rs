//! The calls of Auto Scaling.

use crate::fault::ErrorAnswer;
use crate::mock::Inner;
use crate::query::Query;
use crate::server::unknown;
use crate::world::{Activity, Group, World};
use crate::xml::Xml;

/// Records of one page.
const PAGE: usize = 100;

pub(crate) fn answer(inner: &Inner, action: &str, query: &Query) -> Result<Xml, ErrorAnswer> {
    match action {
        "DescribeAutoScalingGroups" => Ok(inner.look_back(|world| groups(world, query))),
        "DescribeAutoScalingInstances" => Ok(inner.look_back(|world| instances(world, query))),
        "DescribeScalingActivities" => inner.look(|world| activities(world, query)),
        "DescribeLifecycleHooks" => inner.look(|world| hooks(world, query)),
        "DescribePolicies" => inner.look(|world| {
            let group = group(world, query)?;
            let policies = group.options.policies.iter().map(|name| Xml::new().text("PolicyName", name));
            Ok(Xml::new().list("ScalingPolicies", "member", policies))
        }),
        "DescribeScheduledActions" => Ok(Xml::new().list("ScheduledUpdateGroupActions", "member", [])),
        "DescribeWarmPool" => Ok(Xml::new().list("Instances", "member", [])),
        "SetDesiredCapacity" => set_desired(inner, query),
        "TerminateInstanceInAutoScalingGroup" => terminate(inner, query),
        "UpdateAutoScalingGroup" => inner.change(|world, _| {
            let group = group_mut(world, query)?;
            let number = |name| query.number(name).and_then(|number| u32::try_from(number).ok());
            group.options.min = number("MinSize").unwrap_or(group.options.min);
            group.options.max = number("MaxSize").unwrap_or(group.options.max);
            group.desired = number("DesiredCapacity")
                .unwrap_or(group.desired)
                .clamp(group.options.min, group.options.max);
            if query.get("NewInstancesProtectedFromScaleIn").is_some() {
                group.options.protected = query.flag("NewInstancesProtectedFromScaleIn");
            }
            Ok(Xml::new())
        }),
        "SuspendProcesses" => inner.change(|world, _| {
            group_mut(world, query)?.options.suspended.extend(query.list("ScalingProcesses"));
            Ok(Xml::new())
        }),
        "ResumeProcesses" => inner.change(|world, _| {
            let resumed = query.list("ScalingProcesses");
            group_mut(world, query)?.options.suspended.retain(|process| !resumed.contains(process));
            Ok(Xml::new())
        }),
        "SetInstanceProtection" => inner.change(|world, _| {
            for id in query.list("InstanceIds") {
                if let Some(instance) = world.instances.get_mut(&id) {
                    instance.protected = query.flag("ProtectedFromScaleIn");
                }
            }
            Ok(Xml::new())
        }),
        _ => Err(unknown(action)),
    }
}

fn groups(world: &World, query: &Query) -> Xml {
    let names = query.list("AutoScalingGroupNames");
    let chosen =
        world.groups.iter().filter(|(name, _)| names.is_empty() || names.contains(name)).map(|(name, group)| {
            let options = &group.options;
            let members = world.members(name).map(|instance| {
                Xml::new()
                    .text("InstanceId", &instance.id)
                    .text("AvailabilityZone", &instance.zone)
                    .text("LifecycleState", instance.stage.lifecycle())
                    .text("HealthStatus", instance.health)
                    .text("ProtectedFromScaleIn", instance.protected)
                    .text("InstanceType", "t3.large")
            });
            let xml = Xml::new()
                .text("AutoScalingGroupName", name)
                .text("AutoScalingGroupARN", format!("arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:x:autoScalingGroupName/{name}"))
                .text("MinSize", options.min)
                .text("MaxSize", options.max)
                .text("DesiredCapacity", group.desired)
                .text("DefaultCooldown", 300)
                .text("HealthCheckType", "EC2")
                .text("HealthCheckGracePeriod", 0)
                .text("CreatedTime", "2026-01-01T00:00:00Z")
                .text("NewInstancesProtectedFromScaleIn", options.protected)
                .text("CapacityRebalance", options.capacity_rebalance)
                .list("AvailabilityZones", "member", [])
                .list(
                    "SuspendedProcesses",
                    "member",
                    options.suspended.iter().map(|process| Xml::new().text("ProcessName", process)),
                )
                .list("Instances", "member", members);
            // Lists of plain texts.
            let zones: String = options.zones.iter().map(|zone| format!("<member>{zone}</member>")).collect();
            let xml = Xml::raw(xml.into_string().replace(
                "<AvailabilityZones></AvailabilityZones>",
                &format!("<AvailabilityZones>{zones}</AvailabilityZones>"),
            ));
            if options.warm_pool {
                xml.inner("WarmPoolConfiguration", Xml::new().text("MinSize", 1))
            } else {
                xml
            }
        });
    Xml::new().list("AutoScalingGroups", "member", chosen)
}

fn instances(world: &World, query: &Query) -> Xml {
    let wanted = query.list("InstanceIds");
    let members = world.instances.values().filter_map(|instance| {
        let group = instance.group.as_ref()?;
        (wanted.is_empty() || wanted.contains(&instance.id)).then(|| {
            Xml::new()
                .text("InstanceId", &instance.id)
                .text("AutoScalingGroupName", group)
                .text("AvailabilityZone", &instance.zone)
                .text("LifecycleState", instance.stage.lifecycle())
                .text("HealthStatus", instance.health)
                .text("ProtectedFromScaleIn", instance.protected)
        })
    });
    Xml::new().list("AutoScalingInstances", "member", members)
}

fn activities(world: &World, query: &Query) -> Result<Xml, ErrorAnswer> {
    let group = group(world, query)?;
    let most = query.number("MaxRecords").and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE);
    let newest = group.activities.iter().enumerate().rev().take(most).map(|(number, activity)| {
        let Activity { at, description, cause, status, message } = activity;
        Xml::new()
            .text("ActivityId", format!("{number:08x}"))
            .text("AutoScalingGroupName", &group.options.name)
            .text("Description", description)
            .text("Cause", cause)
            .text("StartTime", at.format("%Y-%m-%dT%H:%M:%S%.3fZ"))
            .text("StatusCode", status)
            .maybe("StatusMessage", message.as_ref())
            .text("Progress", 100)
    });
    Ok(Xml::new().list("Activities", "member", newest))
}

fn hooks(world: &World, query: &Query) -> Result<Xml, ErrorAnswer> {
    let options = &group(world, query)?.options;
    let hooks = [
        ("launching", "autoscaling:EC2_INSTANCE_LAUNCHING", options.launching_hook),
        ("terminating", "autoscaling:EC2_INSTANCE_TERMINATING", options.terminating_hook),
    ];
    let hooks = hooks.into_iter().filter_map(|(name, transition, held)| {
        held.map(|held| {
            Xml::new()
                .text("LifecycleHookName", name)
                .text("LifecycleTransition", transition)
                .text("HeartbeatTimeout", held.as_secs())
        })
    });
    Ok(Xml::new().list("LifecycleHooks", "member", hooks))
}

fn set_desired(inner: &Inner, query: &Query) -> Result<Xml, ErrorAnswer> {
    let wanted = query.number("DesiredCapacity").unwrap_or(-1);
    inner.change(|world, _| {
        let group = group_mut(world, query)?;
        let (min, max) = (i64::from(group.options.min), i64::from(group.options.max));
        if wanted > max {
            return Err(invalid(format!(
                "New SetDesiredCapacity value {wanted} is above max value {max} for the AutoScalingGroup."
            )));
        }
        if wanted < min {
            return Err(invalid(format!(
                "New SetDesiredCapacity value {wanted} is below min value {min} for the AutoScalingGroup."
            )));
        }
        group.desired = u32::try_from(wanted).unwrap_or(0);
        Ok(Xml::new())
    })
}

fn terminate(inner: &Inner, query: &Query) -> Result<Xml, ErrorAnswer> {
    let id = query.get("InstanceId").unwrap_or_default();
    let decrement = query.flag("ShouldDecrementDesiredCapacity");
    inner.change_with(|world, now, options| {
        let member = world.instances.get(id).filter(|instance| instance.stage.is_live());
        let name = member.and_then(|instance| instance.group.clone());
        let Some(group) = name.and_then(|name| world.groups.get_mut(&name)) else {
            return Err(invalid(format!("Instance Id not found - No managed instance found for instance ID: {id}")));
        };
        if decrement {
            if group.desired <= group.options.min {
                return Err(invalid(format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will violate \
                     group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower \
                     group's min size.",
                    group.options.min
                )));
            }
            group.desired -= 1;
        }
        world.terminate(id, "an instance was taken out of service in response to a user request.", now, options);
        Ok(Xml::new().inner("Activity", Xml::new().text("ActivityId", "1").text("StatusCode", "InProgress")))
    })
}

fn group<'a>(world: &'a World, query: &Query) -> Result<&'a Group, ErrorAnswer> {
    let name = query.get("AutoScalingGroupName").unwrap_or_default();
    world.groups.get(name).ok_or_else(|| no_group(name))
}

fn group_mut<'a>(world: &'a mut World, query: &Query) -> Result<&'a mut Group, ErrorAnswer> {
    let name = query.get("AutoScalingGroupName").unwrap_or_default();
    world.groups.get_mut(name).ok_or_else(|| no_group(name))
}

fn no_group(name: &str) -> ErrorAnswer {
    invalid(format!("AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"))
}

fn invalid(message: String) -> ErrorAnswer {
    ErrorAnswer::new("ValidationError", message)
}
