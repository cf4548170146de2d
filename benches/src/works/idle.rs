//! Nothing to do: a manager with a pool, and a request that the server holds.

use std::time::{Duration, Instant};

use crate::process::{Memory, ThreadTimes};
use crate::scene::{Programs, Scene, Setting};
use crate::statistics::mib;
use crate::table::{Goal, Row};

/// For instances to come up, and for threads of the start to go away again.
const SETTLE: Duration = Duration::from_secs(15);

pub(crate) async fn measure(programs: &Programs, seconds: u64) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::start(programs, Setting::new(10)).await?;
    tokio::time::sleep(SETTLE).await;
    let fresh = Memory::of(scene.pid)?;
    let (start, before) = (Instant::now(), ThreadTimes::of(scene.pid)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = ThreadTimes::of(scene.pid)?;
    let share = after.since(&before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    scene.warm_up(10).await?;
    tokio::time::sleep(SETTLE).await;
    let used = Memory::of(scene.pid)?;
    scene.stop().await?;
    Ok(vec![
        Row::new("idle: memory", mib(fresh.resident), "MiB", Goal::AtMost(15.0), "72-75 MiB"),
        Row::plain("idle: memory that is no file's", mib(fresh.anonymous), "MiB"),
        Row::plain("idle after 10 jobs: memory", mib(used.resident), "MiB"),
        Row::plain("idle after 10 jobs: memory that is no file's", mib(used.anonymous), "MiB"),
        Row::new(format!("idle for {seconds} s: share of a core"), share, "%", Goal::AtMost(0.03), "0.03 %"),
        Row::plain("idle: threads", f64::from(u32::try_from(after.threads())?), ""),
    ])
}
