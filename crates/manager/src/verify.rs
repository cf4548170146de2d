//! What executors and plugins make of the entries of a file, before any of them is started.

use std::path::Path;

use config::{ExecutorName, Loaded, Runner, Verdict};
use fleeting::GroupError;

use crate::providers::Providers;

/// An error of an entry: the key below the entry, rule, message, hint.
type Found = (Vec<&'static str>, &'static str, String, &'static str);

/// Adds to the diagnostics of a file what would keep its entries from starting: values that their executors and plugins refuse.
/// Nothing is contacted. Without `base`, the folder that relative paths start from, no file is read either.
pub fn verify(loaded: &mut Loaded, providers: &dyn Providers, base: Option<&Path>) {
    let verdicts = loaded.verdicts(&providers.capabilities());
    let entries = loaded.config.runners.iter().zip(verdicts).enumerate();
    let found: Vec<(usize, Found)> = entries
        .filter(|(_, (_, verdict))| *verdict == Verdict::Runnable)
        .flat_map(|(index, (runner, _))| {
            look(runner, providers, base).into_iter().map(move |found| (index, found))
        })
        .collect();
    for (index, (keys, rule, message, hint)) in found {
        loaded.refuse(index, &keys, rule, message, hint);
    }
}

fn look(runner: &Runner, providers: &dyn Providers, base: Option<&Path>) -> Vec<Found> {
    let mut found = Vec::new();
    if runner.executor().is_some_and(ExecutorName::uses_docker) {
        let values = executors::unusable_values(runner, base);
        found.extend(
            values.into_iter().map(|value| (vec!["docker", value.key], "docker", value.why, value.hint)),
        );
    }
    let autoscaler =
        runner.autoscaler.as_ref().filter(|_| runner.executor().is_some_and(ExecutorName::is_autoscaled));
    if let Some(autoscaler) = autoscaler
        && let Some(plugin) = autoscaler.plugin()
        && let Err(GroupError::Configuration { message }) =
            providers.group(&plugin.name, &autoscaler.plugin_config())
    {
        let keys = vec!["autoscaler", "plugin_config"];
        found.push((keys, "plugin-config", message, "docs/configuration.md lists the keys of each plugin"));
    }
    found
}
