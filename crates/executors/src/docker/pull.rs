//! Images: found or pulled, by the policies in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use config::{Docker as DockerConfig, PullPolicy};
use futures_util::StreamExt as _;
use job::FailureReason;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use trace::{JobLog, LineKind};

use super::auth::Credentials;
use super::engine::{Engine, EngineError};
use super::reference::Reference;
use crate::PrepareError;

/// Tries of one policy while the registry does not answer.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A pull that says nothing for this long has failed.
const STALLED: Duration = Duration::from_secs(300);
/// How often a pull that takes long is mentioned.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(20);

/// The images of one name, by platform.
type Platforms = Arc<Mutex<BTreeMap<String, Image>>>;

/// The images of one job.
pub(crate) struct Images<'a> {
    engine: &'a Engine,
    config: &'a DockerConfig,
    log: &'a JobLog,
    credentials: OnceCell<Credentials>,
    context: &'a job::Context,
    /// What was pulled for this job already, by platform. One name is pulled once at a time: a tag of several platforms is, for
    /// most engines, the image that came last.
    pulled: Mutex<BTreeMap<String, Platforms>>,
    /// Some part of the job chooses its platform, so that a tag and its digest are not one image.
    platforms: bool,
}

/// An image that the engine has.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// What containers are created from: the digest that this name has, because the name may move; where it has none, or digests
    /// have several platforms, the image itself.
    pub(crate) reference: String,
    /// User of its processes; empty means root.
    pub(crate) user: String,
    /// Exposed TCP ports, in order.
    pub(crate) ports: Vec<u16>,
    id: String,
}

/// An image as a job or the configuration asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Policies that the job chooses; empty means that it chooses none.
    pub(crate) policies: &'a [String],
    /// `os/arch`; empty means the engine's own.
    pub(crate) platform: &'a str,
}

/// What kind of trouble a pull has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    External,
    Configuration,
    Other,
}

/// A policy failed.
struct Failure {
    class: Class,
    text: String,
}

// === impl Images ===

impl<'a> Images<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        config: &'a DockerConfig,
        context: &'a job::Context,
        log: &'a JobLog,
    ) -> Self {
        let job = context.job();
        let options = job.services.iter().map(|service| &service.executor_opts);
        let platforms =
            options.chain([&job.image.executor_opts]).any(|options| !options.docker.platform.is_empty());
        let pulled = Mutex::new(BTreeMap::new());
        Self { engine, config, log, credentials: OnceCell::new(), context, pulled, platforms }
    }

    /// The image, present on the engine.
    pub(crate) async fn get(&self, wanted: Wanted<'_>) -> Result<Image, PrepareError> {
        let policies =
            effective(wanted.name, wanted.policies, self.config).map_err(PrepareError::Configuration)?;
        self.by_policies(wanted.name, wanted.platform, policies).await
    }

    /// The same by one policy, whatever is allowed: for the runner's own images.
    pub(crate) async fn get_by(&self, name: &str, policy: PullPolicy) -> Result<Image, PrepareError> {
        self.by_policies(name, "", vec![policy]).await
    }

    async fn by_policies(
        &self,
        name: &str,
        platform: &str,
        policies: Vec<PullPolicy>,
    ) -> Result<Image, PrepareError> {
        let pulled = Arc::clone(self.pulled.lock().await.entry(name.to_owned()).or_default());
        let mut pulled = pulled.lock().await;
        if let Some(image) = pulled.get(platform) {
            return Ok(image.clone());
        }
        let words: Vec<&str> = policies.iter().map(|policy| policy.as_str()).collect();
        self.log.line(
            LineKind::Plain,
            format_args!("Using effective pull policy of [{}] for container {name}", words.join(" ")),
        );
        let mut last = Failure { class: Class::Other, text: String::new() };
        for (index, policy) in policies.iter().enumerate() {
            if index > 0 {
                self.log.line(
                    LineKind::Plain,
                    format_args!("Attempt #{}: Trying \"{policy}\" pull policy", index + 1),
                );
            }
            match self.by_policy(*policy, name, platform).await {
                Ok(image) => {
                    pulled.insert(platform.to_owned(), image.clone());
                    return Ok(image);
                }
                Err(failure) => {
                    self.log.line(
                        LineKind::Warning,
                        format_args!("Failed to pull image with policy \"{policy}\": {}", failure.text),
                    );
                    last = failure;
                }
            }
        }
        let text = format!(
            "failed to pull image \"{name}\" with specified policies [{}]: {}",
            words.join(" "),
            last.text
        );
        Err(match last.class {
            Class::External => PrepareError::ExternalDependency(text),
            Class::Configuration => PrepareError::Configuration(text),
            Class::Other => PrepareError::ImagePull(text),
        })
    }

    async fn by_policy(&self, policy: PullPolicy, name: &str, platform: &str) -> Result<Image, Failure> {
        match policy {
            PullPolicy::Never => Ok(self.found(name, self.inspect(name).await?)),
            PullPolicy::IfNotPresent => {
                match self.engine.api().inspect_image(name).await.map_err(EngineError::from) {
                    Ok(image) if !is_for(&image, platform) => self.pull_patiently(name, platform).await,
                    Ok(image) => {
                        self.log.line(
                            LineKind::Plain,
                            "Using locally found image version due to \"if-not-present\" pull policy",
                        );
                        Ok(self.found(name, image))
                    }
                    Err(EngineError::NotFound(_)) => self.pull_patiently(name, platform).await,
                    Err(error) => Err(failure(error)),
                }
            }
            // An image that is named by what it is cannot change.
            PullPolicy::Always if is_id(name) => Ok(self.found(name, self.inspect(name).await?)),
            PullPolicy::Always => self.pull_patiently(name, platform).await,
        }
    }

    async fn pull_patiently(&self, name: &str, platform: &str) -> Result<Image, Failure> {
        let mut attempt = 1;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.pull(name, platform).await {
                Err(failure) if failure.class == Class::External && attempt < TRIES => {
                    self.log.line(
                        LineKind::Warning,
                        format_args!(
                            "Failed to pull image \"{name}\" (attempt #{attempt}), retrying: {}",
                            failure.text
                        ),
                    );
                    attempt += 1;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                pulled => return pulled,
            }
        }
    }

    async fn pull(&self, name: &str, platform: &str) -> Result<Image, Failure> {
        let credential = self.credentials().await.find(name);
        if let Some(credential) = credential {
            self.log.line(
                LineKind::Plain,
                format_args!("Authenticating with credentials from {}", credential.source),
            );
        }
        let place = if platform.is_empty() { String::new() } else { format!(" for platform {platform}") };
        self.log.line(LineKind::Plain, format_args!("Pulling docker image {name}{place} ..."));
        let reference = Reference::parse(name);
        let mut options =
            CreateImageOptionsBuilder::default().from_image(reference.name).tag(reference.tag_or_digest());
        if !platform.is_empty() {
            options = options.platform(platform);
        }
        let credential = credential.map(super::auth::Credential::for_pull);
        let mut progress = self.engine.api().create_image(Some(options.build()), None, credential);
        let mut layers = Layers::default();
        let mut said = Instant::now();
        loop {
            let next = tokio::time::timeout(STALLED, progress.next()).await;
            let Ok(next) = next else {
                return Err(Failure {
                    class: Class::External,
                    text: format!("the engine said nothing for {} seconds: i/o timeout", STALLED.as_secs()),
                });
            };
            let Some(step) = next else { break };
            let step = step.map_err(|error| failure(error.into()))?;
            if let Some(detail) = step.error_detail {
                return Err(classified(detail.message.unwrap_or_default()));
            }
            layers.hear(step.id.unwrap_or_default(), step.status.as_deref().unwrap_or_default());
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                self.log.line(LineKind::Plain, format_args!("Pulling docker image {name}: {layers}"));
            }
        }
        let image = self.inspect(name).await?;
        Ok(self.found(name, image))
    }

    async fn inspect(&self, name: &str) -> Result<ImageInspect, Failure> {
        self.engine.api().inspect_image(name).await.map_err(|error| failure(error.into()))
    }

    fn found(&self, name: &str, image: ImageInspect) -> Image {
        let id = image.id.unwrap_or_default();
        // An image may have come from several places; the others may forget it while the job runs.
        let repository = Reference::parse(name).familiar();
        let mut digests = image.repo_digests.unwrap_or_default().into_iter();
        let digest = digests.find(|digest| Reference::parse(digest).familiar() == repository);
        let with = digest.as_deref().map(|digest| format!(" with digest {digest}")).unwrap_or_default();
        self.log.line(LineKind::Plain, format_args!("Using docker image {id} for {name}{with} ..."));
        let config = image.config.unwrap_or_default();
        let ports: BTreeSet<u16> = config
            .exposed_ports
            .unwrap_or_default()
            .iter()
            .filter_map(|port| port.strip_suffix("/tcp").or_else(|| (!port.contains('/')).then_some(port)))
            .filter_map(|port| port.parse().ok())
            .collect();
        Image {
            reference: digest.filter(|_| !self.platforms).unwrap_or_else(|| id.clone()),
            user: config.user.unwrap_or_default(),
            ports: ports.into_iter().collect(),
            id,
        }
    }

    async fn credentials(&self) -> &Credentials {
        self.credentials
            .get_or_init(|| async {
                let credentials = Credentials::of(self.context, std::env::home_dir()).await;
                for warning in &credentials.warnings {
                    self.log.line(LineKind::Warning, warning);
                }
                credentials
            })
            .await
    }
}

// === impl Image ===

impl Image {
    /// Its identity on this engine.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// How far a pull is.
#[derive(Default)]
struct Layers {
    known: BTreeSet<String>,
    done: BTreeSet<String>,
}

// === impl Layers ===

impl Layers {
    fn hear(&mut self, id: String, status: &str) {
        match status {
            "Pulling fs layer" | "Downloading" | "Waiting" => {
                self.known.insert(id);
            }
            "Pull complete" | "Already exists" => {
                self.known.insert(id.clone());
                self.done.insert(id);
            }
            _ => {}
        }
    }
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} layers are there", self.done.len(), self.known.len())
    }
}

/// The policies that are tried, in order: what the job asks for, of what is allowed.
fn effective(name: &str, own: &[String], config: &DockerConfig) -> Result<Vec<PullPolicy>, String> {
    let source = match (own.is_empty(), config.pull_policy.as_slice().is_empty()) {
        (false, _) => "GitLab pipeline config",
        (true, false) => "Runner config",
        (true, true) => "Runner config (default)",
    };
    let requested = if own.is_empty() {
        config.pull_policies()
    } else {
        own.iter()
            .map(|word| {
                PullPolicy::from_name(word)
                    .ok_or_else(|| format!("unsupported pull_policy config: \"{word}\""))
            })
            .collect::<Result<Vec<_>, _>>()?
    };
    let allowed = config.allowed_pull_policies();
    let policies: Vec<PullPolicy> =
        requested.iter().copied().filter(|policy| allowed.contains(policy)).collect();
    if policies.is_empty() {
        let words = |policies: &[PullPolicy]| {
            policies.iter().map(|policy| policy.as_str()).collect::<Vec<_>>().join(" ")
        };
        return Err(format!(
            "invalid pull policy for image \"{name}\": pull_policy ([{}]) defined in {source} is not one of the \
             allowed_pull_policies ([{}])",
            words(&requested),
            words(&allowed)
        ));
    }
    Ok(policies)
}

/// Whether an image is of a platform: `os/arch[/variant]`, or the processor alone. What an engine does not say counts as right.
fn is_for(image: &ImageInspect, platform: &str) -> bool {
    let (os, arch) = match platform.split_once('/') {
        Some((os, rest)) => (os, rest.split('/').next().unwrap_or_default()),
        None => ("", platform),
    };
    let arch = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let same = |wanted: &str, found: &Option<String>| {
        wanted.is_empty() || found.as_deref().is_none_or(|found| found.is_empty() || found == wanted)
    };
    same(os, &image.os) && same(arch, &image.architecture)
}

fn is_id(name: &str) -> bool {
    name.strip_prefix("sha256:")
        .is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn failure(error: EngineError) -> Failure {
    match error {
        // The engine itself, not a registry: its instance or service is at fault.
        EngineError::Unreachable(text) => Failure { class: Class::Other, text },
        EngineError::NotFound(text) => Failure { class: Class::Configuration, text: labelled(text) },
        EngineError::Conflict(text) | EngineError::BadRequest(text) | EngineError::Failed(text) => {
            classified(text)
        }
    }
}

/// Engines answer with the same status whatever happened, so the text decides.
fn classified(text: String) -> Failure {
    let reason = FailureReason::of_image_pull(&text);
    let class = if reason == FailureReason::RunnerExternalDependencyFailure {
        Class::External
    } else if reason == FailureReason::RunnerConfigurationError {
        Class::Configuration
    } else {
        Class::Other
    };
    Failure { class, text: labelled(text) }
}

/// As the engine's own client shows it.
fn labelled(text: String) -> String {
    if text.starts_with("Error ") { text } else { format!("Error response from daemon: {text}") }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("", true; "none is asked for")]
    #[test_case("linux/amd64", true; "the same")]
    #[test_case("amd64", true; "the processor alone")]
    #[test_case("linux/x86_64", true; "another name of it")]
    #[test_case("linux/arm64/v8", false; "another processor")]
    #[test_case("windows/amd64", false; "another system")]
    fn an_image_is_of_the_platform_that_it_was_made_for(platform: &str, expected: bool) {
        let (os, architecture) = (Some("linux".to_owned()), Some("amd64".to_owned()));
        assert_eq!(is_for(&ImageInspect { os, architecture, ..ImageInspect::default() }, platform), expected);
    }

    fn docker(toml: &str) -> DockerConfig {
        let file = format!("[[runners]]\n[runners.docker]\n{toml}\n");
        let loaded = config::parse(&file, "config.toml", &|_| None).unwrap();
        loaded.config.runners[0].docker.clone().unwrap()
    }

    #[test_case("", &[], Ok(vec![PullPolicy::Always]); "nothing is said")]
    #[test_case("", &["never"], Err("Runner config (default)"); "only always is allowed then")]
    #[test_case("pull_policy = \"if-not-present\"", &[], Ok(vec![PullPolicy::IfNotPresent]); "the file decides")]
    #[test_case("pull_policy = [\"always\", \"if-not-present\"]", &["if-not-present"], Ok(vec![PullPolicy::IfNotPresent]); "the job chooses")]
    #[test_case("pull_policy = \"always\"\nallowed_pull_policies = [\"never\"]", &[], Err("Runner config"); "the file contradicts itself")]
    #[test_case("allowed_pull_policies = [\"never\"]", &["always"], Err("GitLab pipeline config"); "the job may not")]
    #[test_case("", &["sometimes"], Err("unsupported pull_policy"); "no policy")]
    fn policies_are_what_is_asked_for_and_allowed(
        toml: &str,
        own: &[&str],
        expected: Result<Vec<PullPolicy>, &str>,
    ) {
        let own: Vec<String> = own.iter().map(|&word| word.to_owned()).collect();
        match (effective("img", &own, &docker(toml)), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(text), Err("Runner config (default)" | "GitLab pipeline config")) => {
                assert!(text.contains("allowed_pull_policies"), "{text}");
            }
            (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test_case("Get \"https://r/v2/\": dial tcp: lookup r: no such host", Class::External)]
    #[test_case("manifest for a:b not found: manifest unknown", Class::Configuration)]
    #[test_case(
        "pull access denied for x, repository does not exist or may require 'docker login'",
        Class::Configuration
    )]
    #[test_case("dial tcp: lookup r: not found", Class::External; "the network comes first")]
    #[test_case("no space left on device", Class::Other)]
    fn failures_of_pulls_are_classified_by_what_they_say(text: &str, class: Class) {
        assert_eq!(classified(text.to_owned()).class, class);
    }
}
