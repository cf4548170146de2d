//! The volumes of a job: what `volumes` asks for, and the builds folder that its containers share.

use std::collections::HashMap;

use bollard::models::{
    Mount, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig, VolumeCreateRequest,
};
use config::Docker as DockerConfig;
use job::{Context, GitStrategy};
use md5::{Digest as _, Md5};

use super::engine::{Engine, EngineError};
use super::labels::Labels;

/// Characters that no part of a specification may have.
const FORBIDDEN: [char; 8] = ['\\', '*', '?', '"', '<', '>', '|', ':'];
/// Options after the destination: modes, labels, propagation.
const OPTIONS: [&str; 11] =
    ["ro", "rw", "O", "z", "Z", "shared", "slave", "private", "rshared", "rslave", "rprivate"];

/// What is mounted into the containers of a job.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// Folders and volumes of the user's own, as written.
    pub(crate) binds: Vec<String>,
    /// Volumes that are made with the first container that mounts them, so that they cost no call.
    pub(crate) mounts: Vec<Mount>,
    /// Names of those that go with the job.
    pub(crate) temporary: Vec<String>,
    /// Where new volumes are mounted: anybody may write there.
    pub(crate) open: Vec<String>,
    /// The builds folder is one of the temporary ones: all of it goes with the job.
    pub(crate) builds_go: bool,
}

/// A specification that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("invalid volume specification: \"{0}\"")]
    Invalid(String),
    #[error("build directory needs to be a non-root path, but \"{0}\" is the root")]
    Root(String),
    #[error("volume for container path \"{0}\" is already defined")]
    Twice(String),
}

/// One entry of `volumes`.
#[derive(Debug, PartialEq, Eq)]
struct Spec<'a> {
    source: Option<&'a str>,
    destination: &'a str,
    options: &'a str,
}

/// What volumes of a job are made of.
pub(crate) struct Needs<'a> {
    pub(crate) config: &'a DockerConfig,
    pub(crate) context: &'a Context,
    pub(crate) labels: &'a Labels,
    /// Name of what goes with the job.
    pub(crate) unique: &'a str,
    /// Whether containers share the builds folder.
    pub(crate) builds: bool,
}

// === impl Volumes ===

impl Volumes {
    pub(crate) fn plan(needs: &Needs<'_>) -> Result<Self, VolumeError> {
        let mut volumes = Self::default();
        let mut taken = Vec::new();
        let builds = clean(&needs.context.runner().builds_dir);
        for entry in &needs.config.volumes {
            let spec = Spec::parse(entry)?;
            let destination = destination(&needs.context.variables().expand(spec.destination), needs.context);
            if destination == "/" {
                return Err(VolumeError::Root(entry.clone()));
            }
            if taken.contains(&destination) {
                return Err(VolumeError::Twice(destination));
            }
            match spec.source {
                Some(source) => {
                    let mut bind = format!("{source}:{destination}");
                    if !spec.options.is_empty() {
                        bind.push(':');
                        bind.push_str(&spec.options.replace(':', ","));
                    }
                    volumes.binds.push(bind);
                }
                None if needs.config.disable_cache => volumes.temporary(needs, &destination),
                None => volumes.kept(needs, &destination),
            }
            taken.push(destination);
        }
        if needs.builds && !taken.iter().any(|destination| covers(destination, &builds)) {
            match needs.context.settings().strategy {
                GitStrategy::Fetch if !needs.config.disable_cache => volumes.kept(needs, &builds),
                GitStrategy::Fetch | GitStrategy::Clone | GitStrategy::None | GitStrategy::Empty => {
                    volumes.temporary(needs, &builds);
                    volumes.builds_go = true;
                }
            }
        }
        Ok(volumes)
    }

    /// Creates the volumes before any container mounts them: Podman makes those that it meets at a container without their labels
    /// and driver.
    pub(crate) async fn create(&self, engine: &Engine) -> Result<(), EngineError> {
        for mount in &self.mounts {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            let request = VolumeCreateRequest {
                name: mount.source.clone(),
                driver: driver.name,
                driver_opts: driver.options,
                labels: options.labels,
                ..VolumeCreateRequest::default()
            };
            engine.api().create_volume(request).await?;
        }
        Ok(())
    }

    fn temporary(&mut self, needs: &Needs<'_>, destination: &str) {
        let name = format!("{}-cache-{}{}", needs.unique, hash(destination), suffix(needs.context));
        self.mount(needs, &name, destination, false);
        self.temporary.push(name);
    }

    fn kept(&mut self, needs: &Needs<'_>, destination: &str) {
        let (owner, hash, suffix) = (needs.context.volume_name(), hash(destination), suffix(needs.context));
        match needs.config.cache_dir.as_deref().filter(|folder| !folder.is_empty()) {
            Some(folder) => {
                let folder = folder.trim_end_matches('/');
                self.binds.push(format!("{folder}/{owner}/{hash}{suffix}:{destination}"));
                self.open.push(destination.to_owned());
            }
            None => self.mount(needs, &format!("{owner}-cache-{hash}{suffix}"), destination, true),
        }
    }

    fn mount(&mut self, needs: &Needs<'_>, name: &str, destination: &str, reusable: bool) {
        let config = needs.config;
        let driver = config.volume_driver.clone().filter(|driver| !driver.is_empty());
        let driver_config = (driver.is_some() || !config.volume_driver_ops.is_empty()).then(|| {
            MountVolumeOptionsDriverConfig {
                name: driver.or_else(|| Some("local".to_owned())),
                options: super::values::map(&config.volume_driver_ops),
            }
        });
        let labels: HashMap<String, String> =
            needs.labels.volume(destination, !suffix(needs.context).is_empty(), reusable);
        self.mounts.push(Mount {
            target: Some(destination.to_owned()),
            source: Some(name.to_owned()),
            typ: Some(MountType::VOLUME),
            volume_options: Some(MountVolumeOptions {
                labels: Some(labels),
                driver_config,
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        });
        self.open.push(destination.to_owned());
    }
}

/// Whether the builds folder is a folder or volume of the user's own, which other jobs see as well.
pub(crate) fn builds_are_shared(config: &DockerConfig, builds: &str) -> bool {
    let builds = clean(builds);
    config.volumes.iter().any(|entry| {
        Spec::parse(entry)
            .is_ok_and(|spec| spec.source.is_some() && covers(&clean(spec.destination), &builds))
    })
}

/// Whether any of the volumes keeps the builds folder for later jobs.
pub(crate) fn builds_are_kept(config: &DockerConfig, builds: &str) -> bool {
    let builds = clean(builds);
    config
        .volumes
        .iter()
        .any(|entry| Spec::parse(entry).is_ok_and(|spec| covers(&clean(spec.destination), &builds)))
}

/// Checks the form of an entry; what depends on the job is left for the job.
pub(crate) fn check(entry: &str) -> Result<(), VolumeError> {
    let spec = Spec::parse(entry)?;
    if clean(spec.destination) == "/" { Err(VolumeError::Root(entry.to_owned())) } else { Ok(()) }
}

/// The same for all of them, and that none mounts where another does, as far as that shows before there is a job.
pub(crate) fn check_all(entries: &[String]) -> Result<(), VolumeError> {
    let mut taken = std::collections::BTreeSet::new();
    for entry in entries {
        check(entry)?;
        let destination = clean(Spec::parse(entry)?.destination);
        if !destination.contains('$') && !taken.insert(destination.clone()) {
            return Err(VolumeError::Twice(destination));
        }
    }
    Ok(())
}

// === impl Spec ===

impl<'a> Spec<'a> {
    fn parse(entry: &'a str) -> Result<Self, VolumeError> {
        let invalid = || VolumeError::Invalid(entry.to_owned());
        let parts: Vec<&str> = entry.split(':').collect();
        if parts.iter().any(|part| part.is_empty() || part.contains(FORBIDDEN)) {
            return Err(invalid());
        }
        let is_options = |part: &str| part.split(',').all(|option| OPTIONS.contains(&option));
        let (source, destination, rest) = match parts[..] {
            [destination] => (None, destination, 1),
            [destination, options] if is_options(options) && destination.starts_with('/') => {
                (None, destination, 1)
            }
            [source, destination, ..] => (Some(source), destination, 2),
            [] => return Err(invalid()),
        };
        if !parts[rest..].iter().all(|part| is_options(part)) || parts.len() - rest > 3 {
            return Err(invalid());
        }
        if destination.starts_with('$') || (source.is_some() && !destination.starts_with('/')) {
            return Err(invalid());
        }
        let options = parts[rest..].iter().map(|part| part.len()).sum::<usize>();
        let options = match parts.len() - rest {
            0 => "",
            count => &entry[entry.len() - options - (count - 1)..],
        };
        Ok(Self { source, destination, options })
    }
}

/// Absolute and clean; relative paths begin in the project folder.
fn destination(path: &str, context: &Context) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{}/{path}", context.project_dir())) }
}

/// Without doubled slashes, `.` and `..`.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn hash(destination: &str) -> String {
    hex::encode(Md5::digest(destination))
}

/// Jobs of protected refs have volumes of their own, so that others cannot poison them.
fn suffix(context: &Context) -> &'static str {
    let protected_key = context
        .caches()
        .iter()
        .filter_map(|cache| cache.key.as_ref())
        .any(|key| key.readable.ends_with("-protected") && !key.readable.ends_with("-non_protected"));
    if context.is_protected() || protected_key { "-protected" } else { "" }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("/cache", None, "/cache", ""; "a cache")]
    #[test_case("/host:/in", Some("/host"), "/in", ""; "a folder")]
    #[test_case("data:/in:ro", Some("data"), "/in", "ro"; "a volume, read-only")]
    #[test_case("/host:/in:ro:Z:rslave", Some("/host"), "/in", "ro:Z:rslave"; "all options")]
    #[test_case("/host:/in:ro,z", Some("/host"), "/in", "ro,z"; "options in one part")]
    #[test_case("/a b:/c d", Some("/a b"), "/c d", ""; "blanks")]
    #[test_case("/in/$NAME", None, "/in/$NAME", ""; "a variable inside")]
    fn specifications_are_read(entry: &str, source: Option<&str>, destination: &str, options: &str) {
        assert_eq!(Spec::parse(entry), Ok(Spec { source, destination, options }));
    }

    #[test_case("$DIR/x"; "a variable first")]
    #[test_case("/a:/b:sometimes"; "an unknown option")]
    #[test_case("/a::/b"; "an empty part")]
    #[test_case("C:\\a:/b"; "a path of windows")]
    #[test_case("/a:b"; "a relative destination")]
    fn other_specifications_are_refused(entry: &str) {
        assert_eq!(Spec::parse(entry), Err(VolumeError::Invalid(entry.to_owned())));
    }

    #[test_case(&["/a:/x", "b:/x/", "/y"], Err(VolumeError::Twice("/x".to_owned())); "one place twice")]
    #[test_case(&["/y", "/a:/"], Err(VolumeError::Root("/a:/".to_owned())); "the root")]
    #[test_case(&["/a/$REF", "/a/$REF", "/a:/b:ro", "/a:/c"], Ok(()); "what may differ by job")]
    fn the_volumes_of_an_entry_are_checked_together(volumes: &[&str], expected: Result<(), VolumeError>) {
        let volumes: Vec<String> = volumes.iter().map(|&volume| volume.to_owned()).collect();
        assert_eq!(check_all(&volumes), expected);
    }

    #[test_case(&["/srv:/builds"], true, true; "the folder itself")]
    #[test_case(&["/srv:/builds/deep"], false, false; "below it")]
    #[test_case(&["/builds"], false, true; "a cache volume")]
    #[test_case(&["/srv:/build"], false, false; "another name")]
    fn who_else_sees_the_builds_folder(volumes: &[&str], shared: bool, kept: bool) {
        let volumes = volumes.iter().map(|&volume| volume.to_owned()).collect();
        let config = DockerConfig { volumes, ..DockerConfig::default() };
        assert_eq!(builds_are_shared(&config, "/builds"), shared);
        assert_eq!(builds_are_kept(&config, "/builds"), kept);
    }
}
