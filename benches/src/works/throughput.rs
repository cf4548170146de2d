//! 200 jobs that do nothing, queued at once.

use std::time::Duration;

use crate::process::{self, Memory};
use crate::scene::{Programs, Scene, Setting};
use crate::statistics::{median, mib, millis};
use crate::table::{Goal, Row};

const JOBS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(120);

struct Figures {
    jobs_per_second: f64,
    cpu_per_job: f64,
    peak: f64,
}

pub(crate) async fn measure(programs: &Programs, runs: u32) -> anyhow::Result<Vec<Row>> {
    let ten = at_once(programs, 10, runs).await?;
    let fifty = at_once(programs, 50, runs).await?;
    Ok(vec![
        Row::new(
            "200 jobs, 10 at once: rate",
            ten.jobs_per_second,
            "jobs/s",
            Goal::AtLeast(60.0),
            "10.3 jobs/s",
        ),
        Row::new("200 jobs, 10 at once: CPU per job", ten.cpu_per_job, "ms", Goal::AtMost(1.5), "7-9.5 ms"),
        Row::new("200 jobs, 10 at once: peak memory", ten.peak, "MiB", Goal::AtMost(20.0), "84 MiB"),
        Row::plain("200 jobs, 50 at once: rate", fifty.jobs_per_second, "jobs/s"),
        Row::plain("200 jobs, 50 at once: CPU per job", fifty.cpu_per_job, "ms"),
        Row::new("200 jobs, 50 at once: peak memory", fifty.peak, "MiB", Goal::AtMost(30.0), "97-102 MiB"),
    ])
}

async fn at_once(programs: &Programs, concurrency: u32, runs: u32) -> anyhow::Result<Figures> {
    let scene = Scene::start(programs, Setting::new(concurrency)).await?;
    scene.warm_up(concurrency).await?;
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let before = process::cpu(scene.pid)?;
        let ids = scene.mock.enqueue(JOBS, "true").await?;
        let jobs = scene.mock.successful(&ids, PATIENCE).await?;
        let cpu = process::cpu(scene.pid)?.saturating_sub(before);
        let queued = jobs.iter().map(crate::mock::JobView::queued).fold(f64::INFINITY, f64::min);
        let finished = jobs.iter().map(crate::mock::JobView::finished).fold(0.0, f64::max);
        rates.push(f64::from(JOBS) / (finished - queued));
        cpus.push(millis(cpu) / f64::from(JOBS));
    }
    let peak = mib(Memory::of(scene.pid)?.peak);
    scene.stop().await?;
    Ok(Figures { jobs_per_second: median(rates), cpu_per_job: median(cpus), peak })
}
