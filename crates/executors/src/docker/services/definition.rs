//! Services as they are asked for, and the names by which a job reaches them.

use std::collections::BTreeSet;

use config::Docker as DockerConfig;
use job::Context;
use trace::{JobLog, LineKind};

use super::super::allow;
use super::super::prepare::{assignment, disallowed};
use super::super::reference::Reference;
use crate::PrepareError;

/// A service as the file or the job asks for it, with all variables in place.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(in super::super) name: String,
    /// Names of its own; the names of the image come before them.
    pub(super) aliases: Vec<String>,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) policies: Vec<String>,
    pub(in super::super) platform: String,
    pub(super) user: String,
}

// === impl Definition ===

impl Definition {
    /// The services of a job: first those of the file, then its own. Everything that can be refused is, before anything is
    /// pulled.
    pub(crate) fn all(
        context: &Context,
        config: &DockerConfig,
        log: &JobLog,
    ) -> Result<Vec<Self>, PrepareError> {
        let variables = context.variables();
        let expand = |text: &str| variables.expand(text).into_owned();
        let visible: Vec<String> =
            variables.for_services().map(|variable| assignment(variable, context)).collect();
        let configured = config.services.iter().map(|service| {
            let mut environment = visible.clone();
            environment
                .extend(service.environment.pairs().map(|(key, value)| format!("{key}={}", expand(value))));
            Self {
                name: expand(service.name.as_deref().unwrap_or_default()),
                aliases: split_aliases(&expand(service.alias.as_deref().unwrap_or_default())),
                entrypoint: service.entrypoint.clone(),
                command: service.command.clone(),
                environment,
                policies: Vec::new(),
                platform: String::new(),
                user: String::new(),
            }
        });
        let own = context.job().services.iter().map(|service| {
            let mut environment = visible.clone();
            environment.extend(service.variables.iter().map(|variable| {
                let value = if variable.raw { variable.value.clone() } else { expand(&variable.value) };
                format!("{}={value}", variable.key)
            }));
            Self {
                name: expand(&service.name),
                aliases: split_aliases(&expand(&service.alias)),
                entrypoint: service.entrypoint.clone(),
                command: service.command.clone(),
                environment,
                policies: service.pull_policy.clone(),
                platform: expand(&service.executor_opts.docker.platform),
                user: expand(&service.executor_opts.docker.user),
            }
        });
        let all: Vec<Self> = configured.chain(own).collect();
        if let Some(most) = config.services_limit().filter(|most| all.len() > *most as usize) {
            return Err(PrepareError::Configuration(format!(
                "too many services requested: {}, only {most} allowed",
                all.len()
            )));
        }
        let known: Vec<&str> =
            all[..config.services.len()].iter().map(|service| service.name.as_str()).collect();
        for service in &all {
            if service.name.trim().is_empty() {
                return Err(PrepareError::Configuration(format!(
                    "invalid service image name: \"{}\"",
                    service.name
                )));
            }
            if !known.contains(&service.name.as_str())
                && !allow::allows(&config.allowed_services, &service.name)
            {
                return Err(disallowed("services", &service.name, &config.allowed_services, log));
            }
        }
        Ok(all)
    }
}

// === helpers ===

/// The names of each service. A name belongs to the first service that claims it; a service without any is not started.
pub(super) fn unique_names(definitions: &[Definition], log: &JobLog) -> Vec<Vec<String>> {
    let mut taken = BTreeSet::new();
    let mut all = Vec::new();
    for (index, definition) in definitions.iter().enumerate() {
        let mut names: Vec<String> = Vec::new();
        let candidates = Reference::parse(&definition.name).service_names();
        for name in candidates.iter().chain(&definition.aliases) {
            if names.contains(name) {
                continue;
            }
            if taken.insert(name.clone()) {
                names.push(name.clone());
            } else {
                log.line(
                    LineKind::Warning,
                    format_args!(
                        "Skipping alias \"{name}\" for service \"{}\" (services[{index}]): alias is already in use by another \
                         service.",
                        definition.name
                    ),
                );
            }
        }
        if names.is_empty() {
            log.line(
                LineKind::Warning,
                format_args!(
                    "Service \"{}\" (services[{index}]) is not started: all of its names are in use. Give it an alias.",
                    definition.name
                ),
            );
        }
        all.push(names);
    }
    all
}

fn split_aliases(text: &str) -> Vec<String> {
    text.split([' ', ',']).filter(|alias| !alias.is_empty()).map(str::to_owned).collect()
}
