//! What stands in the way of an entry, found before its jobs find it.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use config::{Config, Runner};
use fleeting::{Finding, GroupError, InstanceGroup, Severity};

use crate::limits::limits;
use crate::providers::Providers;

/// A provider that has not found out by then has found that out.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(120);

/// What is examined.
pub struct Examination<'a> {
    /// An entry that this build can run.
    pub runner: &'a Runner,
    /// The file that it is part of.
    pub config: &'a Config,
    /// What makes its group.
    pub providers: &'a dyn Providers,
    /// Folder of the configuration file, from which relative paths start.
    pub base: &'a Path,
    /// Identity of the manager.
    pub system_id: &'a str,
    /// Log in to an instance that runs, and look there.
    pub connect: bool,
}

/// Examines an entry: what it needs on this machine, what its provider finds, and how its limits go together. Nothing is changed,
/// neither here nor in the cloud, but for a key that is let in for a minute where an instance is to be logged in to.
pub async fn diagnose(examination: &Examination<'_>) -> Vec<Finding> {
    let Examination { runner, config, providers, base, system_id, connect } = *examination;
    let mut findings = executors::diagnose(runner, base).await;
    let autoscaled = runner.executor().is_some_and(config::ExecutorName::is_autoscaled);
    let Some(autoscaler) = runner.autoscaler.as_ref().filter(|_| autoscaled) else { return findings };
    let Some(plugin) = autoscaler.plugin() else { return findings };
    let check = format!("plugin/{}", plugin.name);
    let group = match providers.group(&plugin.name, &autoscaler.plugin_config()) {
        Ok(group) => group,
        Err(error) => {
            findings.push(refused(check, &error));
            return findings;
        }
    };
    match tokio::time::timeout(PROVIDER_PATIENCE, group.diagnose()).await {
        Ok(found) => {
            findings.extend(found);
            findings.extend(owner(runner, &*group, system_id, Utc::now()));
            findings.extend(limits(runner, config, group.max_size()));
        }
        Err(_) => findings.push(
            Finding::new(Severity::Error, check, format!("no answer within {PROVIDER_PATIENCE:?}"))
                .leads_to("no instance is started or ended")
                .repair("see that the manager reaches the provider: network, proxy, endpoint"),
        ),
    }
    findings.extend(executors::look_at_instances(runner, &*group, base, connect).await);
    findings
}

/// Whose the group is, where it is marked.
fn owner(runner: &Runner, group: &dyn InstanceGroup, system_id: &str, now: DateTime<Utc>) -> Option<Finding> {
    const CHECK: &str = "group/lease";
    let place = group.lease()?;
    let lease = place.seen()?;
    let held = format!("since {}, until {} unless it is renewed", lease.since, lease.until);
    if lease.is_of(&executors::group_owner(runner, system_id, "")) {
        return Some(Finding::good(CHECK, format!("this manager holds the group, {held}")));
    }
    if lease.until < now {
        let what = format!("{} held the group until {}, and has not renewed that", lease.owner, lease.until);
        let then = "this entry takes the group over, after a while in which the other one does not come back";
        return Some(Finding::new(Severity::Notice, CHECK, what).leads_to(then).repair(place.removal()));
    }
    let what = format!("another manager holds this group: {}, {held}", lease.owner);
    Some(
        Finding::new(Severity::Warning, CHECK, what)
            .leads_to("this entry stands by: it takes no jobs and scales nothing until the other one stops")
            .repair(format!(
                "give each entry a group of its own, or stop the other manager; only if it is gone for good: {}",
                place.removal()
            )),
    )
}

fn refused(check: String, error: &GroupError) -> Finding {
    Finding::new(Severity::Error, check, error.to_string())
        .leads_to("the entry takes no jobs")
        .repair("correct the key in [runners.autoscaler.plugin_config]; docs/configuration.md lists them")
}
