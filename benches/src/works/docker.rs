//! Jobs in containers: one at a time beside `docker run --rm` of the same image, and a hundred at once.
//!
//! One at a time, both are done in turn, so that what else the machine does meets both; what counts is the ratio. A hundred at
//! once show what the manager itself needs: the engine is much slower than it, so that all of them are in its hands together.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

use crate::arguments::Arguments;
use crate::process::{self, Memory};
use crate::scene::{Containers, Programs, Scene, Setting};
use crate::statistics::{median, mib, millis};
use crate::table::{Goal, Row};

const PATIENCE: Duration = Duration::from_secs(120);
/// Jobs at once, and time for all of them.
const MANY: u32 = 100;
const MANY_PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at what jobs have left.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// On everything that a job makes, and on those volumes that go with it.
const MANAGED: &str = "label=com.gitlab.gitlab-runner.managed=true";
const TEMPORARY: &str = "label=com.gitlab.gitlab-runner.reusable=false";

pub(crate) async fn measure(programs: &Programs, arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let repository = tempfile::tempdir().context("failed to make a folder")?;
    make_repository(repository.path()).await?;
    let containers = Containers {
        socket: arguments.docker_socket.clone(),
        image: arguments.docker_image.clone(),
        repository: repository.path().to_owned(),
    };
    let service = json!({ "name": arguments.docker_image, "alias": "db", "command": ["sleep", "600"] });
    let works = [
        ("job `true`, no git", json!({ "script": ["true"] }), 2.0, "6.2x"),
        (
            "job `true`, git clone",
            json!({ "script": ["true"], "git": { "project": "bench/app" },
            "allow_git_fetch": false }),
            2.5,
            "6.3x",
        ),
        ("job `true`, one service", json!({ "script": ["true"], "services": [service] }), 3.5, "9.1x"),
    ];
    let mut rows = Vec::new();
    let setting = |concurrency| Setting { containers: Some(containers.clone()), ..Setting::new(concurrency) };
    let scene = Scene::start(programs, setting(1)).await?;
    for (name, job, goal, upstream) in &works {
        // The first one makes volumes and warms caches.
        one(&scene, job).await?;
        nothing_is_left(arguments, PATIENCE).await?;
        let (mut runs, mut jobs, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.samples {
            runs.push(docker_run(arguments).await?);
            let before = process::cpu(scene.pid)?;
            jobs.push(one(&scene, job).await?);
            // What removes a job's containers must not be in the way of the next `docker run`.
            nothing_is_left(arguments, PATIENCE).await?;
            cpus.push(process::cpu(scene.pid)?.saturating_sub(before));
        }
        // Ticks are coarse, so the mean says more than the median.
        let cpu = millis(cpus.iter().sum()) / f64::from(arguments.samples);
        let (run, job) = (median(runs), median(jobs));
        let figure = (job / run * 100.0).round() / 100.0;
        rows.push(Row::new(
            format!("{name}: against `docker run`"),
            figure,
            "x",
            Goal::AtMost(*goal),
            upstream,
        ));
        rows.push(Row::plain(format!("{name}: queued to finished, p50"), job, "ms"));
        rows.push(Row::plain(format!("{name}: `docker run`, p50"), run, "ms"));
        rows.push(Row::plain(format!("{name}: CPU of the manager per job"), cpu, "ms"));
    }
    scene.stop().await?;
    for (name, job, ..) in works.iter().filter(|(_, job, ..)| job.get("git").is_none()) {
        // A manager of its own: peaks of memory stay.
        let scene = Scene::start(programs, setting(MANY)).await?;
        rows.extend(many(&scene, name, job, arguments).await?);
        scene.stop().await?;
    }
    Ok(rows)
}

/// A hundred jobs at once, as often as asked.
async fn many(scene: &Scene, name: &str, job: &Value, arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let before = process::cpu(scene.pid)?;
        let ids = scene.mock.enqueue_job(MANY, job.clone()).await?;
        let jobs = scene.mock.successful(&ids, MANY_PATIENCE).await?;
        nothing_is_left(arguments, MANY_PATIENCE).await?;
        let cpu = process::cpu(scene.pid)?.saturating_sub(before);
        let queued = jobs.iter().map(crate::mock::JobView::queued).fold(f64::INFINITY, f64::min);
        let finished = jobs.iter().map(crate::mock::JobView::finished).fold(0.0, f64::max);
        rates.push(f64::from(MANY) / (finished - queued));
        cpus.push(millis(cpu) / f64::from(MANY));
    }
    let peak = mib(Memory::of(scene.pid)?.peak);
    let work = format!("{MANY} times {name}, at once");
    Ok(vec![
        Row::new(format!("{work}: peak memory of the manager"), peak, "MiB", Goal::AtMost(40.0), ""),
        Row::new(format!("{work}: CPU of the manager per job"), median(cpus), "ms", Goal::AtMost(5.0), ""),
        Row::plain(format!("{work}: rate"), median(rates), "jobs/s"),
    ])
}

/// Waits until the engine has nothing of any job.
async fn nothing_is_left(arguments: &Arguments, patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    loop {
        let mut left = docker(arguments, &["ps", "--all", "--quiet", "--filter", MANAGED]).await?;
        left.push_str(&docker(arguments, &["volume", "ls", "--quiet", "--filter", TEMPORARY]).await?);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("containers or volumes of jobs are left on the engine: {left}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What the engine's own client says.
async fn docker(arguments: &Arguments, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker")
        .arg("--host")
        .arg(format!("unix://{}", arguments.docker_socket.display()))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .await
        .context("failed to start `docker`")?;
    if !output.status.success() {
        bail!(
            "`docker {}` ended with {}: {}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One commit of one file.
async fn make_repository(folder: &Path) -> anyhow::Result<()> {
    std::fs::write(folder.join("README.md"), "hello\n").context("failed to write a file")?;
    let identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.test"];
    for step in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "."],
        &["commit", "--quiet", "--message=first"],
    ] {
        let status = Command::new("git").current_dir(folder).args(identity).args(step).status().await;
        if !status.context("failed to start `git`")?.success() {
            bail!("`git {}` failed", step.join(" "));
        }
    }
    Ok(())
}

/// One job, in milliseconds from the queue to its result.
async fn one(scene: &Scene, job: &Value) -> anyhow::Result<f64> {
    let ids = scene.mock.enqueue_job(1, job.clone()).await?;
    let done = scene.mock.successful(&ids, PATIENCE).await?;
    let done = done.first().context("the job is unknown")?;
    Ok((done.finished() - done.queued()) * 1000.0)
}

/// One container by the command line, in milliseconds.
async fn docker_run(arguments: &Arguments) -> anyhow::Result<f64> {
    let began = Instant::now();
    docker(arguments, &["run", "--rm", "--network", "host", &arguments.docker_image, "true"]).await?;
    Ok(millis(began.elapsed()))
}
