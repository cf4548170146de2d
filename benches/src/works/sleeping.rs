//! 50 jobs at once that say nothing.

use std::time::Duration;

use crate::process::{self, Memory};
use crate::scene::{Programs, Scene, Setting};
use crate::statistics::{median, mib, millis};
use crate::table::{Goal, Row};

const JOBS: u32 = 50;
const SCRIPT: &str = "sleep 20";
const PATIENCE: Duration = Duration::from_secs(60);
/// Looks at the manager while all jobs run.
const LOOKS: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn measure(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::start(programs, Setting::new(JOBS)).await?;
    // No job before: so the jobs of the server that run are those of this work.
    let ids = scene.mock.enqueue(JOBS, SCRIPT).await?;
    scene.mock.reached("running", u64::from(JOBS), PATIENCE).await?;
    let before = process::cpu(scene.pid)?;
    let (mut resident, mut anonymous) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let memory = Memory::of(scene.pid)?;
        resident.push(mib(memory.resident));
        anonymous.push(mib(memory.anonymous));
    }
    let share =
        millis(process::cpu(scene.pid)?.saturating_sub(before)) / millis(LOOK_INTERVAL * LOOKS) * 100.0;
    scene.mock.successful(&ids, PATIENCE).await?;
    let peak = mib(Memory::of(scene.pid)?.peak);
    scene.stop().await?;
    Ok(vec![
        Row::new("50 sleeping jobs: memory", median(resident), "MiB", Goal::AtMost(25.0), "91-96 MiB"),
        Row::plain("50 sleeping jobs: memory that is no file's", median(anonymous), "MiB"),
        Row::plain("50 sleeping jobs: peak memory, start and end included", peak, "MiB"),
        Row::plain("50 sleeping jobs: share of a core", share, "%"),
    ])
}
