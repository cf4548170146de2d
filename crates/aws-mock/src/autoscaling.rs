//! The calls of Auto Scaling.

use crate::fault::ErrorAnswer;
use crate::instance::Instance;
use crate::kinds::{HookResult, MixedPolicy, WarmPool};
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
        "DescribeWarmPool" => inner.look_back(|world| warm_pool(world, query)),
        "DescribeInstanceRefreshes" => inner.look(|world| {
            let group = group(world, query)?;
            let refreshes = group.options.refresh.iter().map(|status| {
                Xml::new()
                    .text("InstanceRefreshId", "08b91cf7-8fa6-48af-b6a6-d227f40f1b9b")
                    .text("AutoScalingGroupName", &group.options.name)
                    .text("Status", status)
            });
            Ok(Xml::new().list("InstanceRefreshes", "member", refreshes))
        }),
        "CompleteLifecycleAction" => complete(inner, query),
        "SetDesiredCapacity" => set_desired(inner, query),
        "CreateOrUpdateTags" => tag(inner, query, true),
        "DeleteTags" => tag(inner, query, false),
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
            let weighted = options.mixed.as_ref().is_some_and(MixedPolicy::has_weights);
            let members = world.members(name).map(|instance| member(instance, weighted));
            let tags = group.tags.iter().map(|(key, value)| {
                Xml::new()
                    .text("ResourceId", name)
                    .text("ResourceType", "auto-scaling-group")
                    .text("Key", key)
                    .text("Value", value)
                    .text("PropagateAtLaunch", false)
            });
            let xml = Xml::new()
                .text("AutoScalingGroupName", name)
                .text("AutoScalingGroupARN", format!("arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:x:autoScalingGroupName/{name}"))
                .text("MinSize", options.min)
                .text("MaxSize", options.max)
                .text("DesiredCapacity", group.desired)
                .text("DefaultCooldown", 300)
                .text("HealthCheckType", &options.health_check)
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
                .list("Instances", "member", members)
                .list("Tags", "member", tags);
            // Lists of plain texts.
            let zones: String = options.zones.iter().map(|zone| format!("<member>{zone}</member>")).collect();
            let xml = Xml::raw(xml.into_string().replace(
                "<AvailabilityZones></AvailabilityZones>",
                &format!("<AvailabilityZones>{zones}</AvailabilityZones>"),
            ));
            let xml = xml.maybe("DesiredCapacityType", options.capacity_type.as_ref());
            let xml = match &options.mixed {
                Some(policy) => xml.inner("MixedInstancesPolicy", mixed(policy)),
                None => xml,
            };
            match &options.warm_pool {
                Some(pool) => xml.inner("WarmPoolConfiguration", configured(pool)),
                None => xml,
            }
        });
    Xml::new().list("AutoScalingGroups", "member", chosen)
}

fn member(instance: &Instance, weighted: bool) -> Xml {
    Xml::new()
        .text("InstanceId", &instance.id)
        .text("AvailabilityZone", &instance.zone)
        .text("LifecycleState", instance.stage.lifecycle())
        .text("HealthStatus", instance.health)
        .text("ProtectedFromScaleIn", instance.protected)
        .text("InstanceType", &instance.kind.instance_type)
        .maybe("WeightedCapacity", weighted.then_some(instance.kind.weight))
}

fn mixed(policy: &MixedPolicy) -> Xml {
    let overrides = policy.overrides.iter().map(|chosen| {
        Xml::new().text("InstanceType", &chosen.instance_type).maybe("WeightedCapacity", chosen.weight)
    });
    let template = Xml::new()
        .inner(
            "LaunchTemplateSpecification",
            Xml::new().text("LaunchTemplateId", "lt-0123456789abcdef0").text("Version", "$Latest"),
        )
        .list("Overrides", "member", overrides);
    let spread = Xml::new()
        .text("OnDemandAllocationStrategy", "prioritized")
        .text("OnDemandBaseCapacity", policy.on_demand_base)
        .text("OnDemandPercentageAboveBaseCapacity", policy.on_demand_percentage)
        .text("SpotAllocationStrategy", &policy.spot_allocation);
    Xml::new().inner("LaunchTemplate", template).inner("InstancesDistribution", spread)
}

fn configured(pool: &WarmPool) -> Xml {
    Xml::new()
        .text("MinSize", pool.size)
        .text("MaxGroupPreparedCapacity", -1)
        .text("PoolState", "Stopped")
        .inner("InstanceReusePolicy", Xml::new().text("ReuseOnScaleIn", pool.reuse))
}

fn warm_pool(world: &World, query: &Query) -> Result<Xml, ErrorAnswer> {
    let options = &group(world, query)?.options;
    let warm = world.members(&options.name).filter(|instance| instance.stage.is_warm());
    let xml = Xml::new().list("Instances", "member", warm.map(|instance| member(instance, false)));
    Ok(match &options.warm_pool {
        Some(pool) => xml.inner("WarmPoolConfiguration", configured(pool)),
        None => xml,
    })
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
    let hooks = options.hooks().map(|hook| {
        Xml::new()
            .text("LifecycleHookName", hook.name)
            .text("LifecycleTransition", hook.transition)
            .text("HeartbeatTimeout", hook.held.as_secs())
            .text("DefaultResult", options.launching_default.name())
    });
    Ok(Xml::new().list("LifecycleHooks", "member", hooks))
}

fn complete(inner: &Inner, query: &Query) -> Result<Xml, ErrorAnswer> {
    let id = query.get("InstanceId").unwrap_or_default();
    let result = match query.get("LifecycleActionResult") {
        Some("CONTINUE") => HookResult::Continue,
        Some("ABANDON") => HookResult::Abandon,
        other => return Err(invalid(format!("Invalid LifecycleActionResult {other:?}"))),
    };
    let hook = query.get("LifecycleHookName").unwrap_or_default();
    inner.change_with(|world, now, options| {
        let name = group(world, query)?.options.name.clone();
        let held_by = world.instances.get(id).filter(|instance| instance.group.as_deref() == Some(&name));
        let held_by = held_by.and_then(|instance| match instance.stage.lifecycle() {
            "Pending:Wait" => Some("launching"),
            "Terminating:Wait" => Some("terminating"),
            _ => None,
        });
        if held_by != Some(hook) || !world.complete_hook(id, result, now, options) {
            return Err(invalid(format!("No active Lifecycle Action found with instance ID {id}")));
        }
        Ok(Xml::new())
    })
}

/// One tag of one group, written or removed.
fn tag(inner: &Inner, query: &Query, write: bool) -> Result<Xml, ErrorAnswer> {
    let of = |name| query.get(&format!("Tags.member.1.{name}")).unwrap_or_default().to_owned();
    let (name, key, value) = (of("ResourceId"), of("Key"), of("Value"));
    let fits = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
    if key.starts_with("aws:") || key.is_empty() || key.len() > 128 {
        return Err(invalid(format!("Invalid tag key: {key}")));
    }
    if value.chars().count() > 256 || !value.chars().all(fits) {
        return Err(invalid(format!("Invalid tag value: {value}")));
    }
    inner.change(|world, _| {
        let group = world.groups.get_mut(&name).ok_or_else(|| no_group(&name))?;
        if write {
            group.tags.insert(key, value);
        } else {
            group.tags.remove(&key);
        }
        Ok(Xml::new())
    })
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
        let weight = member.map_or(1, |instance| instance.kind.weight);
        let name = member.and_then(|instance| instance.group.clone());
        let Some(group) = name.and_then(|name| world.groups.get_mut(&name)) else {
            return Err(invalid(format!("Instance Id not found - No managed instance found for instance ID: {id}")));
        };
        if decrement {
            if group.desired < group.options.min + weight {
                return Err(invalid(format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will violate \
                     group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower \
                     group's min size.",
                    group.options.min
                )));
            }
            group.desired -= weight;
        }
        world.retire(id, "an instance was taken out of service in response to a user request.", now, options);
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
