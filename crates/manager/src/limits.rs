//! How many jobs and instances an entry can have at a time, and which of the limits is in the way of another one.

use config::{Config, Runner};
use fleeting::{Finding, Severity};

use crate::providers;

/// Compares `concurrent`, `limit`, `max_instances`, `capacity_per_instance` and the size of the group, where it is known.
/// Nothing for entries without instances.
pub(crate) fn limits(runner: &Runner, global: &Config, size: Option<u32>) -> Vec<Finding> {
    let Some(autoscaler) = runner.autoscaler.as_ref() else { return Vec::new() };
    let mut findings = Vec::new();
    let own = autoscaler.max_instances();
    if let (Some(own), Some(size)) = (own, size)
        && size < own
    {
        let plugin = autoscaler.plugin().map(|plugin| plugin.name).unwrap_or_default();
        findings.push(
            Finding::new(
                Severity::Warning,
                "limits/group",
                format!("`max_instances` is {own}, but the group can hold only {size}"),
            )
            .leads_to(format!("growth ends at {size} instances, and jobs wait"))
            .repair(providers::resize(&plugin, &autoscaler.plugin_config(), own)),
        );
    }
    let (instances, bound) = match (own, size) {
        (Some(own), Some(size)) if size < own => (Some(size), "the group's size"),
        (Some(own), _) => (Some(own), "`max_instances`"),
        (None, size) => (size, "the group's size"),
    };
    let capacity = autoscaler.capacity_per_instance();
    let room = instances.map(|instances| u64::from(instances) * u64::from(capacity));
    let mut least = room.map(|room| (room, bound));
    for (key, jobs) in [("limit", runner.limit()), ("concurrent", Some(global.concurrent()))] {
        let Some(jobs) = jobs.map(u64::from) else { continue };
        if let Some(room) = room.filter(|room| jobs < *room) {
            let used = jobs.div_ceil(u64::from(capacity.max(1)));
            findings.push(
                Finding::new(
                    Severity::Notice,
                    format!("limits/{key}"),
                    format!("`{key}` is {jobs}, but instances have room for {room} jobs"),
                )
                .leads_to(format!(
                    "no more than {jobs} jobs run at a time: {used} full instances are enough for them"
                ))
                .repair(format!("{key} = {room}   # or lower `max_instances` to {used}")),
            );
        }
        if least.is_none_or(|(least, _)| jobs < least) {
            least = Some((jobs, if key == "limit" { "`limit`" } else { "`concurrent`" }));
        }
    }
    if let Some((jobs, by)) = least {
        let instances = match instances {
            Some(instances) => format!("{instances} instances ({bound})"),
            None => "any number of instances".to_owned(),
        };
        findings.push(Finding::good(
            "limits/effective",
            format!("at most {jobs} jobs at a time ({by}) on at most {instances}, {capacity} jobs each"),
        ));
    }
    findings
}

/// Logs the same at the start of an entry.
pub(crate) fn say(runner: &Runner, global: &Config, size: Option<u32>) {
    let label = runner.label();
    for Finding { check, severity, what, leads_to, repair } in limits(runner, global, size) {
        match severity {
            Severity::Good => tracing::info!(runner = label, "{what}"),
            Severity::Notice => tracing::info!(runner = label, check, leads_to, repair, "{what}"),
            Severity::Warning | Severity::Error => {
                tracing::warn!(runner = label, check, leads_to, repair, "{what}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(concurrent: u32, limit: u32, own: u32, capacity: u32, size: u32) -> Vec<Finding> {
        let text = format!(
            "concurrent = {concurrent}\n[[runners]]\nname = \"x\"\nurl = \"https://gitlab.example.com\"\ntoken = \"t\"\n\
             limit = {limit}\nexecutor = \"instance\"\n[runners.autoscaler]\nplugin = \"fleeting-plugin-aws\"\n\
             max_instances = {own}\ncapacity_per_instance = {capacity}\n[runners.autoscaler.plugin_config]\nname = \"build\"\n"
        );
        let config = config::parse(&text, "config.toml", &|_| None).unwrap().config;
        limits(&config.runners[0], &config, Some(size))
    }

    #[test]
    fn what_is_in_the_way_is_found() {
        let table = [
            ([10, 0, 10, 1, 10], vec![]),
            ([10, 0, 10, 1, 5], vec!["limits/group"]),
            ([10, 0, 10, 1, 0], vec!["limits/group"]),
            ([10, 0, 10, 2, 20], vec!["limits/concurrent"]),
            ([50, 4, 10, 2, 20], vec!["limits/limit"]),
            ([4, 3, 10, 1, 5], vec!["limits/group", "limits/limit", "limits/concurrent"]),
            // The group alone is the limit.
            ([50, 0, 0, 1, 5], vec![]),
        ];
        for ([concurrent, limit, own, capacity, size], expected) in table {
            let found = findings(concurrent, limit, own, capacity, size);
            let bad = found.iter().filter(|one| one.severity > Severity::Good);
            let bad: Vec<&str> = bad.map(|one| one.check.as_str()).collect();
            assert_eq!(bad, expected, "{concurrent} {limit} {own} {capacity} {size}");
            assert!(found.iter().all(|one| one.severity == Severity::Good || !one.repair.is_empty()));
        }
    }

    #[test]
    fn what_counts_in_the_end_is_said() {
        let table = [
            (10, 0, 20, "at most 10 jobs at a time (`concurrent`) on at most 10 instances (`max_instances`)"),
            (50, 7, 20, "at most 7 jobs at a time (`limit`) on at most 10 instances (`max_instances`)"),
            (
                50,
                0,
                4,
                "at most 8 jobs at a time (the group's size) on at most 4 instances (the group's size)",
            ),
        ];
        for (concurrent, limit, size, expected) in table {
            let found = findings(concurrent, limit, 10, 2, size);
            assert_eq!(found.last().unwrap().what, format!("{expected}, 2 jobs each"));
        }
    }

    #[test]
    fn a_group_that_is_too_small_comes_with_the_command_that_enlarges_it() {
        let found = findings(10, 0, 10, 1, 5);
        assert_eq!(
            found[0].repair,
            "aws autoscaling update-auto-scaling-group --auto-scaling-group-name build --max-size 10   # or lower max_instances"
        );
    }
}
