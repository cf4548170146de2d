//! The image of the helper container: which one, and how it gets onto an engine that lacks it.
//!
//! Drover has an image of its own, which no registry needs to carry: an archive of its file system lies beside the program and
//! is imported into the engine. Without the archive, the image that GitLab Runner publishes serves as well.

use std::path::{Path, PathBuf};

use bollard::query_parameters::CreateImageOptionsBuilder;
use config::{Docker as DockerConfig, PullPolicy};
use futures_util::StreamExt as _;
use tokio::sync::Mutex;
use trace::{JobLog, LineKind};

use super::engine::{Engine, EngineFacts};
use super::pull::{Images, Wanted};
use crate::PrepareError;

/// Repository of Drover's own image.
const REPOSITORY: &str = "drover-helper";
/// GitLab Runner's published image, and the version whose commands are known here.
const PUBLISHED: &str = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper";
const PUBLISHED_VERSION: &str = "v19.3.0";
/// Where packages put archives.
const FOLDERS: [&str; 2] = ["/usr/lib/drover/helper-images", "/usr/local/lib/drover/helper-images"];
/// Endings of archives that engines unpack.
const ENDINGS: [&str; 4] = ["tar", "tar.gz", "tar.xz", "tar.zst"];
/// Bytes that go to the engine at a time.
const PIECE: usize = 256 * 1024;

/// One import at a time: jobs that start together find what the first one has brought.
static IMPORTING: Mutex<()> = Mutex::const_new(());

/// The image that the helper container of a job is made from.
pub(crate) enum HelperImage {
    /// The configured one, present.
    Configured(String),
    /// Drover's own by its name, perhaps not present.
    Own(String),
}

// === impl HelperImage ===

impl HelperImage {
    /// The image that the configuration asks for.
    pub(crate) async fn choose(
        config: &DockerConfig,
        version: &str,
        context: &job::Context,
        images: &Images<'_>,
        log: &JobLog,
    ) -> Result<Self, PrepareError> {
        let own = format!("{REPOSITORY}:{version}");
        let Some(name) = config.helper_image.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(Self::Own(own));
        };
        let name = context.variables().expand(name).into_owned();
        log.line(
            LineKind::Plain,
            format_args!("Using helper image: {name} (overridden, default would be {own})"),
        );
        let image = images.get(Wanted { name: &name, policies: &[], platform: "" }).await?;
        Ok(Self::Configured(image.id().to_owned()))
    }

    /// What a container is created from.
    pub(crate) fn reference(&self) -> &str {
        match self {
            Self::Configured(reference) | Self::Own(reference) => reference,
        }
    }

    /// The program in it that moves caches and artifacts.
    pub(crate) fn program(&self) -> job::Helper {
        match self {
            Self::Configured(_) => {
                job::Helper { command: "gitlab-runner-helper".to_owned(), is_drover: false }
            }
            Self::Own(_) => job::Helper::drover("drover-helper"),
        }
    }

    /// An image that the engine has for certain, after it refused [`reference`](Self::reference).
    pub(crate) async fn provide(
        &self,
        engine: &Engine,
        config: &DockerConfig,
        base: &Path,
        context: &job::Context,
        images: &Images<'_>,
        log: &JobLog,
    ) -> Result<Self, PrepareError> {
        let name = match self {
            Self::Configured(name) => {
                return Err(PrepareError::System(format!(
                    "helper image {name} vanished from {}",
                    engine.place()
                )));
            }
            Self::Own(name) => name,
        };
        let facts = engine.facts().await.map_err(|error| super::prepare::failed(engine, error))?;
        let _one = IMPORTING.lock().await;
        if engine.api().inspect_image(name).await.is_ok() {
            return Ok(Self::Own(name.clone()));
        }
        let configured = config.helper_image_archive.as_deref().filter(|path| !path.is_empty());
        let archive = match configured {
            Some(path) => Some(base.join(path)),
            None => find(&facts.arch, &folders()),
        };
        if let Some(archive) = archive {
            log.line(
                LineKind::Plain,
                format_args!("Loading helper image {name} from {} ...", archive.display()),
            );
            return import(engine, facts, name, &archive).await.map(|()| Self::Own(name.clone()));
        }
        let flavor = config.helper_image_flavor.as_deref().unwrap_or_default();
        let flavor = context.variables().expand(flavor);
        let published = published(&flavor, &facts.arch, context.runner().shell == job::Shell::Pwsh);
        log.line(LineKind::Plain, format_args!("Using helper image: {published}"));
        match images.get_by(&published, PullPolicy::IfNotPresent).await {
            Ok(image) => Ok(Self::Configured(image.id().to_owned())),
            Err(error) => Err(PrepareError::System(format!(
                "{} has no helper image: {name} is not there, no archive of it ({REPOSITORY}-{}.tar) was found beside the \
                 program or in {}, and the published image cannot be had ({error}). Set `helper_image_archive` to an archive of \
                 the helper image, or `helper_image` to an image that can be pulled",
                engine.place(),
                facts.arch,
                FOLDERS.join(" or ")
            ))),
        }
    }
}

/// Where archives are looked for: beside the program, and where packages put them.
fn folders() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let beside = beside.into_iter().flat_map(|folder| [folder.join("helper-images"), folder]);
    beside.chain(FOLDERS.iter().map(PathBuf::from)).collect()
}

/// The first archive for a processor.
fn find(arch: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .flat_map(|folder| ENDINGS.map(|ending| folder.join(format!("{REPOSITORY}-{arch}.{ending}"))))
        .find(|path| path.is_file())
}

/// Sends an archive of a file system to the engine, which makes an image of it.
async fn import(
    engine: &Engine,
    facts: &EngineFacts,
    name: &str,
    archive: &Path,
) -> Result<(), PrepareError> {
    let failed = |why: String| {
        PrepareError::Configuration(format!("cannot load the helper image from {}: {why}", archive.display()))
    };
    let file = tokio::fs::File::open(archive).await.map_err(|error| failed(error.to_string()))?;
    let pieces = tokio_util::io::ReaderStream::with_capacity(file, PIECE);
    let platform = format!("{}/{}", facts.os, facts.arch);
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        // With its tag: Podman ignores one that is a parameter of its own.
        .repo(name)
        .platform(&platform)
        .build();
    let body = bollard::body_try_stream(pieces);
    let mut progress = engine.api().create_image(Some(options), Some(body), None);
    while let Some(step) = progress.next().await {
        let step = step.map_err(|error| failed(super::engine::EngineError::from(error).to_string()))?;
        if let Some(detail) = step.error_detail {
            return Err(failed(detail.message.unwrap_or_default()));
        }
    }
    Ok(())
}

/// Name of GitLab Runner's image for an engine with this processor, in Go's words.
fn published(flavor: &str, arch: &str, pwsh: bool) -> String {
    let arch = match arch {
        "amd64" => "x86_64",
        "armv6l" | "armv7l" => "arm",
        "aarch64" => "arm64",
        other => other,
    };
    let flavor = match flavor {
        "" | "alpine" => String::new(),
        flavor => format!("{flavor}-"),
    };
    let shell = if pwsh { "-pwsh" } else { "" };
    format!("{PUBLISHED}:{flavor}{arch}-{PUBLISHED_VERSION}{shell}")
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("", "amd64", false, "x86_64-v19.3.0"; "the default")]
    #[test_case("alpine", "armv7l", false, "arm-v19.3.0"; "alpine is not named")]
    #[test_case("ubuntu", "aarch64", false, "ubuntu-arm64-v19.3.0"; "another flavour")]
    #[test_case("ubuntu", "s390x", true, "ubuntu-s390x-v19.3.0-pwsh"; "with powershell")]
    fn the_published_image_has_the_tag_of_flavour_and_processor(
        flavor: &str,
        arch: &str,
        pwsh: bool,
        tag: &str,
    ) {
        assert_eq!(published(flavor, arch, pwsh), format!("{PUBLISHED}:{tag}"));
    }

    #[test]
    fn the_archive_of_the_engines_processor_is_found_in_the_first_folder_that_has_one() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [first.path().to_owned(), second.path().to_owned()];
        std::fs::write(first.path().join("drover-helper-arm64.tar"), "").unwrap();
        std::fs::write(second.path().join("drover-helper-amd64.tar.zst"), "").unwrap();
        assert_eq!(find("amd64", &folders), Some(second.path().join("drover-helper-amd64.tar.zst")));
        std::fs::write(first.path().join("drover-helper-amd64.tar"), "").unwrap();
        assert_eq!(find("amd64", &folders), Some(first.path().join("drover-helper-amd64.tar")));
        assert_eq!(find("riscv64", &folders), None);
    }
}
