//! Everything of one job on its engine, and its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::engine::{Engine, EngineError};
use super::environment::Ground;
use super::labels;

/// Bound of the whole cleaning up.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Removals that are in each other's way pass.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// An engine that was restarted (an update, a crash) is back within this time, with all that it had.
const RETURN: Duration = Duration::from_secs(120);
/// Between two looks for it.
const LOOK: Duration = Duration::from_secs(1);

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
    /// Removals that are under way; each ends with the name if there is something left to do.
    begun: Vec<JoinHandle<Option<String>>>,
    volumes: Vec<String>,
    networks: Vec<Network>,
    /// Released when the rest is gone: the slot of an instance.
    ground: Option<Arc<dyn Ground>>,
}

/// A network, by the id that no other has once it was made, and until then by its name.
struct Network {
    name: String,
    id: Option<String>,
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
        self.with(|held| held.networks.push(Network { name: name.to_owned(), id: None }));
    }

    /// A network was made, and has this id, which no other network has.
    pub(crate) fn network_is(&self, name: &str, id: &str) {
        self.with(|held| {
            if let Some(noted) = held.networks.iter_mut().find(|noted| noted.name == name) {
                noted.id = Some(id.to_owned());
            }
        });
    }

    /// What the engine runs on, given back when everything is removed.
    pub(crate) fn ground(&self, ground: Arc<dyn Ground>) {
        self.with(|held| held.ground = Some(ground));
    }

    /// Begins to remove a container that is needed no more, while others are. Does nothing the second time.
    pub(crate) fn remove_ahead(&self, name: &str) {
        let (engine, job, volumes, name) =
            (Arc::clone(&self.engine), self.job, !self.keep_volumes, name.to_owned());
        self.with(|held| {
            let Some(place) = held.containers.iter().position(|held| *held == name) else { return };
            held.containers.swap_remove(place);
            held.begun.push(tokio::spawn(async move { container(&engine, job, name, volumes).await }));
        });
    }

    /// Removes everything. Of an engine that does not answer, nothing is waited for: that goes on in the background.
    pub(crate) async fn remove(&self) {
        let held = self.with(std::mem::take);
        let left = remove(&self.engine, self.job, self.keep_volumes, held).await;
        if !left.is_empty() {
            let (engine, job, keep) = (Arc::clone(&self.engine), self.job, self.keep_volumes);
            tokio::spawn(async move { remove_on_return(&engine, job, keep, left).await });
        }
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
            runtime.spawn(async move {
                let left = remove(&engine, job, keep, held).await;
                remove_on_return(&engine, job, keep, left).await;
            });
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

    fn names(&self) -> impl Iterator<Item = &str> {
        let networks = self.networks.iter().map(|noted| &noted.name);
        self.containers.iter().chain(&self.volumes).chain(networks).map(String::as_str)
    }
}

/// Removes what is held, and returns what its engine was not reached for.
async fn remove(engine: &Engine, job: u64, keep_volumes: bool, held: Held) -> Held {
    let Held { containers, begun, volumes, networks, ground } = held;
    let removing = async {
        let containers =
            join_all(containers.into_iter().map(|name| container(engine, job, name, !keep_volumes)));
        let (containers, begun) = tokio::join!(containers, join_all(begun));
        // Only now nothing uses them.
        let volumes = join_all(volumes.into_iter().map(|name| volume(engine, job, name)));
        let networks = join_all(networks.into_iter().map(|noted| network(engine, job, noted)));
        let (volumes, networks) = tokio::join!(volumes, networks);
        Held {
            // A removal that panicked has said so.
            containers: containers.into_iter().chain(begun.into_iter().flatten()).flatten().collect(),
            volumes: volumes.into_iter().flatten().collect(),
            networks: networks.into_iter().flatten().collect(),
            ..Held::default()
        }
    };
    match tokio::time::timeout(TIMEOUT, removing).await {
        Ok(left) if left.is_empty() => left,
        Ok(left) => Held { ground, ..left },
        Err(_) => {
            tracing::warn!(
                job,
                engine = engine.place(),
                "cleaning up after the job took too long and was given up"
            );
            Held::default()
        }
    }
}

/// Removes what is left when its engine answers again. An instance whose engine stays away meets no other job.
async fn remove_on_return(engine: &Engine, job: u64, keep_volumes: bool, mut left: Held) {
    let end = Instant::now() + RETURN;
    while !left.is_empty() {
        if left.ground.as_ref().is_some_and(|ground| ground.is_lost()) {
            return;
        }
        if Instant::now() >= end {
            let names: Vec<&str> = left.names().collect();
            tracing::warn!(
                job,
                engine = engine.place(),
                ?names,
                "what belongs to a job was not removed: its engine does not answer"
            );
            if let Some(ground) = &left.ground {
                ground.give_up();
            }
            return;
        }
        tokio::time::sleep(LOOK).await;
        if engine.api().ping().await.is_ok() {
            left = remove(engine, job, keep_volumes, left).await;
        }
    }
}

async fn container(engine: &Engine, job: u64, name: String, volumes: bool) -> Option<String> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
    let removed = patiently(|| {
        let (name, options) = (&name, options.clone());
        async move {
            let _turn = engine.turn().await;
            engine.api().remove_container(name, Some(options)).await
        }
    });
    let done = is_done(engine, job, "container", &name, removed.await);
    (!done).then_some(name)
}

async fn volume(engine: &Engine, job: u64, name: String) -> Option<String> {
    let options = RemoveVolumeOptionsBuilder::default().force(true).build();
    let removed = patiently(|| engine.api().remove_volume(&name, Some(options.clone()))).await;
    let done = is_done(engine, job, "volume", &name, removed);
    (!done).then_some(name)
}

async fn network(engine: &Engine, job: u64, noted: Network) -> Option<Network> {
    let name = noted.id.as_deref().unwrap_or(&noted.name);
    let removed = patiently(|| engine.api().remove_network(name)).await;
    let done = is_done(engine, job, "network", name, removed);
    // Later, the name alone may be that of the network of the job's next try.
    (!done && noted.id.is_some()).then_some(noted)
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

/// Whether nothing is left to do: what an engine refuses to remove stays, and is reported.
fn is_done(engine: &Engine, job: u64, kind: &str, name: &str, removed: Result<(), EngineError>) -> bool {
    match removed {
        Ok(()) => true,
        Err(EngineError::Unreachable(why)) => {
            tracing::debug!(job, engine = engine.place(), kind, name, why, "not removed yet");
            false
        }
        Err(error) => {
            tracing::warn!(job, engine = engine.place(), kind, name, %error, "what belongs to a job was not removed");
            true
        }
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
    let owned = vec![labels::MANAGED.to_owned(), system, runner];
    let mut temporary = owned.clone();
    temporary.push(labels::TEMPORARY.to_owned());
    let filters = |labels: &[String]| HashMap::from([("label".to_owned(), labels.to_vec())]);
    let mut count = 0;
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters(&owned)).build();
    let containers = engine.api().list_containers(Some(options)).await?;
    let containers: Vec<String> = containers
        .into_iter()
        .filter(|container| container.labels.as_ref().is_some_and(|labels| is_leftover(labels, &owned)))
        .filter_map(|container| container.id)
        .collect();
    count += containers.len();
    join_all(containers.into_iter().map(|id| container(engine, 0, id, true))).await;

    let options = ListVolumesOptionsBuilder::default().filters(&filters(&temporary)).build();
    let volumes = engine.api().list_volumes(Some(options)).await?.volumes.unwrap_or_default();
    for left in volumes.into_iter().filter(|volume| is_leftover(&volume.labels, &temporary)) {
        count += 1;
        volume(engine, 0, left.name).await;
    }

    let options = ListNetworksOptionsBuilder::default().filters(&filters(&owned)).build();
    let networks = engine.api().list_networks(Some(options)).await?;
    let is_left = |labels: &HashMap<String, String>| is_leftover(labels, &owned);
    for left in networks.into_iter().filter(|network| network.labels.as_ref().is_some_and(is_left)) {
        count += 1;
        let noted = Network { name: left.name.unwrap_or_default(), id: left.id };
        network(engine, 0, noted).await;
    }
    Ok(count)
}

/// Whether something is what an earlier run of the manager left: it has all of these labels, and those of another run. The engine
/// was asked for them already, but Podman lists volumes that have any one of them, and those of others must not be touched.
fn is_leftover(labels: &HashMap<String, String>, wanted: &[String]) -> bool {
    let has = |label: &String| {
        label
            .split_once('=')
            .is_some_and(|(name, value)| labels.get(name).is_some_and(|found| found == value))
    };
    wanted.iter().all(has) && labels.get(labels::RUN).map(String::as_str) != Some(labels::run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_every_label_and_is_of_another_run_was_left_behind() {
        let wanted = ["managed=true", "runner.id=a", "reusable=false"].map(str::to_owned);
        let labels = |runner: &str, reusable: &str, run: &str| {
            let labels =
                [("managed", "true"), ("runner.id", runner), ("reusable", reusable), (labels::RUN, run)];
            HashMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        assert!(is_leftover(&labels("a", "false", "earlier"), &wanted));
        assert!(!is_leftover(&labels("b", "false", "earlier"), &wanted), "another runner's");
        assert!(!is_leftover(&labels("a", "true", "earlier"), &wanted), "a cache that is kept");
        assert!(!is_leftover(&labels("a", "false", labels::run()), &wanted), "of a job that runs");
        assert!(!is_leftover(&HashMap::new(), &wanted), "of somebody else");
    }
}
