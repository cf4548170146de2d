//! What stands in the way of an entry, found before its jobs find it.

use std::path::Path;
use std::time::Duration;

use config::Runner;
use fleeting::{Finding, GroupError, Severity};

use crate::providers::Providers;

/// A provider that has not found out by then has found that out.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(120);

/// Examines an entry that this build can run: what it needs on this machine, and what its provider finds. Nothing is
/// changed, neither here nor in the cloud. Relative paths start from `base`, the folder of the configuration file.
pub async fn diagnose(runner: &Runner, providers: &dyn Providers, base: &Path) -> Vec<Finding> {
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
        Ok(found) => findings.extend(found),
        Err(_) => findings.push(
            Finding::new(Severity::Error, check, format!("no answer within {PROVIDER_PATIENCE:?}"))
                .leads_to("no instance is started or ended")
                .repair("see that the manager reaches the provider: network, proxy, endpoint"),
        ),
    }
    findings
}

fn refused(check: String, error: &GroupError) -> Finding {
    Finding::new(Severity::Error, check, error.to_string())
        .leads_to("the entry takes no jobs")
        .repair("correct the key in [runners.autoscaler.plugin_config]; docs/configuration.md lists them")
}
