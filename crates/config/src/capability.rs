//! What a build of the program can run, and what the file asks for.

use std::fmt;

use crate::model::Runner;
use crate::schema::choice;

choice! {
    /// The executors that the file can name. Which of them can run is for [`Capabilities`] to say.
    pub enum ExecutorName {
        /// Jobs run on scaled instances, directly.
        Instance = "instance",
        /// Jobs run in containers on scaled instances.
        DockerAutoscaler = "docker-autoscaler",
        /// Jobs run in containers on machines of docker-machine.
        DockerMachine = "docker+machine",
        /// Jobs run in containers of one engine.
        Docker = "docker",
        /// Jobs run on the manager's own machine.
        Shell = "shell",
        /// Jobs run on one host over SSH.
        Ssh = "ssh",
        /// Jobs run by programs of the user.
        Custom = "custom",
        /// Jobs run in pods.
        Kubernetes = "kubernetes",
        /// Jobs run in VirtualBox machines.
        Virtualbox = "virtualbox",
        /// Jobs run in Parallels machines.
        Parallels = "parallels",
    }
}

/// What this build can run, told by the program that composes the crates.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    /// Executors that are built in.
    pub executors: Vec<ExecutorName>,
    /// Providers that are built in, by their short name, such as `aws`.
    pub plugins: Vec<String>,
}

/// What becomes of one runner entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It can take jobs.
    Runnable,
    /// It is left out, and why.
    Refused(String),
}

/// The provider that an entry asks for, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginReference {
    /// Registry, if named.
    pub registry: Option<String>,
    /// Repository, if named.
    pub repository: Option<String>,
    /// Short name, such as `aws`: old names and the prefix `fleeting-plugin-` are translated.
    pub name: String,
    /// Version constraint, if named: `latest`, `1`, `1.2` or `1.2.3`.
    pub version: Option<String>,
}

// === impl ExecutorName ===

impl ExecutorName {
    /// Whether the executor reads `[runners.autoscaler]`.
    #[must_use]
    pub fn is_autoscaled(self) -> bool {
        matches!(self, Self::Instance | Self::DockerAutoscaler)
    }

    /// Whether the executor reads `[runners.docker]`.
    #[must_use]
    pub fn uses_docker(self) -> bool {
        matches!(self, Self::Docker | Self::DockerAutoscaler | Self::DockerMachine)
    }

    /// Names that GitLab Runner knew and removed, with what to write in their place.
    pub(crate) fn removed(name: &str) -> Option<&'static str> {
        match name {
            "docker-ssh" => Some("docker"),
            "docker-ssh+machine" => Some("docker+machine"),
            _ => None,
        }
    }
}

// === impl Capabilities ===

impl Capabilities {
    /// Whether this build can run a runner entry, judged by its executor and provider alone.
    #[must_use]
    pub fn verdict(&self, runner: &Runner) -> Verdict {
        let Some(executor) = runner.executor() else {
            return match runner.executor.as_deref() {
                Some(name) => Verdict::Refused(format!("executor `{name}` is not known")),
                None => Verdict::Refused("no executor is set".to_owned()),
            };
        };
        if !self.executors.contains(&executor) {
            let names: Vec<&str> = self.executors.iter().map(|executor| executor.as_str()).collect();
            return Verdict::Refused(format!(
                "executor `{executor}` is not built in; this build runs {}",
                listed(&names)
            ));
        }
        if executor.is_autoscaled() {
            let Some(plugin) = runner.autoscaler.as_ref().and_then(|autoscaler| autoscaler.plugin()) else {
                return Verdict::Refused(format!(
                    "executor `{executor}` needs a plugin in [runners.autoscaler]"
                ));
            };
            if !self.plugins.contains(&plugin.name) {
                let names: Vec<&str> = self.plugins.iter().map(String::as_str).collect();
                return Verdict::Refused(format!(
                    "plugin `{}` is not built in; this build has {}",
                    plugin.name,
                    listed(&names)
                ));
            }
        }
        Verdict::Runnable
    }
}

// === impl PluginReference ===

impl PluginReference {
    /// Takes `name`, `repository/name` or `registry/repository/name` apart, each with an optional `:version`.
    ///
    /// ```
    /// use drover_config::PluginReference;
    ///
    /// let plugin = PluginReference::parse("registry.example.com/group/plugins/aws:1.2");
    /// assert_eq!(plugin.name, "aws");
    /// assert_eq!(plugin.version.as_deref(), Some("1.2"));
    /// assert_eq!(PluginReference::parse("fleeting-plugin-googlecompute").name, "googlecloud");
    /// ```
    #[must_use]
    pub fn parse(reference: &str) -> Self {
        let (path, last) = match reference.trim().rsplit_once('/') {
            Some((path, last)) => (Some(path), last),
            None => (None, reference.trim()),
        };
        let (name, version) = match last.split_once(':') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (last, None),
        };
        let (registry, repository) = match path {
            None => (None, None),
            Some(path) => match path.split_once('/') {
                Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                    (Some(first.to_owned()), Some(rest.to_owned()))
                }
                Some(_) | None => (None, Some(path.to_owned())),
            },
        };
        let name = name.strip_suffix(".exe").unwrap_or(name);
        let name = match name.strip_prefix("fleeting-plugin-").unwrap_or(name) {
            "googlecompute" => "googlecloud",
            name => name,
        };
        Self { registry, repository, name: name.to_owned(), version }
    }

    /// Whether the version constraint has one of the forms that exist.
    #[must_use]
    pub fn has_valid_version(&self) -> bool {
        self.version.as_deref().is_none_or(|version| {
            version == "latest"
                || (version.split('.').count() <= 3
                    && version
                        .split('.')
                        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())))
        })
    }
}

impl fmt::Display for PluginReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.registry, &self.repository].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        Ok(())
    }
}

/// `a, b and c`, or `none`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::model::Autoscaler;

    #[test_case("aws", None, None, "aws", None; "a name")]
    #[test_case("fleeting-plugin-aws", None, None, "aws", None; "the name of a program")]
    #[test_case("fleeting-plugin-googlecompute", None, None, "googlecloud", None; "an old name")]
    #[test_case("googlecloud:latest", None, None, "googlecloud", Some("latest"); "with a version")]
    #[test_case("group/plugins/hetzner", None, Some("group/plugins"), "hetzner", None; "with a repository")]
    #[test_case("r.example.com:5000/g/p/aws:1.2", Some("r.example.com:5000"), Some("g/p"), "aws", Some("1.2"); "with a registry")]
    fn plugin_references_are_taken_apart(
        reference: &str,
        registry: Option<&str>,
        repository: Option<&str>,
        name: &str,
        version: Option<&str>,
    ) {
        let plugin = PluginReference::parse(reference);
        let own = |text: Option<&str>| text.map(ToOwned::to_owned);
        assert_eq!(
            plugin,
            PluginReference {
                registry: own(registry),
                repository: own(repository),
                name: name.to_owned(),
                version: own(version)
            }
        );
    }

    #[test_case("aws:1", true)]
    #[test_case("aws:1.2.3", true)]
    #[test_case("aws:1.2.3.4", false)]
    #[test_case("aws:newest", false)]
    fn plugin_versions_have_three_forms(reference: &str, valid: bool) {
        assert_eq!(PluginReference::parse(reference).has_valid_version(), valid);
    }

    #[test]
    fn a_build_refuses_what_it_cannot_run_and_says_what_it_can() {
        let capabilities = Capabilities {
            executors: vec![ExecutorName::Instance],
            plugins: vec!["static".into(), "local".into()],
        };
        let mut runner = Runner { executor: Some("kubernetes".into()), ..Runner::default() };
        assert_eq!(
            capabilities.verdict(&runner),
            Verdict::Refused("executor `kubernetes` is not built in; this build runs instance".into())
        );
        runner.executor = Some("instance".into());
        runner.autoscaler = Some(Autoscaler { plugin: Some("aws:1".into()), ..Autoscaler::default() });
        assert_eq!(
            capabilities.verdict(&runner),
            Verdict::Refused("plugin `aws` is not built in; this build has static and local".into())
        );
        runner.autoscaler = Some(Autoscaler { plugin: Some("static".into()), ..Autoscaler::default() });
        assert_eq!(capabilities.verdict(&runner), Verdict::Runnable);
    }
}
