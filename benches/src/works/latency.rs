//! One job at a time, on a manager that waits for it.

use std::time::Duration;

use crate::process;
use crate::scene::{Programs, Scene, Setting};
use crate::statistics::{median, millis, ninetieth};
use crate::table::{Goal, Row};

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two jobs, so that each one meets a manager that waits.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) async fn measure(programs: &Programs, samples: u32) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (dispatch_held, server) in
        [(false, "server says \"ask again\""), (true, "server answers the held request")]
    {
        let scene = Scene::start(programs, Setting { dispatch_held, ..Setting::new(10) }).await?;
        scene.warm_up(10).await?;
        let (mut totals, mut waits) = (Vec::new(), Vec::new());
        let before = process::cpu(scene.pid)?;
        for _ in 0..samples {
            tokio::time::sleep(PAUSE).await;
            let ids = scene.mock.enqueue(1, "true").await?;
            for job in scene.mock.successful(&ids, PATIENCE).await? {
                totals.push((job.finished() - job.queued()) * 1000.0);
                waits.push((job.given() - job.queued()) * 1000.0);
            }
        }
        let cpu = millis(process::cpu(scene.pid)?.saturating_sub(before)) / f64::from(samples);
        scene.stop().await?;
        rows.push(Row::new(
            format!("one job, {server}: queued to finished, p50"),
            median(totals.clone()),
            "ms",
            Goal::AtMost(20.0),
            "64-139 ms",
        ));
        rows.push(Row::plain(format!("one job, {server}: queued to finished, p90"), ninetieth(totals), "ms"));
        rows.push(Row::plain(format!("one job, {server}: queued to given, p50"), median(waits), "ms"));
        rows.push(Row::plain(format!("one job, {server}: CPU per job"), cpu, "ms"));
    }
    Ok(rows)
}
