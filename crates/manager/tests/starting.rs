//! Entries whose executors take their time, or more than one try. In paused time, with a GitLab that nobody reaches.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use drover_manager::{Control, Identity, Manager, ManagerOptions, Providers, View, control};
use fleeting::{GroupError, InstanceGroup};
use fleeting_fake::{Builder, FakeCloud, Operation};
use serde_json::Value;
use tempfile::TempDir;

/// Has one cloud.
struct One(Arc<FakeCloud>);

impl Providers for One {
    fn names(&self) -> Vec<String> {
        vec!["fake".to_owned()]
    }

    fn group(&self, _: &str, _: &Value) -> Result<Arc<dyn InstanceGroup>, GroupError> {
        Ok(Arc::clone(&self.0) as Arc<dyn InstanceGroup>)
    }
}

struct Scene {
    cloud: Arc<FakeCloud>,
    view: View,
    control: Control,
    _folder: TempDir,
}

impl Scene {
    fn start(cloud: Builder, prepare: impl FnOnce(&FakeCloud)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Arc::new(cloud.tokio_clock().build());
        prepare(&cloud);
        let product = job::Product {
            name: "drover".to_owned(),
            version: "0.1.0".to_owned(),
            revision: "0a1b2c3d".to_owned(),
            platform: "linux/amd64".to_owned(),
        };
        let identity = Identity { product, system_id: "s_1".to_owned(), host: "manager".to_owned() };
        let mut options = ManagerOptions::new(loaded(0), identity);
        options.base = folder.path().to_owned();
        options.spool = folder.path().to_owned();
        options.providers = Arc::new(One(Arc::clone(&cloud)));
        let manager = Manager::new(options);
        let view = manager.view();
        let (control, controlled) = control();
        tokio::spawn(manager.run(controlled));
        Self { cloud, view, control, _folder: folder }
    }

    async fn tried(&self, times: usize) {
        while self.cloud.count(Operation::Init) < times {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn works(&self) {
        while self.view.executors().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn loaded(idle_count: u32) -> config::Loaded {
    let text = format!(
        "[[runners]]\nname = \"x\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"t\"\nexecutor = \"instance\"\n\
         [runners.autoscaler]\nplugin = \"fake\"\nmax_instances = 10\n\
         [[runners.autoscaler.policy]]\nidle_count = {idle_count}\n"
    );
    config::parse(&text, "config.toml", &|_| None).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_try_that_a_change_has_overtaken_is_not_made() {
    let away = GroupError::Transient { message: "the cloud is away".to_owned() };
    let scene = Scene::start(FakeCloud::builder(), |cloud| cloud.fail_next(Operation::Init, away));
    scene.tried(1).await;
    scene.control.reload(loaded(3));
    scene.works().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(scene.cloud.count(Operation::Init), 2, "two executors have the group");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_comes_while_an_entry_starts_is_in_force_when_it_works() {
    let slow = FakeCloud::builder().latency(Operation::Init, Duration::from_secs(10));
    let scene = Scene::start(slow, |_| ());
    scene.tried(1).await;
    scene.control.reload(loaded(3));
    scene.works().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(scene.cloud.count(Operation::Init), 1);
    assert_eq!(scene.cloud.peak(), 3, "what the changed policy keeps idle");
}
