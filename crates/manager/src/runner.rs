//! One runner entry at work: its client, its executor, and what its jobs need to know of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{Config, ExecutorName, Runner};
use executors::{
    DockerAutoscaler, DockerExecutor, DockerParts, DockerStartError, Executor, InstanceExecutor,
    InstanceParts, InstanceStartError,
};
use gitlab_api::{
    Client, ClientError, ClientOptions, ExposeSecret as _, Features, InfoFields, JobRequest, RunnerInfo,
    SecretString, TlsFiles, Token,
};
use job::{Helper, Isolation, Layout, Product, RunnerFacts, Shell, TempAccess};
use session::{Session, SessionServer};
use taskscaler_core::Zone;

use crate::caches::EntryCaches;
use crate::dispatch::RunnerLimits;
use crate::limits;
use crate::providers::Providers;
use crate::watch::RunnerWatch;

/// The program, as it presents itself to GitLab, in logs and in variables.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name, version and source revision.
    pub product: Product,
    /// Identity of this manager at GitLab.
    pub system_id: String,
    /// Host name, for `Running on ... via ...`.
    pub host: String,
}

/// What all entries share.
pub(crate) struct Surroundings {
    pub(crate) identity: Identity,
    pub(crate) providers: Arc<dyn Providers>,
    /// Folder of the configuration file, where relative paths start.
    pub(crate) base: PathBuf,
    pub(crate) local_zone: Zone,
    pub(crate) observer: Option<Arc<dyn gitlab_api::Observer>>,
    pub(crate) sessions: Option<SessionServer>,
}

/// A runner entry that takes jobs.
pub(crate) struct Working {
    pub(crate) entry: Runner,
    pub(crate) client: Client,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) info: Arc<RunnerInfo>,
    pub(crate) facts: Arc<RunnerFacts>,
    pub(crate) caches: Arc<EntryCaches>,
    pub(crate) token: SecretString,
}

/// Why an entry takes no jobs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("the entry has no token")]
    NoToken,
    #[error("cannot talk to GitLab")]
    Client(#[source] ClientError),
    #[error("plugin `{plugin}`: {source}")]
    Plugin { plugin: String, source: fleeting::GroupError },
    #[error("executor `{0}` is not available in this build")]
    Executor(String),
    #[error(transparent)]
    Instance(#[from] InstanceStartError),
    #[error(transparent)]
    Docker(#[from] DockerStartError),
}

// === impl Working ===

impl Working {
    /// Brings an entry to work: reads its files, reaches its group.
    pub(crate) async fn start(
        entry: Runner,
        global: &Config,
        around: &Surroundings,
        watch: &RunnerWatch,
    ) -> Result<Self, EntryError> {
        let token = entry.token().ok_or(EntryError::NoToken)?.clone();
        let client = client(&entry, global, around, watch)?;
        let executor = executor(&entry, global, around, watch).await?;
        let info = RunnerInfo::new(InfoFields {
            executor: executor.kind().to_owned(),
            shell: entry.shell().as_str().to_owned(),
            features: features(&*executor, around),
            labels: global.labels_of(&entry),
            ..InfoFields::of_this_build(
                &around.identity.product.name,
                &around.identity.product.version,
                &around.identity.product.revision,
            )
        })
        .map_err(EntryError::Client)?;
        let facts = Arc::new(facts(&entry, executor.kind(), &around.identity, &token));
        let caches = Arc::new(EntryCaches::new(&entry, &around.base));
        Ok(Self { entry, client, executor, info: Arc::new(info), facts, caches, token })
    }

    /// Takes over what can change without a restart.
    pub(crate) fn reconfigure(&mut self, entry: Runner, around: &Surroundings) {
        self.executor.configure(&entry);
        self.facts = Arc::new(facts(&entry, self.executor.kind(), &around.identity, &self.token));
        self.caches = Arc::new(EntryCaches::new(&entry, &around.base));
        self.entry = entry;
    }

    /// A session for the next job, if its executor has terminals and they are served.
    pub(crate) fn session(&self, around: &Surroundings) -> Option<Session> {
        let sessions = around.sessions.as_ref()?;
        self.executor.features().terminal.then(|| sessions.open())
    }

    pub(crate) fn job_request(
        &self,
        around: &Surroundings,
        long_poll: bool,
        session: Option<&Session>,
    ) -> JobRequest {
        let certificate = around.sessions.as_ref().map(SessionServer::certificate).unwrap_or_default();
        let session = session.map(|session| gitlab_api::Session {
            url: session.url().to_owned(),
            certificate: certificate.to_owned(),
            authorization: session.authorization().expose_secret().to_owned(),
        });
        JobRequest {
            token: self.token.clone(),
            system_id: around.identity.system_id.clone(),
            info: Arc::clone(&self.info),
            session,
            long_poll,
        }
    }

    pub(crate) fn limits(&self) -> RunnerLimits {
        RunnerLimits {
            limit: self.entry.limit().map_or(0, |limit| limit as usize),
            request_concurrency: self.entry.request_concurrency() as usize,
            adaptive: self.entry.feature_flag("FF_USE_ADAPTIVE_REQUEST_CONCURRENCY").unwrap_or(true),
            strict_check_interval: self.entry.strict_check_interval,
            unhealthy_requests_limit: self.entry.unhealthy_requests_limit(),
            unhealthy_interval: self.entry.unhealthy_interval(),
        }
    }
}

fn client(
    entry: &Runner,
    global: &Config,
    around: &Surroundings,
    watch: &RunnerWatch,
) -> Result<Client, EntryError> {
    let mut options = ClientOptions::new(entry.url());
    options.tls = tls_files(entry, &around.base);
    let product = &around.identity.product;
    let fields = InfoFields::of_this_build(&product.name, &product.version, &product.revision);
    options.user_agent = gitlab_api::user_agent(&fields, "main");
    options.connection_max_age = global.connection_max_age().unwrap_or(Duration::ZERO);
    options.observer = watch.api.clone().or_else(|| around.observer.clone());
    Client::new(options).map_err(EntryError::Client)
}

/// The configured files, else those that are named after the host in `certs/` below `base`.
#[must_use]
pub fn tls_files(entry: &Runner, base: &Path) -> TlsFiles {
    let host = url::Url::parse(entry.url()).ok().and_then(|url| url.host_str().map(str::to_owned));
    let file = |configured: Option<&String>, ending: &str| match configured {
        Some(path) => Some(base.join(path)),
        None => {
            let path = base.join("certs").join(format!("{}.{ending}", host.as_deref()?));
            path.exists().then_some(path)
        }
    };
    TlsFiles {
        ca_file: file(entry.tls_ca_file.as_ref(), "crt"),
        cert_file: file(entry.tls_cert_file.as_ref(), "auth.crt"),
        key_file: file(entry.tls_key_file.as_ref(), "auth.key"),
    }
}

/// Starts the server of web terminals, if `[session_server]` has an address to listen on.
///
/// # Errors
/// [`session::StartError`]
pub async fn session_server(config: &Config) -> Result<Option<SessionServer>, session::StartError> {
    let settings = config.session_server.as_ref();
    let addresses = settings.and_then(|all| all.listen_address.as_deref().zip(all.advertise_address()));
    let Some((settings, (listen, advertise))) = settings.zip(addresses) else {
        tracing::info!("[session_server].listen_address not defined, session endpoints disabled");
        return Ok(None);
    };
    let options = session::Options {
        listen: listen.to_owned(),
        advertise: advertise.to_owned(),
        timeout: settings.session_timeout(),
    };
    let server = SessionServer::start(options).await?;
    tracing::info!(address = %server.address(), advertise, "Session server listening");
    Ok(Some(server))
}

/// Terminals are offered only where a server leads to them.
fn features(executor: &dyn Executor, around: &Surroundings) -> Features {
    let features = executor.features();
    let served = around.sessions.is_some() && features.terminal;
    Features { session: served, terminal: served, ..features }
}

async fn executor(
    entry: &Runner,
    global: &Config,
    around: &Surroundings,
    watch: &RunnerWatch,
) -> Result<Arc<dyn Executor>, EntryError> {
    match entry.executor() {
        Some(ExecutorName::Instance) => {
            let instances = instance_parts(entry, around, watch)?;
            let group = Arc::clone(&instances.group);
            let executor = InstanceExecutor::start(entry, instances).await?;
            limits::say(entry, global, group.max_size());
            Ok(Arc::new(executor))
        }
        Some(ExecutorName::DockerAutoscaler) => {
            let instances = instance_parts(entry, around, watch)?;
            let group = Arc::clone(&instances.group);
            let executor = DockerAutoscaler::start(entry, instances, docker_parts(around)).await?;
            limits::say(entry, global, group.max_size());
            Ok(Arc::new(executor))
        }
        Some(ExecutorName::Docker) => Ok(Arc::new(DockerExecutor::start(entry, docker_parts(around))?)),
        Some(
            other @ (ExecutorName::DockerMachine
            | ExecutorName::Shell
            | ExecutorName::Ssh
            | ExecutorName::Custom
            | ExecutorName::Kubernetes
            | ExecutorName::Virtualbox
            | ExecutorName::Parallels),
        ) => Err(EntryError::Executor(other.as_str().to_owned())),
        None => Err(EntryError::Executor(entry.executor.clone().unwrap_or_default())),
    }
}

fn instance_parts(
    entry: &Runner,
    around: &Surroundings,
    watch: &RunnerWatch,
) -> Result<InstanceParts, EntryError> {
    let autoscaler = entry.autoscaler.as_ref();
    let plugin = autoscaler.and_then(|autoscaler| autoscaler.plugin());
    let name = plugin.map(|plugin| plugin.name).unwrap_or_default();
    let config = autoscaler.map(config::Autoscaler::plugin_config).unwrap_or_default();
    let group = around
        .providers
        .group(&name, &config)
        .map_err(|source| EntryError::Plugin { plugin: name, source })?;
    Ok(InstanceParts {
        group,
        base: around.base.clone(),
        local: around.local_zone,
        heartbeats: entry.feature_flag("FF_USE_FLEETING_ACQUIRE_HEARTBEATS").unwrap_or(false),
        manager: (around.identity.system_id.clone(), around.identity.host.clone()),
        observer: watch.scaler.clone(),
    })
}

fn docker_parts(around: &Surroundings) -> DockerParts {
    DockerParts {
        base: around.base.clone(),
        version: around.identity.product.version.clone(),
        system_id: around.identity.system_id.clone(),
    }
}

/// Folders of containers, which are nobody else's.
fn container_facts(entry: &Runner, facts: &mut RunnerFacts) {
    facts.builds_dir = entry.builds_dir.clone().unwrap_or_else(|| "/builds".to_owned());
    facts.cache_dir = entry.cache_dir.clone().unwrap_or_else(|| "/cache".to_owned());
    let shared = executors::builds_are_shared(entry, &facts.builds_dir);
    facts.layout = if shared { Layout::Shared } else { Layout::Own };
    facts.isolation = Isolation::Disposable;
    facts.temp_access = TempAccess::Everyone;
    facts.helper = Helper { command: "gitlab-runner-helper".to_owned(), is_drover: false };
    facts.custom_build_dir = entry.custom_build_dir().unwrap_or(true);
    facts.safe_directory_checkout = entry.safe_directory_checkout.unwrap_or(true);
}

fn facts(entry: &Runner, executor: &str, identity: &Identity, token: &SecretString) -> RunnerFacts {
    // The executor refused shells that scripts cannot be written for.
    let shell: Shell = entry.shell().as_str().parse().unwrap_or_default();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut facts = RunnerFacts::new(identity.product.clone(), executor, shell, entry.url());
    facts.name = entry.name().to_owned();
    facts.token = Token(token.clone());
    facts.short_token = entry.short_token().to_owned();
    facts.system_id.clone_from(&identity.system_id);
    facts.manager_host.clone_from(&identity.host);
    facts.clone_url = text(&entry.clone_url);
    if let Some(builds) = &entry.builds_dir {
        facts.builds_dir.clone_from(builds);
    }
    if let Some(cache) = &entry.cache_dir {
        facts.cache_dir.clone_from(cache);
    }
    if entry.has_common_build_dir() {
        facts.layout = Layout::Own;
    }
    facts.max_uploaded_archive_size =
        entry.cache.as_ref().and_then(config::Cache::max_uploaded_archive_size).unwrap_or(0);
    facts.environment = entry.environment.to_vec();
    facts.pre_get_sources_script = text(&entry.pre_get_sources_script);
    facts.post_get_sources_script = text(&entry.post_get_sources_script);
    facts.pre_build_script = text(&entry.pre_build_script);
    facts.post_build_script = text(&entry.post_build_script);
    facts.feature_flags.clone_from(&entry.feature_flags);
    facts.debug_trace_disabled = entry.debug_trace_disabled;
    facts.proxy_exec = entry.proxy_exec.unwrap_or(false);
    facts.custom_build_dir = entry.custom_build_dir().unwrap_or(false);
    facts.clean_git_config = entry.clean_git_config.unwrap_or(true);
    facts.safe_directory_checkout = entry.safe_directory_checkout.unwrap_or(false);
    facts.prepare_timeout = entry.prepare_timeout();
    facts.get_sources_timeout = entry.get_sources_timeout();
    if let Some(artifact) = &entry.artifact {
        facts.artifact_upload_timeout = Some(artifact.upload_timeout());
        facts.artifact_response_header_timeout = Some(artifact.response_header_timeout());
    }
    if entry.executor().is_some_and(ExecutorName::uses_docker) {
        container_facts(entry, &mut facts);
    }
    facts
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("max_use_count = 1", "", Layout::Shared; "not asked for")]
    #[test_case("", "[runners.instance]\nuse_common_build_dir = true", Layout::Shared; "jobs could meet there")]
    #[test_case("max_use_count = 2", "[runners.instance]\nuse_common_build_dir = true", Layout::Shared; "two jobs could")]
    #[test_case("max_use_count = 1", "[runners.instance]\nuse_common_build_dir = true", Layout::Own; "one job for each instance")]
    #[test_case("", "[runners.autoscaler.vm_isolation]\nenabled = true\n[runners.instance]\nuse_common_build_dir = true", Layout::Own; "one job for each machine")]
    fn jobs_have_one_folder_only_where_no_two_can_meet(autoscaler: &str, more: &str, layout: Layout) {
        let text = format!(
            "[[runners]]\nname = \"a\"\nurl = \"https://gitlab.test\"\ntoken = \"glrt-0123456789\"\nexecutor = \"instance\"\n\
             [runners.autoscaler]\nplugin = \"aws\"\n{autoscaler}\n{more}\n"
        );
        let config = config::parse(&text, "config.toml", &|_| None).unwrap().config;
        let product = Product {
            name: "drover".to_owned(),
            version: "0.1.0".to_owned(),
            revision: "0a1b2c3d".to_owned(),
            platform: "linux/amd64".to_owned(),
        };
        let identity = Identity { product, system_id: "s_1".to_owned(), host: "manager".to_owned() };
        let facts = facts(&config.runners[0], "instance", &identity, &SecretString::from("glrt-0123456789"));
        assert_eq!(facts.layout, layout);
    }
}
