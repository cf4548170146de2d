//! Jobs in containers, one at a time, beside `docker run --rm` of the same image.
//!
//! Both are done in turn, so that what else the machine does meets both. What counts is the ratio.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

use crate::arguments::Arguments;
use crate::process;
use crate::scene::{Containers, Programs, Scene, Setting};
use crate::statistics::{median, millis};
use crate::table::{Goal, Row};

const PATIENCE: Duration = Duration::from_secs(120);

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
    let scene = Scene::start(programs, Setting { containers: Some(containers), ..Setting::new(1) }).await?;
    let mut rows = Vec::new();
    for (name, job, goal, upstream) in works {
        // The first one makes volumes and warms caches.
        one(&scene, &job).await?;
        let (mut runs, mut jobs) = (Vec::new(), Vec::new());
        let before = process::cpu(scene.pid)?;
        for _ in 0..arguments.samples {
            runs.push(docker_run(arguments).await?);
            jobs.push(one(&scene, &job).await?);
        }
        let cpu = millis(process::cpu(scene.pid)?.saturating_sub(before)) / f64::from(arguments.samples);
        let (run, job) = (median(runs), median(jobs));
        let figure = (job / run * 100.0).round() / 100.0;
        rows.push(Row::new(
            format!("{name}: against `docker run`"),
            figure,
            "x",
            Goal::AtMost(goal),
            upstream,
        ));
        rows.push(Row::plain(format!("{name}: queued to finished, p50"), job, "ms"));
        rows.push(Row::plain(format!("{name}: `docker run`, p50"), run, "ms"));
        rows.push(Row::plain(format!("{name}: CPU of the manager per job"), cpu, "ms"));
    }
    scene.stop().await?;
    Ok(rows)
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
    let status = Command::new("docker")
        .arg("--host")
        .arg(format!("unix://{}", arguments.docker_socket.display()))
        .args(["run", "--rm", "--network", "host", &arguments.docker_image, "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await
        .context("failed to start `docker`")?;
    if !status.success() {
        bail!("`docker run` ended with {status}");
    }
    Ok(millis(began.elapsed()))
}
