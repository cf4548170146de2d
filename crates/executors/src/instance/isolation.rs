//! Nested virtual machines: where an entry asks for it, each job gets one of its own, made by a daemon on the instance.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use config::{Autoscaler, Runner};
use connector::Client;
use fleeting::{ConnectorSettings, with_causes};
use job::Context;
use tokio_util::task::TaskTracker;
use trace::JobLog;

use super::machines::Need;
use super::settings::{self, SettingsError};
use crate::PrepareError;
use crate::docker::{allows, disallowed};

/// How the jobs of an entry come to virtual machines.
pub(crate) struct Isolation {
    address: connect_info::DaemonAddress,
    /// `nesting_config`.
    config: Bytes,
    /// Image of the machines, where the job does not choose it.
    image: String,
    /// The job's `image` is that of its machine; else it is a container's.
    job_chooses: bool,
    /// How the machines are reached from their hosts.
    pub(crate) connector: ConnectorSettings,
    /// What the machines need besides their SSH server.
    pub(crate) need: Option<Arc<dyn Need>>,
    /// Failures in a row after which a host is reported.
    threshold: u32,
    /// By instance: machines in a row that were not made or could not be used.
    failures: Mutex<BTreeMap<String, u32>>,
    /// Machines that are being removed.
    pub(crate) endings: TaskTracker,
}

// === impl Isolation ===

impl Isolation {
    /// As the entry asks for it, if it does. `need` is what the machines need besides their SSH server.
    pub(crate) fn of(
        runner: &Runner,
        autoscaler: &Autoscaler,
        base: &Path,
        need: Option<Arc<dyn Need>>,
    ) -> Result<Option<Arc<Self>>, SettingsError> {
        let Some(wanted) = autoscaler.vm_isolation.as_ref().filter(|wanted| wanted.enabled) else {
            return Ok(None);
        };
        let bad = |why: String| SettingsError::Isolation(why);
        let address = wanted.nesting_host.as_deref().unwrap_or_default();
        let address = address.parse().map_err(|error| bad(format!("nesting_host: {error}")))?;
        let connector = wanted.connector_config.clone().unwrap_or_default();
        let key = connector.key_path.as_ref().map(|path| settings::key(&base.join(path))).transpose()?;
        let connector = connector.settings(key);
        if connector.username.as_deref().unwrap_or_default().is_empty()
            || (connector.password.is_none() && connector.key_pem.is_none())
        {
            let why =
                "connector_config needs `username`, and `password` or `key_path`: the login of the image";
            return Err(bad(why.to_owned()));
        }
        let config = wanted.nesting_config.as_ref().map(config::RawTable::to_json);
        let config = config.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
        Ok(Some(Arc::new(Self {
            address,
            config: Bytes::from(config.to_string()),
            image: wanted.image.clone().unwrap_or_default(),
            job_chooses: runner.executor() == Some(config::ExecutorName::Instance),
            connector,
            need,
            threshold: autoscaler.failure_threshold().max(1),
            failures: Mutex::default(),
            endings: TaskTracker::new(),
        })))
    }

    /// The image of a job's machine. It is checked as it will be used: what the variables of a job say is the job's choice, too.
    pub(crate) fn image(
        &self,
        entry: &Runner,
        context: &Context,
        log: &JobLog,
    ) -> Result<String, PrepareError> {
        let own = context.job().image.name.as_str();
        let chosen = self.job_chooses && !own.is_empty();
        let image = context.variables().expand(if chosen { own } else { &self.image }).into_owned();
        let allowed =
            entry.instance.as_ref().map(|instance| &instance.allowed_images[..]).unwrap_or_default();
        if chosen && !image.is_empty() && !allows(allowed, &image) {
            return Err(disallowed("images", &image, allowed, log));
        }
        if image.is_empty() {
            let instead = if self.job_chooses { "set `image` in the job or" } else { "set" };
            return Err(PrepareError::Configuration(format!(
                "no nesting VM image specified to run the job in: {instead} `image` in [runners.autoscaler.vm_isolation]"
            )));
        }
        Ok(image)
    }

    /// The daemon of a connected host, with this long for making a machine.
    pub(crate) async fn daemon(
        &self,
        host: &Client,
        create_patience: Duration,
    ) -> Result<nesting::Client, String> {
        let defaults = nesting::Options::default();
        let options = nesting::Options { config: self.config.clone(), create_patience, ..defaults };
        let dialling = async {
            let tunnel = match &self.address {
                connect_info::DaemonAddress::Unix(path) => host.connect_unix(path).await,
                connect_info::DaemonAddress::Tcp { host: name, port } => host.connect_tcp(name, *port).await,
            };
            let tunnel = tunnel.map_err(|error| self.unreached(&error))?;
            let connected = nesting::Client::connect(tunnel, options).await;
            connected.map_err(|error| with_causes(&error).to_string())
        };
        let dialled = tokio::time::timeout(defaults.patience, dialling).await;
        dialled
            .unwrap_or_else(|_| Err(format!("no answer at {} within {:?}", self.address, defaults.patience)))
            .map_err(|why| format!("dialing nesting daemon: {why}"))
    }

    /// Where the daemon is.
    pub(crate) fn address(&self) -> &connect_info::DaemonAddress {
        &self.address
    }

    /// Removes all machines of a host that takes no jobs yet: none of them is anybody's.
    pub(crate) async fn clear(&self, host: &Client) -> Result<(), String> {
        let daemon = self.daemon(host, Duration::ZERO).await?;
        let mut tried = BTreeSet::new();
        let machines = loop {
            let error = match daemon.list().await {
                Ok(machines) => break machines,
                Err(error) => error,
            };
            // One that does not run, as after a restart of its host, hides all the others.
            match error.without_address() {
                Some(vm) if tried.insert(vm.to_owned()) => remove(&daemon, host.instance(), vm).await,
                Some(_) | None => return Err(format!("listing existing vms: {}", with_causes(&error))),
            }
        };
        for machine in machines {
            remove(&daemon, host.instance(), &machine.id).await;
        }
        Ok(())
    }

    /// Notes that a job got its machine on an instance.
    pub(crate) fn worked(&self, instance: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
    }

    /// Notes that a machine was not made, or could not be used. Whether the instance is to be reported: one failure says more of the
    /// image, which a job may have chosen, than of the instance.
    pub(crate) fn failed(&self, instance: &str) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(instance.to_owned()).or_default();
        *count += 1;
        *count >= self.threshold
    }

    /// What a tunnel that was refused means: SSH servers do not say.
    fn unreached(&self, error: &connector::ConnectionError) -> String {
        let why = with_causes(error);
        match error {
            connector::ConnectionError::TunnelRefused { .. } => format!(
                "{why}: see that the daemon runs there and listens at {} (`nesting_host`), and that the SSH server lets its login \
                 forward to it",
                self.address
            ),
            connector::ConnectionError::Lost { .. }
            | connector::ConnectionError::Closed { .. }
            | connector::ConnectionError::SessionRefused { .. }
            | connector::ConnectionError::ExecRefused { .. }
            | connector::ConnectionError::NoExitStatus { .. }
            | connector::ConnectionError::Unread { .. } => why.to_string(),
            other => other.to_string(),
        }
    }
}

/// A host is fit for jobs when its daemon answers.
#[async_trait]
impl Need for Isolation {
    async fn look(&self, client: &Client) -> Result<(), String> {
        let daemon = self.daemon(client, Duration::ZERO).await?;
        // Machines are not asked for: there is no list of them while one boots, and that one is some other job's.
        daemon.prepare().await.map_err(|error| with_causes(&error).to_string())
    }

    async fn settle(&self, client: &Client) -> Result<(), String> {
        self.clear(client).await
    }

    fn forget(&self, instance: &str) {
        self.worked(instance);
    }
}

/// Removes a machine that is nobody's.
async fn remove(daemon: &nesting::Client, instance: &str, vm: &str) {
    match daemon.delete(vm).await {
        Ok(()) => tracing::info!(instance, vm, "a virtual machine of an earlier run was removed"),
        // The next job in its slot takes its place.
        Err(error) => {
            tracing::warn!(
                instance,
                vm,
                error = with_causes(&error),
                "a virtual machine of an earlier run stays"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const HOST: &str = "nesting_host = \"unix:///a b.sock\"\n";
    const LOGIN: &str =
        "[runners.autoscaler.vm_isolation.connector_config]\nusername = \"u\"\npassword = \"p\"\n";

    fn isolation(keys: &str) -> Result<Option<Arc<Isolation>>, String> {
        let text = format!(
            "[[runners]]\nname = \"x\"\nurl = \"https://gitlab.example.com\"\ntoken = \"t\"\nexecutor = \"instance\"\n\
             [runners.autoscaler]\nplugin = \"static\"\nfailure_threshold = 2\n[runners.autoscaler.vm_isolation]\n{keys}"
        );
        let runner = config::parse(&text, "config.toml", &|_| None).unwrap().config.runners.remove(0);
        let autoscaler = runner.autoscaler.clone().unwrap();
        Isolation::of(&runner, &autoscaler, Path::new("/nowhere"), None).map_err(|error| error.to_string())
    }

    #[test_case(HOST, "", "needs `username`"; "no login")]
    #[test_case(HOST, "[runners.autoscaler.vm_isolation.connector_config]\nusername = \"u\"\n", "and `password` or `key_path`"; "nothing to log in with")]
    #[test_case("nesting_host = \"nesting.sock\"\n", LOGIN, "`nesting.sock` is not an address"; "no address")]
    #[test_case("", LOGIN, "`` is not an address"; "nothing")]
    fn what_cannot_work_is_refused_before_a_job_is_taken(host: &str, login: &str, why: &str) {
        let error = isolation(&format!("enabled = true\n{host}{login}")).err().unwrap();
        assert!(error.starts_with("[runners.autoscaler.vm_isolation]: ") && error.contains(why), "{error}");
    }

    #[test]
    fn isolation_that_is_not_enabled_is_not_looked_at() {
        assert!(isolation("enabled = false\n").unwrap().is_none());
    }

    #[test]
    fn only_failures_in_a_row_are_reported() {
        let isolation = isolation(&format!("enabled = true\n{HOST}{LOGIN}")).unwrap().unwrap();
        assert!(!isolation.failed("i-1"));
        assert!(!isolation.failed("i-2"), "each instance has its own");
        isolation.worked("i-1");
        assert!(!isolation.failed("i-1"));
        assert!(isolation.failed("i-1"));
    }
}
