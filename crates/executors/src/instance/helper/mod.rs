//! The helper that moves a job's artifacts and caches: found on the instance, or put there.

mod binaries;
mod look;
mod upload;

use std::path::Path;
use std::sync::Arc;

use config::{HelperInstall, Runner};
use connector::{ConnectionError, Output, Process};
use job::Helper;

use super::machine::Machine;
use binaries::Binaries;
use look::Look;

/// The version of this build, which a helper that is baked into an image must have to stand in for the manager's own.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where Drover's helper goes on an instance: below the home of the login, which other users cannot write.
const FOLDER: &str = "~/.drover";

/// How much of what a failing command says is kept for the message.
const OUTPUT_KEPT: usize = 512;

/// How the instances of one entry come to have a helper.
pub(crate) struct Helpers {
    install: HelperInstall,
    /// A helper that is on the instances already.
    command: String,
    folder: String,
    binaries: Binaries,
    /// The entry's caches are kept on a server, by signed addresses.
    signs: bool,
}

/// Why an instance has no helper, or not the one that it should have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// The instance itself.
    #[error(transparent)]
    Lost(#[from] ConnectionError),
    /// The instance did not take it.
    #[error("{why}")]
    Failed {
        why: String,
        /// What the jobs use all the same.
        instead: Option<Helper>,
    },
}

/// What is done about the helper of an instance.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Use(Helper),
    /// Puts the manager's own there; if that fails, this one is used.
    Install(Option<Helper>),
    Nothing,
}

// === impl Helpers ===

impl Helpers {
    /// As the entry says; relative folders start from `base`.
    pub(crate) fn new(runner: &Runner, base: &Path) -> Self {
        let helper = runner.helper.as_ref();
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        let folder = text(helper.and_then(|helper| helper.path.as_ref()));
        let binaries = helper.and_then(|helper| helper.binaries.as_ref());
        Self {
            install: helper.and_then(|helper| helper.install).unwrap_or(HelperInstall::Missing),
            command: text(helper.and_then(|helper| helper.command.as_ref())),
            folder: if folder.is_empty() { FOLDER.to_owned() } else { folder },
            signs: runner.cache.as_ref().is_some_and(|cache| cache.cache_type().is_some()),
            binaries: binaries.map_or_else(Binaries::installed, |folder| Binaries::below(base.join(folder))),
        }
    }

    /// Which helper a Linux instance of this kind (as `uname -m` says) would be given; nothing is read.
    pub(crate) fn binary(&self, machine: &str) -> Option<std::path::PathBuf> {
        self.binaries.path("Linux", machine)
    }

    /// Where helpers are looked for.
    pub(crate) fn places(&self) -> String {
        self.binaries.to_string()
    }

    /// Finds or installs the helper of an instance; `None` if there is none to be had.
    pub(crate) async fn provide(
        &self,
        machine: &Arc<Machine>,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<Option<Helper>, HelperError> {
        let instance = machine.client().instance();
        let look = Look::at(machine, &self.command, &self.folder).await?;
        let binary = match self.install {
            HelperInstall::Never => None,
            HelperInstall::Missing | HelperInstall::Always => {
                self.binaries.load(&look.system, &look.machine).await.unwrap_or_else(|error| {
                    tracing::warn!(instance, error = %error, "the helper for this instance cannot be read");
                    None
                })
            }
        };
        let digest = binary.as_ref().map(|binary| binary.digest.as_str());
        let helper = match (choose(self.install, &look, digest), binary) {
            (Choice::Use(helper), _) => Some(helper),
            (Choice::Install(instead), Some(binary)) => {
                match upload::upload(machine.client(), &binary, &self.folder).await {
                    Ok(path) => {
                        say(format!(
                            "Installed drover-helper {VERSION} ({}) on instance {instance}",
                            binary.size()
                        ));
                        Some(Helper::drover(path))
                    }
                    Err(HelperError::Failed { why, .. }) => return Err(HelperError::Failed { why, instead }),
                    Err(lost @ HelperError::Lost(_)) => return Err(lost),
                }
            }
            (Choice::Install(_) | Choice::Nothing, _) => None,
        };
        match &helper {
            Some(helper) if self.signs && !helper.is_drover => tracing::warn!(
                instance,
                helper = %helper.command,
                "this helper takes the signed addresses of caches as arguments, where every user of the instance can read them"
            ),
            Some(helper) => {
                tracing::debug!(instance, helper = %helper.command, "the helper of this instance is known")
            }
            None => tracing::warn!(
                instance,
                system = %look.system,
                machine = %look.machine,
                looked_in = %self.binaries,
                "no helper is on this instance and none is here for its architecture: its jobs have no artifacts and caches; \
                 see [runners.helper]"
            ),
        }
        Ok(helper)
    }
}

/// Which helper an instance uses: the one that was asked for, else the manager's own, because the two know each other, else
/// what is there. `digest` is that of the binary for its architecture, if there is one.
fn choose(install: HelperInstall, look: &Look, digest: Option<&str>) -> Choice {
    let kept = digest.and_then(|digest| look.kept(digest)).map(Helper::drover);
    let there = || look.configured().or_else(|| look.same_version()).or_else(|| look.any());
    match install {
        HelperInstall::Always => match kept {
            Some(helper) => Choice::Use(helper),
            None if digest.is_some() => Choice::Install(there()),
            None => there().map_or(Choice::Nothing, Choice::Use),
        },
        HelperInstall::Missing => match look.configured().or_else(|| look.same_version()).or(kept) {
            Some(helper) => Choice::Use(helper),
            None if digest.is_some() => Choice::Install(look.any()),
            None => look.any().map_or(Choice::Nothing, Choice::Use),
        },
        HelperInstall::Never => there().map_or(Choice::Nothing, Choice::Use),
    }
}

/// Reads a command to its end: its standard output, or why it failed.
async fn output(mut process: Process) -> Result<String, HelperError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(output) = process.next().await? {
        match output {
            Output::Stdout(bytes) => out.extend_from_slice(&bytes),
            Output::Stderr(bytes) => err.extend_from_slice(&bytes),
        }
    }
    let code = process.wait().await?.code();
    if code == 0 {
        return Ok(String::from_utf8_lossy(&out).into_owned());
    }
    let said = String::from_utf8_lossy(&err[err.len().saturating_sub(OUTPUT_KEPT)..]).trim().to_owned();
    let why = if said.is_empty() { format!("exit code {code}") } else { said };
    Err(HelperError::Failed { why, instead: None })
}

/// A word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const KEPT: &str =
        "kept aa11 /home/ci/.drover/drover-helper-old\nkept bb22 /home/ci/.drover/drover-helper-new\n";
    const RUNNER: &str = "any /usr/bin/gitlab-runner Version: 19.4.0\n";
    const OTHER: &str = "any /usr/bin/drover-helper drover-helper 0.0.1\n";
    const CONFIGURED: &str = "configured /opt/helper gitlab-runner-helper 19\n";

    fn same() -> String {
        format!("any /usr/bin/drover-helper drover-helper {VERSION}\n")
    }

    fn chosen(install: HelperInstall, said: &str, digest: Option<&str>) -> String {
        match choose(install, &Look::read(said), digest) {
            Choice::Use(helper) => {
                format!("use {}{}", helper.command, if helper.is_drover { " (own)" } else { "" })
            }
            Choice::Install(instead) => {
                format!("install, else {}", instead.map_or("none".to_owned(), |helper| helper.command))
            }
            Choice::Nothing => "none".to_owned(),
        }
    }

    #[test_case("", None => "none"; "nothing anywhere")]
    #[test_case("", Some("bb22") => "install, else none"; "only the manager has one")]
    #[test_case(RUNNER, None => "use /usr/bin/gitlab-runner"; "GitLab Runner's where there is no other")]
    #[test_case(RUNNER, Some("bb22") => "install, else /usr/bin/gitlab-runner"; "Drover's own is preferred")]
    #[test_case(KEPT, Some("bb22") => "use /home/ci/.drover/drover-helper-new (own)"; "installed before")]
    #[test_case(KEPT, Some("cc33") => "install, else none"; "another one was installed before")]
    #[test_case(OTHER, Some("bb22") => "install, else /usr/bin/drover-helper"; "baked in, of another version")]
    #[test_case(CONFIGURED, Some("bb22") => "use /opt/helper"; "the configured one")]
    fn what_is_missing_is_installed(said: &str, digest: Option<&str>) -> String {
        chosen(HelperInstall::Missing, said, digest)
    }

    #[test]
    fn one_of_this_version_in_the_image_is_used_unless_told_otherwise() {
        assert_eq!(chosen(HelperInstall::Missing, &same(), Some("bb22")), "use /usr/bin/drover-helper (own)");
        assert_eq!(
            chosen(HelperInstall::Always, &same(), Some("bb22")),
            "install, else /usr/bin/drover-helper"
        );
    }

    #[test_case(CONFIGURED, Some("bb22") => "install, else /opt/helper"; "over the configured one")]
    #[test_case(RUNNER, None => "use /usr/bin/gitlab-runner"; "what cannot be is not")]
    #[test_case(KEPT, Some("aa11") => "use /home/ci/.drover/drover-helper-old (own)"; "not twice")]
    fn always_means_the_managers_own(said: &str, digest: Option<&str>) -> String {
        chosen(HelperInstall::Always, said, digest)
    }

    #[test_case(KEPT => "none"; "not even one of ours")]
    #[test_case(RUNNER => "use /usr/bin/gitlab-runner"; "what is there")]
    fn never_means_never(said: &str) -> String {
        chosen(HelperInstall::Never, said, None)
    }
}
