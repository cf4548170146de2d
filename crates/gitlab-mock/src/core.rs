//! The state behind a mock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use http::StatusCode;
use url::Url;

use crate::builder::JobBuilder;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::fault::Faults;
use crate::job::{JobRecord, Shared};
use crate::repository::{Checkout, GitError, Repository};
use crate::runner::RunnerRecord;
use crate::server::Gate;
use crate::storage::StorageRequest;
use crate::sync::{lock, read, write};
use crate::violation::{Rule, Violation, Violations};

/// Everything that requests and handles share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    /// Address of this server without a trailing slash.
    pub(crate) url: String,
    /// Address of the object storage without a trailing slash.
    pub(crate) storage_url: String,
    pub(crate) storage_key: u64,
    pub(crate) git_root: PathBuf,
    pub(crate) gate: Gate,
    pub(crate) violations: Violations,
    pub(crate) faults: Faults,
    pub(crate) storage_requests: Mutex<Vec<StorageRequest>>,
    trace_interval: AtomicU64,
    direct_download: AtomicBool,
    calls: Vec<AtomicU64>,
    runners: RwLock<Runners>,
    jobs: RwLock<Jobs>,
    repositories: RwLock<BTreeMap<String, Repository>>,
    next_pipeline: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Runners {
    by_token: HashMap<String, Arc<RunnerRecord>>,
    by_id: BTreeMap<u64, Arc<RunnerRecord>>,
    /// Tokens that were valid once: using one is no fault of the runner.
    retired: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Jobs {
    by_id: BTreeMap<u64, Arc<JobRecord>>,
    by_token: HashMap<String, Arc<JobRecord>>,
    last_id: u64,
}

/// What a core needs from whoever starts it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    pub(crate) storage_address: SocketAddr,
    pub(crate) git_root: PathBuf,
}

// === impl Core ===

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let config = &parts.shared.config;
        let url = config.external_url.as_deref().map_or_else(
            || format!("http://{}", parts.address),
            |external| external.trim_end_matches('/').to_owned(),
        );
        Self {
            trace_interval: AtomicU64::new(config.trace_update_interval.map_or(0, |every| every.as_secs())),
            direct_download: AtomicBool::new(config.direct_download.is_some()),
            address: parts.address,
            url,
            storage_url: storage_url(parts.storage_address, config.external_url.as_deref()),
            storage_key: rand::random(),
            git_root: parts.git_root,
            gate: Gate::default(),
            violations: Violations::default(),
            faults: Faults::default(),
            storage_requests: Mutex::default(),
            calls: Endpoint::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            runners: RwLock::default(),
            jobs: RwLock::default(),
            repositories: RwLock::default(),
            next_pipeline: Arc::new(AtomicU64::new(9001)),
            shared: parts.shared,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Records a breach of the protocol.
    pub(crate) fn violation(
        &self,
        rule: Rule,
        endpoint: Endpoint,
        job: Option<u64>,
        refused_with: Option<StatusCode>,
        detail: impl Into<String>,
    ) {
        let refused_with = refused_with.map(|status| status.as_u16());
        self.violations.record(Violation {
            at: self.now(),
            rule,
            endpoint,
            job,
            refused_with,
            detail: detail.into(),
        });
    }

    pub(crate) fn count(&self, endpoint: Endpoint) {
        if let Some(counter) = self.calls.get(endpoint as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests so far, by endpoint; endpoints that were never called are left out.
    pub(crate) fn calls(&self) -> BTreeMap<Endpoint, u64> {
        Endpoint::ALL
            .into_iter()
            .zip(&self.calls)
            .map(|(endpoint, counter)| (endpoint, counter.load(Ordering::Relaxed)))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    pub(crate) fn trace_interval(&self) -> Option<u64> {
        Some(self.trace_interval.load(Ordering::Relaxed)).filter(|&seconds| seconds > 0)
    }

    pub(crate) fn set_trace_interval(&self, interval: Option<Duration>) {
        self.trace_interval.store(interval.map_or(0, |every| every.as_secs()), Ordering::Relaxed);
    }

    pub(crate) fn direct_download(&self) -> Option<StatusCode> {
        self.config().direct_download.filter(|_| self.direct_download.load(Ordering::Relaxed))
    }

    // Runners.

    pub(crate) fn add_runner(&self, token: &str, description: &str) -> Arc<RunnerRecord> {
        let mut runners = write(&self.runners);
        let id = runners.by_id.keys().next_back().map_or(1, |last| last + 1);
        let runner = Arc::new(RunnerRecord::new(id, token.to_owned(), description.to_owned()));
        runners.by_token.insert(token.to_owned(), Arc::clone(&runner));
        runners.by_id.insert(id, Arc::clone(&runner));
        runner
    }

    pub(crate) fn remove_runner(&self, runner: &RunnerRecord) {
        let mut runners = write(&self.runners);
        let token = runner.token();
        runners.by_token.remove(&token);
        runners.by_id.remove(&runner.id);
        runners.retired.insert(token);
        drop(runners);
        runner.tick();
    }

    pub(crate) fn runner_by_token(&self, token: &str) -> Option<Arc<RunnerRecord>> {
        read(&self.runners).by_token.get(token).cloned()
    }

    pub(crate) fn runner_by_id(&self, id: u64) -> Option<Arc<RunnerRecord>> {
        read(&self.runners).by_id.get(&id).cloned()
    }

    pub(crate) fn runners(&self) -> Vec<Arc<RunnerRecord>> {
        read(&self.runners).by_id.values().cloned().collect()
    }

    /// Whether the token was valid once.
    pub(crate) fn is_retired(&self, token: &str) -> bool {
        read(&self.runners).retired.contains(token)
    }

    /// Gives the runner another token of the same kind.
    pub(crate) fn rotate_token(&self, runner: &Arc<RunnerRecord>) -> String {
        let mut runners = write(&self.runners);
        let old = runner.token();
        let kind = if old.starts_with("glrt-") { "glrt-t1_" } else { "" };
        let token = format!("{kind}{}", random_text());
        runners.by_token.remove(&old);
        runners.by_token.insert(token.clone(), Arc::clone(runner));
        runners.retired.insert(old);
        runner.replace_token(token.clone());
        token
    }

    // Jobs.

    /// Puts jobs into the queue of a runner, in this order, and wakes it once.
    pub(crate) fn enqueue(
        &self,
        runner: &RunnerRecord,
        specs: impl IntoIterator<Item = Arc<JobBuilder>>,
    ) -> Result<Vec<Arc<JobRecord>>, GitError> {
        let mut records = Vec::new();
        {
            let mut jobs = write(&self.jobs);
            for spec in specs {
                let checkout = self.checkout(&spec)?;
                jobs.last_id += 1;
                let id = jobs.last_id;
                let token = format!("glcbt-64_{}", random_text());
                let record = Arc::new(JobRecord::new(
                    id,
                    token.clone(),
                    runner.id,
                    spec,
                    checkout,
                    Arc::clone(&self.shared),
                ));
                jobs.by_token.insert(token, Arc::clone(&record));
                jobs.by_id.insert(id, Arc::clone(&record));
                records.push(record);
            }
        }
        runner.push(records.iter().cloned());
        Ok(records)
    }

    pub(crate) fn job(&self, id: u64) -> Option<Arc<JobRecord>> {
        read(&self.jobs).by_id.get(&id).cloned()
    }

    pub(crate) fn job_by_token(&self, token: &str) -> Option<Arc<JobRecord>> {
        read(&self.jobs).by_token.get(token).cloned()
    }

    pub(crate) fn jobs(&self) -> Vec<Arc<JobRecord>> {
        read(&self.jobs).by_id.values().cloned().collect()
    }

    /// At most `limit` jobs whose ids are greater than `after`.
    pub(crate) fn jobs_after(&self, after: u64, limit: usize) -> Vec<Arc<JobRecord>> {
        read(&self.jobs)
            .by_id
            .range(after.saturating_add(1)..)
            .take(limit)
            .map(|(_, job)| Arc::clone(job))
            .collect()
    }

    // Repositories.

    pub(crate) async fn create_repository(
        &self,
        project: &str,
        source: Option<&std::path::Path>,
    ) -> Result<Repository, GitError> {
        let id = 70 + read(&self.repositories).len() as u64;
        let (root, pipelines) = (&self.git_root, Arc::clone(&self.next_pipeline));
        let repository = match source {
            None => Repository::create(root, project, id, pipelines).await?,
            Some(source) => Repository::import(root, project, id, pipelines, source).await?,
        };
        write(&self.repositories).insert(project.to_owned(), repository.clone());
        Ok(repository)
    }

    pub(crate) fn repository(&self, project: &str) -> Option<Repository> {
        read(&self.repositories).get(project).cloned()
    }

    fn checkout(&self, spec: &JobBuilder) -> Result<Option<Checkout>, GitError> {
        let Some(git) = &spec.git else { return Ok(None) };
        let repository =
            self.repository(&git.project).ok_or_else(|| GitError::BadProject(git.project.clone()))?;
        repository.checkout(git.reference.as_deref()).map(Some)
    }

    pub(crate) fn record_storage_request(&self, request: StorageRequest) {
        lock(&self.storage_requests).push(request);
    }
}

/// Where downloads are sent to. A server that listens on all addresses has the one that its users know.
fn storage_url(listens: SocketAddr, external_url: Option<&str>) -> String {
    let external =
        external_url.filter(|_| listens.ip().is_unspecified()).and_then(|url| Url::parse(url).ok());
    match external.as_ref().and_then(Url::host_str) {
        Some(host) => format!("http://{host}:{}", listens.port()),
        None => format!("http://{listens}"),
    }
}

/// Twenty characters that nobody guesses, in the alphabet of GitLab's tokens.
pub(crate) fn random_text() -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789_-";
    let bytes: [u8; 20] = rand::random();
    bytes.iter().map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_sent_to_an_address_that_can_be_reached() {
        for (listens, external, url) in [
            ("127.0.0.1:81", None, "http://127.0.0.1:81"),
            ("127.0.0.1:81", Some("https://gitlab.test"), "http://127.0.0.1:81"),
            ("0.0.0.0:81", Some("https://gitlab.test:8443/x"), "http://gitlab.test:81"),
            ("[::]:81", Some("http://[2001:db8::1]"), "http://[2001:db8::1]:81"),
        ] {
            assert_eq!(storage_url(listens.parse().unwrap(), external), url);
        }
    }
}
