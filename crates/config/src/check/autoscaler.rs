//! Rules for `[runners.autoscaler]` and `[runners.instance]`.

use std::collections::BTreeMap;
use std::time::Duration;

use connect_info::DaemonAddress;
use taskscaler_core::{Period, ScaleFactor};

use super::Findings;
use crate::capability::{ExecutorName, PluginReference};
use crate::model::{Autoscaler, Connector, Policy, Runner};
use crate::read::KeyPath;

/// Keys that a provider cannot do without.
const REQUIRED: &[(&str, &[&str])] = &[
    ("aws", &["name"]),
    ("googlecloud", &["name", "project", "zone"]),
    ("azure", &["name", "subscription_id", "resource_group_name"]),
    ("docker", &["name", "image"]),
    ("static", &["instances"]),
];

/// Keys that together say which group it is, its name first.
const IDENTITY: &[(&str, &[&str])] = &[
    ("aws", &["name", "region", "profile", "config_file", "credentials_file", "endpoint"]),
    ("googlecloud", &["name", "project", "zone", "credentials_file"]),
    ("azure", &["name", "subscription_id", "resource_group_name"]),
    ("docker", &["name", "host"]),
];

pub(super) fn check(runner: &Runner, settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    plugin(settings, at, findings);
    limits(settings, at, findings);
    let connector = settings.connector_config();
    check_connector(&connector, &at.key("connector_config"), findings);
    if settings.plugin().is_some_and(|plugin| plugin.name == "azure") && !connector.use_static_credentials {
        findings.warning(
            "static-credentials",
            &at.key("connector_config").key("use_static_credentials"),
            "plugin `azure` cannot make credentials of its own",
            "set use_static_credentials = true, and a password or key_path",
        );
    }
    policies(settings, at, findings);
    isolation(runner, settings, at, findings);
    buckets(settings, at, findings);
}

fn plugin(settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    let Some(plugin) = settings.plugin() else {
        let hint = "name the provider, for example plugin = \"aws\"";
        findings.error("no-plugin", &at.key("plugin"), "[runners.autoscaler] has no `plugin`", hint);
        return;
    };
    if !plugin.has_valid_version() || plugin.name.is_empty() {
        findings.error(
            "plugin",
            &at.key("plugin"),
            format!("`{plugin}` is not a reference to a plugin"),
            "write a name with an optional version: aws, aws:latest, aws:1, aws:1.2 or aws:1.2.3",
        );
    }
    plugin_config(settings, &plugin, at, findings);
}

fn plugin_config(settings: &Autoscaler, plugin: &PluginReference, at: &KeyPath, findings: &mut Findings) {
    let Some((_, required)) = REQUIRED.iter().find(|(name, _)| *name == plugin.name) else { return };
    let config = settings.plugin_config.clone().unwrap_or_default();
    let at = at.key("plugin_config");
    for key in *required {
        let is_there = config.get().get(*key).is_some_and(|value| value.as_str() != Some(""));
        if !is_there {
            findings.error(
                "plugin-config",
                &at.key(key),
                format!("plugin `{}` needs `{key}` in [runners.autoscaler.plugin_config]", plugin.name),
                &format!("add {key} = \"...\""),
            );
        }
    }
    if plugin.name == "googlecloud"
        && let Some(zone) = config.get().get("zone").and_then(toml::Value::as_str)
        && zone.rsplit('-').next().is_some_and(|last| last.len() != 1)
        && zone.contains('-')
    {
        findings.warning(
            "zone",
            &at,
            format!("`zone` is \"{zone}\", which is the name of a region"),
            &format!(
                "write a zone, for example \"{zone}-b\"; groups of a region are not found under this key"
            ),
        );
    }
}

fn limits(settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    if let Some(capacity) = settings.capacity_per_instance.filter(|capacity| *capacity < 1) {
        findings.error(
            "impossible",
            &at.key("capacity_per_instance"),
            format!("`capacity_per_instance` must be at least 1, found {capacity}"),
            "remove the key for its default of 1",
        );
    }
    let unlimited = "0 means no limit";
    findings.not_negative(at, "max_use_count", settings.max_use_count, unlimited);
    findings.not_negative(at, "max_instances", settings.max_instances, unlimited);
    findings.not_negative(at, "failure_threshold", settings.failure_threshold, "0 means the default of 3");
    let retries = settings.shutdown_deletion_retries;
    findings.not_negative(at, "shutdown_deletion_retries", retries, "0 means the default of 3");
    save_before_end(settings, at, findings);
    lease(settings, at, findings);
    if settings.max_instances.is_none_or(|most| most == 0) {
        findings.warning(
            "no-maximum",
            &at.key("max_instances"),
            "`max_instances` is not set: only the size of the group limits what is started and paid for",
            "set max_instances",
        );
    }
    if let Some(throttle) = &settings.scale_throttle {
        let at = at.key("scale_throttle");
        if let Some(limit) = throttle.limit.filter(|limit| *limit < -1) {
            let message = format!("`limit` must be -1 or more, found {limit}");
            findings.error(
                "impossible",
                &at.key("limit"),
                message,
                "-1 means no limit, 0 the default of 100 per second",
            );
        }
        findings.not_negative(&at, "burst", throttle.burst, "remove the key for its default");
        if throttle.limit == Some(-1) && throttle.burst.is_some() {
            let message = "`burst` has no effect while `limit` is -1";
            findings.warning("scale-throttle", &at.key("burst"), message, "remove one of the two");
        }
    }
}

/// More of the two minutes of a spot instance cannot be given to saving what a job leaves.
const LONGEST_SAVE: Duration = Duration::from_secs(90);

/// Shortest mark: it is written in whole seconds, and renewed when a third of it is over.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

fn save_before_end(settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    if settings.save_before_end() > LONGEST_SAVE {
        findings.warning(
            "save-before-end",
            &at.key("save_before_end"),
            "`save_before_end` is above 90s: a spot instance is announced two minutes before its end, so nothing would be saved \
             there",
            "lower it, or remove the key for its default of 40s",
        );
    }
}

fn lease(settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    let Some(valid) = settings.group_lease_ttl else { return };
    let at = at.key("group_lease_ttl");
    if valid < SHORTEST_LEASE {
        let message = "`group_lease_ttl` must be at least 2s".to_owned();
        findings.error("impossible", &at, message, "remove the key for its default of 15m");
    } else if settings.group_lease == Some(false) {
        let message = "`group_lease_ttl` has no effect while `group_lease` is false";
        findings.warning("group-lease", &at, message, "remove one of the two");
    } else if valid < 3 * settings.update_interval() {
        findings.warning(
            "group-lease",
            &at,
            "`group_lease_ttl` is below three times `update_interval`: a manager that is slow for a moment counts as gone",
            "remove the key for its default of 15m",
        );
    }
}

/// Entries that would scale one group. A provider that is reached in another way may be another cloud.
pub(super) fn shared_groups(runners: &[Runner], at: &KeyPath, findings: &mut Findings) {
    let mut groups: BTreeMap<(String, Vec<Option<String>>), usize> = BTreeMap::new();
    let mut machines: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (index, runner) in runners.iter().enumerate() {
        let scaled = runner.executor().is_some_and(ExecutorName::is_autoscaled);
        let Some(settings) = runner.autoscaler.as_ref().filter(|_| scaled) else { continue };
        let (Some(plugin), Some(config)) = (settings.plugin(), settings.plugin_config.as_ref()) else {
            continue;
        };
        let at = at.index(index).key("autoscaler").key("plugin_config");
        if plugin.name == "static" {
            shared_machines(runners, index, config.get(), &mut machines, &at, findings);
            continue;
        }
        let Some((_, keys)) = IDENTITY.iter().find(|(name, _)| *name == plugin.name) else { continue };
        let value = |key: &&str| {
            config
                .get()
                .get(*key)
                .and_then(toml::Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let identity: Vec<Option<String>> = keys.iter().map(value).collect();
        let Some(Some(name)) = identity.first().cloned() else { continue };
        let first = *groups.entry((plugin.name.clone(), identity)).or_insert(index);
        if first != index {
            findings.error(
                "shared-group",
                &at.key("name"),
                format!(
                    "runner `{}` has the group `{name}`, which runner `{}` has too: two scalers would end each other's \
                     instances",
                    runner.label(),
                    runners[first].label()
                ),
                "give each entry a group of its own; one entry may serve several projects and tags",
            );
        }
    }
}

/// Machines that two pools name.
fn shared_machines(
    runners: &[Runner],
    index: usize,
    config: &toml::Table,
    known: &mut BTreeMap<String, (usize, String)>,
    at: &KeyPath,
    findings: &mut Findings,
) {
    let Some(instances) = config.get("instances").and_then(toml::Value::as_table) else { return };
    for (name, machine) in instances {
        let text = |key: &str| machine.get(key).and_then(toml::Value::as_str);
        let Some(address) = text("internal_addr").or_else(|| text("external_addr")) else { continue };
        let port = machine.get("protocol_port").map(ToString::to_string).unwrap_or_default();
        let user = text("username").unwrap_or_default();
        let here = format!("{user}@{address} {port}");
        match known.get(&here) {
            Some((other, theirs)) if *other != index => findings.warning(
                "shared-machine",
                &at.key("instances").key(name),
                format!(
                    "machine `{name}` of runner `{}` is machine `{theirs}` of runner `{}`: together they may give it more jobs \
                     than either allows",
                    runners[index].label(),
                    runners[*other].label()
                ),
                "name each machine in one entry",
            ),
            Some(_) => {}
            None => {
                known.insert(here, (index, name.clone()));
            }
        }
    }
}

fn check_connector(connector: &Connector, at: &KeyPath, findings: &mut Findings) {
    if let Some(port) = connector.protocol_port.filter(|port| !(0..=65535).contains(port)) {
        let message = format!("`protocol_port` is not a port, found {port}");
        findings.error(
            "port",
            &at.key("protocol_port"),
            message,
            "write a number from 1 to 65535; 0 means the default",
        );
    }
    if connector.use_static_credentials && connector.password.is_none() && connector.key_path.is_none() {
        findings.warning(
            "no-credentials",
            &at.key("use_static_credentials"),
            "`use_static_credentials` is set, but there is neither a `password` nor a `key_path`",
            "set one of them",
        );
    }
    if connector.use_static_credentials && connector.username.is_none() {
        findings.warning(
            "no-username",
            &at.key("use_static_credentials"),
            "`use_static_credentials` is set without a `username`",
            "set the login name of the instances",
        );
    }
}

fn policies(settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    let at = at.key("policy");
    let most =
        settings.max_instances().map(|most| u64::from(most) * u64::from(settings.capacity_per_instance()));
    for (index, policy) in settings.policy.iter().enumerate() {
        let at = at.index(index);
        check_policy(policy, &at, findings);
        if let Some(most) = most.filter(|most| u64::from(policy.idle_count()) > *most) {
            findings.warning(
                "impossible-idle",
                &at.key("idle_count"),
                format!(
                    "`idle_count` is {}, but max_instances x capacity_per_instance is only {most}",
                    policy.idle_count()
                ),
                "`idle_count` counts jobs, not instances; lower it or raise `max_instances`",
            );
        }
        if index > 0 && policy.is_general() {
            findings.warning(
                "policy-order",
                &at,
                format!("entry {} of policy applies always, so the entries before it never do", index + 1),
                "the last entry that matches applies: put the general one first",
            );
        }
    }
    if !settings.policy.is_empty() && !settings.policy.iter().any(Policy::is_general) {
        findings.warning(
            "policy-gaps",
            &at.index(0),
            "no entry of policy applies always: outside of the periods nothing is kept idle",
            "put an entry without `periods` first",
        );
    }
}

fn check_policy(policy: &Policy, at: &KeyPath, findings: &mut Findings) {
    periods(&policy.periods, at, findings);
    findings.zone(at, "timezone", policy.timezone.as_deref());
    findings.not_negative(at, "idle_count", policy.idle_count, "0 keeps nothing idle");
    findings.not_negative(at, "scale_factor_limit", policy.scale_factor_limit, "0 means no limit");
    if let Err(error) = ScaleFactor::try_from(policy.scale_factor()) {
        findings.error("impossible", &at.key("scale_factor"), error.to_string(), "0 switches the factor off");
    }
    if policy.scale_factor_limit().is_some() && policy.scale_factor() <= 0.0 {
        let message = "`scale_factor_limit` has no effect without a `scale_factor`";
        findings.warning(
            "scale-factor",
            &at.key("scale_factor_limit"),
            message,
            "set scale_factor, or remove it",
        );
    }
    if policy.preemptive_mode == Some(true) && policy.idle_count() == 0 {
        findings.warning(
            "preemptive-mode",
            &at.key("preemptive_mode"),
            "with `preemptive_mode` jobs are taken only when an instance is ready, but `idle_count` keeps none ready",
            "set idle_count to 1 or more, or remove preemptive_mode",
        );
    }
    if policy.idle_time.is_some_and(|time| !time.is_zero() && time < Duration::from_secs(1)) {
        let message = "`idle_time` is below a second";
        findings.warning(
            "idle-time",
            &at.key("idle_time"),
            message,
            "instances are removed as soon as they are idle; write \"0s\" or, for example, \"20m\"",
        );
    }
}

pub(super) fn periods(periods: &[String], at: &KeyPath, findings: &mut Findings) {
    for (index, text) in periods.iter().enumerate() {
        if let Err(error) = text.parse::<Period>() {
            findings.error(
                "period",
                &at.key("periods").index(index),
                error.to_string(),
                "five fields, each naming the minutes in which it holds: \"* 8-17 * * mon-fri\" is Monday to Friday, 8:00 to 17:59",
            );
        }
    }
}

fn isolation(runner: &Runner, settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    if let Some(isolation) = &settings.vm_isolation {
        let at = at.key("vm_isolation");
        if isolation.enabled && isolation.nesting_host.is_none() {
            let hint = "write the address of the nesting daemon on the instance, such as \"unix:///path/nesting.sock\"";
            findings.error(
                "nesting-host",
                &at.key("nesting_host"),
                "`vm_isolation` needs a `nesting_host`",
                hint,
            );
        }
        if let Some(host) = isolation.nesting_host.as_deref().filter(|_| isolation.enabled)
            && let Err(error) = host.parse::<DaemonAddress>()
        {
            let hint = "write the address as the instance sees it; a path may contain spaces";
            findings.error("nesting-host", &at.key("nesting_host"), error.to_string(), hint);
        }
        let login = isolation.connector_config.clone().unwrap_or_default();
        let nobody = login.username.as_deref().unwrap_or_default().is_empty();
        if isolation.enabled && (nobody || (login.password.is_none() && login.key_path.is_none())) {
            findings.error(
                "nested-login",
                &at.key("connector_config"),
                "there is no login for the virtual machines",
                "set `username`, and `password` or `key_path`, as the image of the virtual machines has them",
            );
        }
        if isolation.enabled && settings.capacity_per_instance() > 2 {
            findings.warning(
                "nested-capacity",
                &at.key("enabled"),
                format!(
                    "`capacity_per_instance` is {}, but Apple silicon runs at most 2 virtual machines",
                    settings.capacity_per_instance()
                ),
                "set capacity_per_instance = 2",
            );
        }
        if let Some(connector) = &isolation.connector_config {
            check_connector(connector, &at.key("connector_config"), findings);
        }
    }
    let shares = runner.instance.as_ref().is_some_and(|instance| instance.use_common_build_dir);
    if shares && !runner.has_common_build_dir() {
        let at = KeyPath::from(at.as_str()).parent().unwrap_or_default().key("instance");
        findings.warning(
            "common-build-dir",
            &at.key("use_common_build_dir"),
            "use_common_build_dir has no effect: requires vm isolation or max_use_count = 1",
            "set max_use_count = 1, or remove it",
        );
    }
    let lists = runner.instance.as_ref().is_some_and(|instance| !instance.allowed_images.is_empty());
    if lists && !settings.is_isolated() && runner.executor() == Some(ExecutorName::Instance) {
        let at = KeyPath::from(at.as_str()).parent().unwrap_or_default().key("instance");
        findings.warning(
            "allowed-images",
            &at.key("allowed_images"),
            "`allowed_images` has no effect without vm_isolation",
            "enable vm_isolation, or remove it",
        );
    }
}

fn buckets(settings: &Autoscaler, at: &KeyPath, findings: &mut Findings) {
    let lists = [
        ("instance_operation_time_buckets", &settings.instance_operation_time_buckets),
        ("instance_creation_time_buckets", &settings.instance_creation_time_buckets),
        ("instance_is_running_time_buckets", &settings.instance_is_running_time_buckets),
        ("instance_deletion_time_buckets", &settings.instance_deletion_time_buckets),
        ("instance_readiness_time_buckets", &settings.instance_readiness_time_buckets),
        ("instance_life_duration_buckets", &settings.instance_life_duration_buckets),
    ];
    for (key, list) in lists {
        if !list.is_sorted_by(|a, b| a < b) {
            findings.error(
                "buckets",
                &at.key(key),
                format!("`{key}` must be in rising order"),
                "sort the numbers and remove doubles",
            );
        }
    }
}
