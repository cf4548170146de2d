//! How the program and this manager present themselves.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::Context as _;
use gitlab_api::{InfoFields, SystemId};
use job::Product;
use manager::Identity;

/// Name of the program, as GitLab, logs and variables show it.
const NAME: &str = "drover";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who asks GitLab about a token while there is no identity: always the same, so that GitLab does not list one more manager each time.
const EXAMINER: &str = "r_droverdoctor";

/// The source revision that was built, where the build says so.
const REVISION: &str = match option_env!("DROVER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Version, revision and platform, for `--version`.
pub(crate) static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let build = fields();
    format!("{VERSION} (revision {REVISION}, {}/{})", build.platform, build.architecture)
});

/// What a call to GitLab says about the program.
pub(crate) fn fields() -> InfoFields {
    InfoFields::of_this_build(NAME, VERSION, REVISION)
}

/// Who this manager is: the program, its system id beside the configuration file, and the host.
pub(crate) fn identity(config: &Path) -> anyhow::Result<Identity> {
    let fields = fields();
    let host = nix::unistd::gethostname().context("failed to read the host name")?;
    Ok(Identity {
        product: Product {
            platform: format!("{}/{}", fields.platform, fields.architecture),
            name: fields.name,
            version: fields.version,
            revision: fields.revision,
        },
        system_id: system_id(config)?,
        host: host.to_string_lossy().into_owned(),
    })
}

/// The identity of this manager at GitLab, which lies beside the configuration file.
pub(crate) fn system_id(config: &Path) -> anyhow::Result<String> {
    let machine = gitlab_api::machine_id();
    let id = SystemId::load_or_create(&directory(config), machine.as_deref(), &mut rand::rng())?;
    Ok(id.as_str().to_owned())
}

/// The same without leaving a trace: where there is none yet, the one that the manager will make, if that can be told.
pub(crate) fn foreseen_system_id(config: &Path) -> anyhow::Result<String> {
    if let Some(id) = SystemId::load(&directory(config))? {
        return Ok(id.as_str().to_owned());
    }
    let machine = gitlab_api::machine_id().filter(|id| !id.is_empty());
    Ok(match machine {
        Some(machine) => SystemId::generate(Some(&machine), &mut rand::rng()).as_str().to_owned(),
        None => EXAMINER.to_owned(),
    })
}

/// The folder of a file.
pub(crate) fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_the_examiner_is_one() {
        assert!(SystemId::parse(EXAMINER).is_some());
    }
}
