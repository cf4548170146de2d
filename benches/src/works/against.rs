//! GitLab Runner and Drover in turn, each with the same configuration and the same jobs, on a machine that they reach over SSH.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use crate::arguments::Arguments;
use crate::process::{self, Memory};
use crate::scene::{Programs, Scene, Setting};
use crate::statistics::{median, mib, millis};
use crate::table::shown;
use crate::works::log::{LINE, LINES, OUTPUT_LIMIT};

const AT_ONCE: u32 = 10;
const JOBS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(300);
/// For a manager to come to rest, and between two jobs so that each one meets a manager that waits.
const SETTLE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// Which side of a comparison wins.
#[derive(Debug, Clone, Copy)]
enum Better {
    More,
    Less,
}

/// What is compared: a name, a unit, which is better.
const KINDS: [(&str, &str, Better); 9] = [
    ("100 jobs, 10 at once: rate", "jobs/s", Better::More),
    ("100 jobs, 10 at once: CPU per job", "ms", Better::Less),
    ("100 jobs, 10 at once: peak memory", "MiB", Better::Less),
    ("one job: queued to given, p50", "ms", Better::Less),
    ("one job: given to finished, p50", "ms", Better::Less),
    ("one job: CPU per job", "ms", Better::Less),
    ("100 MiB log: end to end", "MiB/s", Better::More),
    ("100 MiB log: CPU", "s", Better::Less),
    ("idle: memory", "MiB", Better::Less),
];

/// Figures of both, side by side.
#[derive(Debug)]
pub(crate) struct Comparison {
    upstream: String,
    rows: Vec<[String; 4]>,
    load: String,
}

/// Measures both, in turn, so that a load that others make falls on either.
pub(crate) async fn measure(
    programs: &Programs,
    upstream: &Path,
    arguments: &Arguments,
) -> anyhow::Result<Comparison> {
    let version = version(upstream).await?;
    let upstream = std::path::absolute(upstream)?;
    let before = process::load_average();
    let mut figures = [const { Vec::new() }; 2];
    for _ in 0..arguments.runs {
        for (program, figures) in [None, Some(upstream.clone())].into_iter().zip(&mut figures) {
            let name = program.as_ref().map_or("Drover".into(), |program| program.display().to_string());
            let setting = Setting {
                on_a_machine: true,
                output_limit: OUTPUT_LIMIT,
                upstream: program,
                ..Setting::new(AT_ONCE)
            };
            let once = once(programs, setting, arguments.samples).await;
            figures.push(once.with_context(|| format!("failed to measure {name}"))?);
        }
    }
    let middle = |side: &[[f64; KINDS.len()]], kind: usize| {
        median(side.iter().filter_map(|run| run.get(kind).copied()).collect())
    };
    let row = |(kind, (name, unit, better)): (usize, &(&str, &str, Better))| {
        let (ours, theirs) = (middle(&figures[0], kind), middle(&figures[1], kind));
        let times = match better {
            Better::More => ours / theirs,
            Better::Less => theirs / ours,
        };
        [(*name).to_owned(), shown(ours, unit), shown(theirs, unit), shown(times, "x")]
    };
    let rows = KINDS.iter().enumerate().map(row).collect();
    let load = format!("{before} - {}", process::load_average());
    Ok(Comparison { upstream: version, rows, load })
}

/// All works with one manager, in the order of [`KINDS`].
async fn once(programs: &Programs, setting: Setting, samples: u32) -> anyhow::Result<[f64; KINDS.len()]> {
    let scene = Scene::start(programs, setting).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = mib(resident(scene.pid)?);
    scene.warm_up(AT_ONCE).await?;

    let before = cpu(scene.pid)?;
    let ids = scene.mock.enqueue(JOBS, "true").await?;
    let jobs = scene.mock.successful(&ids, PATIENCE).await?;
    let queued = jobs.iter().map(crate::mock::JobView::queued).fold(f64::INFINITY, f64::min);
    let finished = jobs.iter().map(crate::mock::JobView::finished).fold(0.0, f64::max);
    let rate = f64::from(JOBS) / (finished - queued);
    let busy = millis(cpu(scene.pid)?.saturating_sub(before)) / f64::from(JOBS);
    let peak = mib(peak(scene.pid)?);

    let (mut waits, mut runs) = (Vec::new(), Vec::new());
    let before = cpu(scene.pid)?;
    for _ in 0..samples {
        tokio::time::sleep(PAUSE).await;
        let ids = scene.mock.enqueue(1, "true").await?;
        for job in scene.mock.successful(&ids, PATIENCE).await? {
            waits.push((job.given() - job.queued()) * 1000.0);
            runs.push((job.finished() - job.given()) * 1000.0);
        }
    }
    let single = millis(cpu(scene.pid)?.saturating_sub(before)) / f64::from(samples);

    let before = cpu(scene.pid)?;
    let ids = scene.mock.enqueue(1, &format!("(yes '{LINE}' || true) | head -n {LINES}")).await?;
    let logs = scene.mock.successful(&ids, PATIENCE).await?;
    let log = logs.iter().map(|job| 100.0 / (job.finished() - job.given())).fold(f64::NAN, f64::max);
    let log_cpu = cpu(scene.pid)?.saturating_sub(before).as_secs_f64();
    scene.stop().await?;
    Ok([rate, busy, peak, median(waits), median(runs), single, log, log_cpu, idle])
}

// Plugins of GitLab Runner are processes of their own, and count.

fn cpu(pid: u32) -> anyhow::Result<Duration> {
    process::family(pid).into_iter().map(process::cpu).sum()
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    process::family(pid).into_iter().map(|pid| Ok(Memory::of(pid)?.resident)).sum()
}

fn peak(pid: u32) -> anyhow::Result<u64> {
    process::family(pid).into_iter().map(|pid| Ok(Memory::of(pid)?.peak)).sum()
}

async fn version(upstream: &Path) -> anyhow::Result<String> {
    let ran = Command::new(upstream).arg("--version").output().await.with_context(|| {
        format!("failed to run `{}`: name GitLab Runner's program with --against", upstream.display())
    })?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("Version:"));
    let version = version.with_context(|| format!("`{}` says no version", upstream.display()))?;
    Ok(version.trim().to_owned())
}

// === impl Comparison ===

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| work | Drover | GitLab Runner {} | times as good |", self.upstream)?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        writeln!(f, "\nLoad of the machine: {}", self.load)
    }
}
