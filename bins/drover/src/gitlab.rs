//! Calls on runners that are not jobs: what `register`, `verify`, `unregister` and `reset-token` share.

use std::path::{Path, PathBuf};

use config::{Config, ConfigFile, ExecutorName, Loaded, Runner};
use gitlab_api::{
    Client, ClientError, ClientOptions, ExposeSecret as _, Features, InfoFields, RunnerInfo, user_agent,
};

use crate::failure::Failure;
use crate::identity;

/// Branch in the `User-Agent`, which has GitLab Runner's form.
const BRANCH: &str = "main";

/// Speaks to GitLab on behalf of entries of one file.
pub(crate) struct Calls {
    /// Where relative paths of the file start.
    base: PathBuf,
    pub(crate) system_id: String,
}

/// Which entries are meant. Everything that is given must fit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) url: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    pub(crate) id: Option<i64>,
}

// === impl Calls ===

impl Calls {
    /// For the file at this path. Makes the manager's system id if there is none.
    pub(crate) fn new(config: &Path) -> anyhow::Result<Self> {
        Ok(Self { base: identity::directory(config), system_id: identity::system_id(config)? })
    }

    /// The same without a trace beside the file.
    pub(crate) fn only_looking(config: &Path) -> anyhow::Result<Self> {
        Ok(Self { base: identity::directory(config), system_id: identity::foreseen_system_id(config)? })
    }

    /// A client for an entry, with its certificates.
    pub(crate) fn client(&self, runner: &Runner) -> Result<Client, ClientError> {
        let mut options = ClientOptions::new(runner.url());
        options.tls = manager::tls_files(runner, &self.base);
        options.user_agent = user_agent(&identity::fields(), BRANCH);
        Client::new(options)
    }
}

/// What the program says about itself as this runner.
pub(crate) fn info(config: &Config, runner: &Runner) -> Result<RunnerInfo, ClientError> {
    let features = match runner.executor() {
        Some(ExecutorName::Instance) => Features::INSTANCE,
        Some(ExecutorName::Docker | ExecutorName::DockerAutoscaler | ExecutorName::DockerMachine) => {
            Features::DOCKER
        }
        Some(
            ExecutorName::Shell
            | ExecutorName::Ssh
            | ExecutorName::Custom
            | ExecutorName::Kubernetes
            | ExecutorName::Virtualbox
            | ExecutorName::Parallels,
        )
        | None => Features::NETWORK,
    };
    RunnerInfo::new(InfoFields {
        executor: runner.executor.clone().unwrap_or_default(),
        shell: runner.shell().as_str().to_owned(),
        features,
        labels: config.labels_of(runner),
        ..identity::fields()
    })
}

// === impl Selection ===

impl Selection<'_> {
    /// The indices of the entries that are meant.
    pub(crate) fn of(&self, runners: &[Runner]) -> Vec<usize> {
        (0..runners.len())
            .filter(|index| runners.get(*index).is_some_and(|runner| self.fits(runner)))
            .collect()
    }

    fn fits(&self, runner: &Runner) -> bool {
        let same_url = |url: &str| url.trim_end_matches('/') == runner.url().trim_end_matches('/');
        self.name.is_none_or(|name| name == runner.name())
            && self.url.is_none_or(same_url)
            && self.token.is_none_or(|token| runner.token().is_some_and(|own| own.expose_secret() == token))
            && self.id.is_none_or(|id| runner.id == Some(id))
    }
}

/// Reads a configuration for a command that needs one.
pub(crate) fn load(path: &Path) -> Result<Loaded, Failure> {
    config::load(path).map_err(|error| match error {
        config::LoadError::Read { .. } => {
            let hint = unread(&error, "--config, or make it with `drover register`");
            Failure::usage(error).hint(hint)
        }
        config::LoadError::Invalid(_) => Failure::usage(error),
    })
}

/// What to do about a file that cannot be read; `naming` is how a command is told another one.
pub(crate) fn unread(error: &config::LoadError, naming: &str) -> String {
    match error {
        config::LoadError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "do this as the user who runs drover, to whom the file should belong".to_owned()
        }
        config::LoadError::Read { .. } | config::LoadError::Invalid(_) => {
            format!("name the file with {naming}")
        }
    }
}

/// Opens a configuration for a change.
pub(crate) fn edit(path: &Path) -> Result<(ConfigFile, Loaded), Failure> {
    let opened = ConfigFile::open(path).map_err(|error| match error {
        config::EditError::Invalid(_) | config::EditError::Inline => Failure::usage(error),
        config::EditError::Locked(_) => {
            Failure::from(error).hint("try again when the other process has ended")
        }
        config::EditError::Io { .. } | config::EditError::Changed(_) | config::EditError::NoRunner(_) => {
            Failure::from(error)
        }
    })?;
    let loaded = opened.read(&|name| std::env::var(name).ok()).map_err(Failure::usage)?;
    Ok((opened, loaded))
}

/// A runtime for a few calls.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_users_needs_no_other_name() {
        let read =
            |kind: std::io::ErrorKind| config::LoadError::Read { path: "c".into(), source: kind.into() };
        let missing = unread(&read(std::io::ErrorKind::NotFound), "--config");
        assert_eq!(missing, "name the file with --config");
        assert!(unread(&read(std::io::ErrorKind::PermissionDenied), "--config").contains("as the user"));
    }

    const FILE: &str = r#"
[[runners]]
  name = "a"
  url = "https://one.example.com/"
  token = "glrt-first"
  executor = "instance"
[[runners]]
  name = "b"
  url = "https://one.example.com"
  token = "glrt-second"
  executor = "instance"
"#;

    #[test]
    fn everything_that_is_given_must_fit() {
        let loaded = config::parse(FILE, "config.toml", &|_| None).unwrap();
        let select = |name, url, token| Selection { name, url, token, id: None }.of(&loaded.config.runners);
        assert_eq!(select(None, None, None), [0, 1]);
        assert_eq!(select(Some("b"), None, None), [1]);
        assert_eq!(select(None, Some("https://one.example.com"), None), [0, 1]);
        assert_eq!(select(None, Some("https://one.example.com"), Some("glrt-first")), [0]);
        assert_eq!(select(Some("a"), None, Some("glrt-second")), Vec::<usize>::new());
    }
}
