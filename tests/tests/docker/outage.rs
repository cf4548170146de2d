//! Engines that go away under a job and come back.

use std::path::PathBuf;

use drover_tests::{Engine, Setup};
use gitlab_mock::JobBuilder;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::nothing_is_left;

/// A socket that leads to the engine while it is open.
struct Way {
    folder: tempfile::TempDir,
    serving: Option<JoinHandle<()>>,
}

impl Way {
    fn new() -> Self {
        let mut way = Self { folder: tempfile::tempdir().unwrap(), serving: None };
        way.open();
        way
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    fn open(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut engine = UnixStream::connect(Engine::shared().socket()).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
                });
            }
        }));
    }

    /// Cuts every connection; there will be no other.
    async fn close(&mut self) {
        std::fs::remove_file(self.socket()).unwrap();
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn what_a_job_leaves_while_its_engine_is_away_is_removed_when_that_is_back() {
    let mut way = Way::new();
    let entry =
        Engine::shared().entry("away").set("docker.host", format!("unix://{}", way.socket().display()));
    let entry = entry.set("feature_flags.FF_NETWORK_PER_BUILD", true);
    let world = Setup::new().runner(entry).start().await;
    let job = JobBuilder::new("cut off").variable("GIT_STRATEGY", "none");
    let job = world.enqueue(job.script(["echo started; sleep 1000"]));
    world.says(&job, "started\n").await;
    way.close().await;
    // Its result does not wait for the engine.
    let job = world.finished(&job).await.failed("runner_system_failure", None);
    let left = Engine::shared().belongings(&world.runners[0].token(), job.view.id);
    assert!(left.len() >= 2, "{left:?}");
    way.open();
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}
