//! Jobs, faults and outages on a timetable.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gitlab_mock::{Fault, GitlabMock, JobBuilder, Runner};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A scenario file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Jobs that are put into queues.
    pub(crate) jobs: Vec<JobsEntry>,
    /// Faults.
    pub(crate) faults: Vec<FaultEntry>,
    /// Times at which the port is closed.
    pub(crate) outages: Vec<OutageEntry>,
    /// Times at which runners are paused.
    pub(crate) pauses: Vec<PauseEntry>,
    /// Cancelled jobs.
    pub(crate) cancels: Vec<CancelEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobsEntry {
    /// Seconds after the start.
    #[serde(default)]
    at: f64,
    #[serde(default = "one")]
    count: usize,
    /// Seconds between two jobs; 0 queues all at once.
    #[serde(default)]
    every: f64,
    /// Token of the runner; by default all in turn.
    runner: Option<String>,
    #[serde(default)]
    job: JobBuilder,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FaultEntry {
    #[serde(default)]
    at: f64,
    #[serde(flatten)]
    fault: Fault,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutageEntry {
    #[serde(default)]
    at: f64,
    seconds: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseEntry {
    #[serde(default)]
    at: f64,
    seconds: f64,
    runner: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelEntry {
    /// Seconds after the start.
    #[serde(default)]
    at: f64,
    /// Id: jobs are numbered from 1 in the order in which they are queued.
    job: u64,
    #[serde(default)]
    force: bool,
}

// === impl Scenario ===

impl Scenario {
    /// Reads a file; `.json` is JSON, everything else TOML.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read scenario `{}`", path.display()))?;
        let parsed = if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(&text).map_err(anyhow::Error::from)
        } else {
            toml::from_str(&text).map_err(anyhow::Error::from)
        };
        parsed.with_context(|| format!("failed to understand scenario `{}`", path.display()))
    }

    /// Refuses a scenario that names runners which do not exist, before anything starts.
    pub(crate) fn check(&self, mock: &GitlabMock) -> anyhow::Result<()> {
        let jobs = self.jobs.iter().filter_map(|entry| entry.runner.as_ref());
        for token in jobs.chain(self.pauses.iter().map(|entry| &entry.runner)) {
            if mock.runner(token).is_none() {
                bail!("the scenario names a runner without --runner-token: {token}");
            }
        }
        Ok(())
    }

    /// Plays the scenario to its end. Every entry runs on its own, so that a long one delays no other.
    pub(crate) async fn play(self, mock: &GitlabMock) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut entries = JoinSet::new();
        for entry in self.jobs {
            entries.spawn(queue(mock.clone(), entry, start));
        }
        for entry in self.faults {
            let mock = mock.clone();
            entries.spawn(async move {
                sleep_until(start + seconds(entry.at)).await;
                mock.inject(entry.fault);
                Ok(())
            });
        }
        for entry in self.outages {
            let mock = mock.clone();
            entries.spawn(async move {
                sleep_until(start + seconds(entry.at)).await;
                mock.refuse_connections().await;
                sleep_until(start + seconds(entry.at) + seconds(entry.seconds)).await;
                mock.accept_connections().await;
                Ok(())
            });
        }
        for entry in self.pauses {
            let runner = mock.runner(&entry.runner);
            entries.spawn(async move {
                let Some(runner) = runner else { return Ok(()) };
                sleep_until(start + seconds(entry.at)).await;
                runner.pause();
                sleep_until(start + seconds(entry.at) + seconds(entry.seconds)).await;
                runner.resume();
                Ok(())
            });
        }
        for entry in self.cancels {
            let mock = mock.clone();
            entries.spawn(async move {
                sleep_until(start + seconds(entry.at)).await;
                let job = mock.job(entry.job).with_context(|| format!("no job {} to cancel", entry.job))?;
                if entry.force {
                    job.force_cancel()
                } else {
                    job.cancel()
                };
                Ok(())
            });
        }
        while let Some(ended) = entries.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn queue(mock: GitlabMock, entry: JobsEntry, start: Instant) -> anyhow::Result<()> {
    let runners: Vec<Runner> = match &entry.runner {
        Some(token) => mock.runner(token).into_iter().collect(),
        None => mock.runners(),
    };
    let first = start + seconds(entry.at);
    if entry.every <= 0.0 {
        sleep_until(first).await;
        return deal(&mock, &runners, &entry.job, entry.count);
    }
    let mut at = first;
    for runner in runners.iter().cycle().take(entry.count) {
        sleep_until(at).await;
        mock.enqueue_many(runner, entry.job.clone(), 1)?;
        at += seconds(entry.every);
    }
    Ok(())
}

/// Puts jobs into the queues of several runners, as evenly as can be.
pub(crate) fn deal(
    mock: &GitlabMock,
    runners: &[Runner],
    job: &JobBuilder,
    count: usize,
) -> anyhow::Result<()> {
    let share = count.checked_div(runners.len()).unwrap_or(0);
    let rest = count.checked_rem(runners.len()).unwrap_or(0);
    for (index, runner) in runners.iter().enumerate() {
        let own = share + usize::from(index < rest);
        mock.enqueue_many(runner, job.clone(), own).context("failed to queue jobs")?;
    }
    Ok(())
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

const fn one() -> usize {
    1
}
