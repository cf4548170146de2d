//! The calls of EC2.

use chrono::{DateTime, Utc};

use crate::fault::ErrorAnswer;
use crate::instance::Instance;
use crate::mock::{Inner, SPOT_NOTICE};
use crate::query::Query;
use crate::server::unknown;
use crate::world::{World, delta};
use crate::xml::Xml;

/// Instances of one page.
const PAGE: usize = 100;

pub(crate) fn answer(inner: &Inner, action: &str, query: &Query) -> Result<Xml, ErrorAnswer> {
    if query.flag("DryRun") {
        return Err(ErrorAnswer {
            status: 412,
            ..ErrorAnswer::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        });
    }
    match action {
        "DescribeInstances" => inner.look(|world| instances(world, query)),
        "DescribeInstanceStatus" => inner.look(|world| Ok(statuses(world, query))),
        "DescribeSpotInstanceRequests" => inner.look(|world| Ok(spot_requests(world, query))),
        "GetPasswordData" => inner.look(|world| {
            let id = query.get("InstanceId").unwrap_or_default();
            let instance = world.instances.get(id).ok_or_else(|| not_found(id))?;
            let group = instance.group.as_ref().and_then(|name| world.groups.get(name));
            let data = group.and_then(|group| group.options.password_data.clone()).unwrap_or_default();
            Ok(Xml::new()
                .text("instanceId", id)
                .text("timestamp", "2026-01-01T00:00:00Z")
                .text("passwordData", data))
        }),
        "TerminateInstances" => {
            let ids = query.list("InstanceId");
            inner.change_with(|world, now, options| {
                if let Some(missing) = ids.iter().find(|id| !world.instances.contains_key(*id)) {
                    return Err(not_found(missing));
                }
                for id in &ids {
                    let cause =
                        "an instance was taken out of service in response to an EC2 instance status check.";
                    world.terminate(id, cause, now, options);
                    if let Some(instance) = world.instances.get_mut(id) {
                        let code = "Client.UserInitiatedShutdown";
                        instance.reason = Some((code.to_owned(), format!("{code}: User initiated shutdown")));
                    }
                }
                Ok(Xml::new().list(
                    "instancesSet",
                    "item",
                    ids.iter().map(|id| Xml::new().text("instanceId", id)),
                ))
            })
        }
        _ => Err(unknown(action)),
    }
}

fn instances(world: &World, query: &Query) -> Result<Xml, ErrorAnswer> {
    let named = query.list("InstanceId");
    if let Some(missing) = named.iter().find(|id| !world.instances.contains_key(*id)) {
        return Err(not_found(missing));
    }
    let filters = query.filters();
    let chosen: Vec<&Instance> = world
        .instances
        .values()
        .filter(|instance| named.is_empty() || named.contains(&instance.id))
        .filter(|instance| {
            filters.iter().all(|(name, values)| match name.as_str() {
                "instance-id" => values.contains(&instance.id),
                "instance-state-name" => values.iter().any(|value| value == instance.stage.ec2().0),
                "tag:aws:autoscaling:groupName" => {
                    instance.group.as_ref().is_some_and(|group| values.contains(group))
                }
                _ => false,
            })
        })
        .collect();
    let from = query.number("NextToken").and_then(|from| usize::try_from(from).ok()).unwrap_or(0);
    let page = chosen.iter().skip(from).take(PAGE);
    let next = (from + PAGE < chosen.len()).then_some(from + PAGE);
    let reservations = page.map(|instance| {
        Xml::new().text("reservationId", format!("r-{}", instance.id)).list(
            "instancesSet",
            "item",
            [one(world, instance)],
        )
    });
    Ok(Xml::new().list("reservationSet", "item", reservations).maybe("nextToken", next))
}

fn one(world: &World, instance: &Instance) -> Xml {
    let group = instance.group.as_ref().and_then(|name| world.groups.get(name)).map(|group| &group.options);
    let (state, code) = instance.stage.ec2();
    let address = instance.address.as_ref().filter(|_| state == "running");
    let public = address.filter(|_| group.is_none_or(|group| group.public));
    Xml::new()
        .text("instanceId", &instance.id)
        .text("imageId", "ami-12345678")
        .inner("instanceState", Xml::new().text("code", code).text("name", state))
        .maybe("reason", instance.reason.as_ref().map(|(_, message)| message))
        .inner(
            "stateReason",
            match instance.reason.as_ref().filter(|_| !instance.stage.is_live()) {
                Some((code, message)) => Xml::new().text("code", code).text("message", message),
                None => Xml::new(),
            },
        )
        .text("instanceType", &instance.kind.instance_type)
        .text("launchTime", instance.launched.format("%Y-%m-%dT%H:%M:%S%.3fZ"))
        .inner("placement", Xml::new().text("availabilityZone", &instance.zone))
        .maybe("platform", group.filter(|group| group.windows).map(|_| "windows"))
        .text("architecture", group.map_or("x86_64", |group| group.architecture.as_str()))
        .maybe(
            "instanceLifecycle",
            (instance.kind.spot || group.is_some_and(|group| group.spot)).then_some("spot"),
        )
        .maybe("privateIpAddress", address)
        .maybe("ipAddress", public)
}

fn statuses(world: &World, query: &Query) -> Xml {
    let filters = query.filters();
    let chosen =
        world.instances.values().filter(|instance| instance.stage.ec2().0 == "running").filter(|instance| {
            filters.iter().all(|(name, values)| {
                name == "event.code" && instance.event.as_ref().is_some_and(|event| values.contains(event))
            })
        });
    let lines = chosen.map(|instance| {
        let events = instance.event.iter().map(|code| {
            Xml::new()
                .text("code", code)
                .text("description", "The instance is running on degraded hardware")
                .maybe("notBefore", instance.announced.event_at.map(stamp))
        });
        Xml::new()
            .text("instanceId", &instance.id)
            .text("availabilityZone", &instance.zone)
            .list("eventsSet", "item", events)
            .inner("instanceState", Xml::new().text("code", 16).text("name", "running"))
    });
    Xml::new().list("instanceStatusSet", "item", lines)
}

fn spot_requests(world: &World, query: &Query) -> Xml {
    let filters = query.filters();
    let chosen =
        world.instances.values().filter(|instance| instance.stage.is_live()).filter_map(|instance| {
            let group = instance.group.as_ref().and_then(|name| world.groups.get(name))?;
            let code = instance.spot_mark.clone().unwrap_or_else(|| "fulfilled".to_owned());
            let wanted = filters.iter().all(|(name, values)| name == "status-code" && values.contains(&code));
            ((instance.kind.spot || group.options.spot) && wanted).then(|| {
                Xml::new()
                    .text("spotInstanceRequestId", format!("sir-{}", instance.id))
                    .text("instanceId", &instance.id)
                    .text("state", "active")
                    .inner(
                        "status",
                        // The notice begins when the request is marked.
                        Xml::new().text("code", code).maybe(
                            "updateTime",
                            instance.announced.taken.map(|at| stamp(at - delta(SPOT_NOTICE))),
                        ),
                    )
            })
        });
    Xml::new().list("spotInstanceRequestSet", "item", chosen)
}

fn stamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn not_found(id: &str) -> ErrorAnswer {
    ErrorAnswer::new("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
}
