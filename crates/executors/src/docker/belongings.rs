//! Everything of one job on its engine, and its end.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::engine::{Engine, EngineError};
use super::labels;

/// Bound of the whole cleaning up.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Removals that are in each other's way pass.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// What one job has on its engine. Names are noted before anything is made, so that nothing can be forgotten. Dropping it
/// removes everything, in the background.
pub(crate) struct Belongings {
    engine: Arc<Engine>,
    job: u64,
    keep_volumes: bool,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    containers: Vec<String>,
    /// Removals that are under way.
    begun: Vec<JoinHandle<()>>,
    volumes: Vec<String>,
    networks: Vec<String>,
    /// Released when the rest is gone: the slot of an instance.
    lease: Option<Box<dyn Any + Send>>,
}

// === impl Belongings ===

impl Belongings {
    pub(crate) fn new(engine: Arc<Engine>, job: u64, keep_volumes: bool) -> Self {
        Self { engine, job, keep_volumes, held: Mutex::new(Held::default()) }
    }

    pub(crate) fn container(&self, name: &str) {
        self.with(|held| held.containers.push(name.to_owned()));
    }

    pub(crate) fn volumes(&self, names: &[String]) {
        self.with(|held| held.volumes.extend_from_slice(names));
    }

    pub(crate) fn network(&self, name: &str) {
        self.with(|held| held.networks.push(name.to_owned()));
    }

    /// A network was made, and has this id, which no other network has.
    pub(crate) fn network_is(&self, name: &str, id: &str) {
        self.with(|held| {
            if let Some(noted) = held.networks.iter_mut().find(|noted| *noted == name) {
                id.clone_into(noted);
            }
        });
    }

    /// Something that is given back when everything is removed.
    pub(crate) fn lease(&self, lease: Box<dyn Any + Send>) {
        self.with(|held| held.lease = Some(lease));
    }

    /// Begins to remove a container that is needed no more, while others are.
    pub(crate) fn remove_ahead(&self, name: &str) {
        let (engine, job, volumes, name) =
            (Arc::clone(&self.engine), self.job, !self.keep_volumes, name.to_owned());
        self.with(|held| {
            held.containers.retain(|held| *held != name);
            held.begun.push(tokio::spawn(async move { container(&engine, job, &name, volumes).await }));
        });
    }

    /// Removes everything.
    pub(crate) async fn remove(&self) {
        let held = self.with(std::mem::take);
        remove(&self.engine, self.job, self.keep_volumes, held).await;
    }

    /// Lets everything lie: its engine is gone.
    pub(crate) fn abandon(&self) {
        drop(self.with(std::mem::take));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Held) -> T) -> T {
        act(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Belongings {
    fn drop(&mut self) {
        let held = self.with(std::mem::take);
        if held.is_empty() {
            return;
        }
        let (engine, job, keep) = (Arc::clone(&self.engine), self.job, self.keep_volumes);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&engine, job, keep, held).await });
        }
    }
}

// === impl Held ===

impl Held {
    fn is_empty(&self) -> bool {
        self.containers.is_empty()
            && self.begun.is_empty()
            && self.volumes.is_empty()
            && self.networks.is_empty()
    }
}

async fn remove(engine: &Engine, job: u64, keep_volumes: bool, held: Held) {
    let Held { containers, begun, volumes, networks, lease } = held;
    let removing = async {
        let containers = join_all(containers.iter().map(|name| container(engine, job, name, !keep_volumes)));
        tokio::join!(containers, join_all(begun));
        // Only now nothing uses them.
        let volumes = join_all(volumes.iter().map(|name| volume(engine, job, name)));
        let networks = join_all(networks.iter().map(|name| network(engine, job, name)));
        tokio::join!(volumes, networks);
    };
    if tokio::time::timeout(TIMEOUT, removing).await.is_err() {
        tracing::warn!(
            job,
            engine = engine.place(),
            "cleaning up after the job took too long and was given up"
        );
    }
    drop(lease);
}

async fn container(engine: &Engine, job: u64, name: &str, volumes: bool) {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
    let removed = patiently(|| {
        let options = options.clone();
        async move {
            let _turn = engine.turn().await;
            engine.api().remove_container(name, Some(options)).await
        }
    });
    let removed = removed.await;
    report(engine, job, "container", name, removed);
}

async fn volume(engine: &Engine, job: u64, name: &str) {
    let options = RemoveVolumeOptionsBuilder::default().force(true).build();
    let removed = patiently(|| engine.api().remove_volume(name, Some(options.clone()))).await;
    report(engine, job, "volume", name, removed);
}

async fn network(engine: &Engine, job: u64, name: &str) {
    let removed = patiently(|| engine.api().remove_network(name)).await;
    report(engine, job, "network", name, removed);
}

/// Repeats a removal while something is in its way: another removal of the same, an endpoint that is just going.
async fn patiently<F>(call: impl Fn() -> F) -> Result<(), EngineError>
where
    F: Future<Output = Result<(), bollard::errors::Error>>,
{
    for _ in 1..TRIES {
        match call().await.map_err(EngineError::from) {
            Ok(()) | Err(EngineError::NotFound(_)) => return Ok(()),
            Err(EngineError::Failed(text)) if !text.contains("active endpoints") => {
                return Err(EngineError::Failed(text));
            }
            Err(error @ (EngineError::BadRequest(_) | EngineError::Unreachable(_))) => return Err(error),
            Err(EngineError::Conflict(_) | EngineError::Failed(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
    match call().await.map_err(EngineError::from) {
        Err(EngineError::NotFound(_)) => Ok(()),
        result => result,
    }
}

fn report(engine: &Engine, job: u64, kind: &str, name: &str, removed: Result<(), EngineError>) {
    if let Err(error) = removed {
        tracing::warn!(job, engine = engine.place(), kind, name, %error, "what belongs to a job was not removed");
    }
}

/// Removes what an earlier run of this manager left for this runner: containers, volumes that went with their job, networks.
/// Returns how many things there were.
pub(crate) async fn remove_leftovers(
    engine: &Engine,
    system_id: &str,
    short_token: &str,
) -> Result<usize, EngineError> {
    let [system, runner] = labels::owner(system_id, short_token);
    let filters = |more: Option<&str>| {
        let mut labels = vec![labels::MANAGED.to_owned(), system.clone(), runner.clone()];
        labels.extend(more.map(str::to_owned));
        HashMap::from([("label".to_owned(), labels)])
    };
    let foreign = |labels: Option<&HashMap<String, String>>| {
        labels.is_some_and(|labels| labels.get(labels::RUN).map(String::as_str) != Some(labels::run()))
    };
    let mut count = 0;
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters(None)).build();
    let containers = engine.api().list_containers(Some(options)).await?;
    let containers: Vec<String> = containers
        .into_iter()
        .filter(|container| foreign(container.labels.as_ref()))
        .filter_map(|container| container.id)
        .collect();
    count += containers.len();
    join_all(containers.iter().map(|id| container(engine, 0, id, true))).await;

    let options = ListVolumesOptionsBuilder::default().filters(&filters(Some(labels::TEMPORARY))).build();
    let volumes = engine.api().list_volumes(Some(options)).await?.volumes.unwrap_or_default();
    for left in volumes.into_iter().filter(|volume| foreign(Some(&volume.labels))) {
        count += 1;
        volume(engine, 0, &left.name).await;
    }

    let options = ListNetworksOptionsBuilder::default().filters(&filters(None)).build();
    let networks = engine.api().list_networks(Some(options)).await?;
    for left in networks.into_iter().filter(|network| foreign(network.labels.as_ref())) {
        count += 1;
        network(engine, 0, &left.id.unwrap_or_default()).await;
    }
    Ok(count)
}
