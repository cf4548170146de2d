//! `gitlab-mock serve`.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use gitlab_mock::{
    Config, GitlabMock, JobBuilder, JobView, LogRetention, OnChange, Repository, Runner, Summary, Violation,
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{KeepLogs, Serve};
use crate::scenario::{Scenario, deal};

const TAIL: usize = 64 << 10;
/// How many violations are printed at the end; all are in the report.
const SHOWN_VIOLATIONS: usize = 20;

/// How long the server goes on after the last job has ended, so that the answer to its final update still arrives.
const LINGER: Duration = Duration::from_millis(500);

/// The file of `--report`.
#[derive(Serialize)]
struct Report {
    summary: Summary,
    violations: Vec<Violation>,
    jobs: Vec<JobView>,
}

/// Serves until all is done or somebody interrupts; returns the exit code.
pub(crate) async fn serve(options: Serve) -> anyhow::Result<u8> {
    let scenario = options.scenario.as_deref().map(Scenario::read).transpose()?.unwrap_or_default();
    let mock = GitlabMock::start(config(&options)).await?;
    let runners: Vec<Runner> = options.runner_tokens.iter().map(|token| mock.add_runner(token)).collect();
    scenario.check(&mock)?;
    let mut repositories: Vec<Repository> = Vec::new();
    for repository in &options.repositories {
        // git runs in another directory, so the path has to hold there.
        let directory = std::path::absolute(&repository.directory)?;
        repositories.push(mock.import_repository(&repository.project, &directory).await?);
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {} as {}", mock.address(), mock.url())?;
    stdout.flush()?;

    let job = JobBuilder::new("job")
        .script(options.script.clone())
        .timeout(Duration::from_secs(options.job_timeout));
    let job = match repositories.first() {
        Some(repository) => job.repository(repository),
        None => job,
    };
    deal(&mock, &runners, &job, options.jobs)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let run = async {
        scenario.play(&mock).await?;
        if options.exit_when_done {
            mock.all_finished(Duration::MAX).await;
            tokio::time::sleep(LINGER).await;
            Ok(())
        } else {
            std::future::pending::<anyhow::Result<()>>().await
        }
    };
    let in_time = tokio::time::timeout(options.deadline.unwrap_or(Duration::MAX), run);
    tokio::select! {
        outcome = in_time => if let Ok(outcome) = outcome { outcome? },
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    finish(&options, &mock)
}

fn config(options: &Serve) -> Config {
    Config {
        listen: options.listen,
        external_url: options.external_url.clone(),
        long_poll: options.long_poll,
        on_change: if options.dispatch_held { OnChange::Dispatch } else { OnChange::AskAgain },
        trace_update_interval: Some(Duration::from_secs(options.trace_interval)),
        log_retention: match options.keep_logs {
            KeepLogs::Full => LogRetention::Full,
            KeepLogs::Tail => LogRetention::Tail(TAIL),
        },
        stale_after: options.stale_after,
        ..Config::default()
    }
}

fn finish(options: &Serve, mock: &GitlabMock) -> anyhow::Result<u8> {
    let (summary, violations) = (mock.summary(), mock.violations());
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{summary}")?;
    for violation in violations.iter().take(SHOWN_VIOLATIONS) {
        writeln!(stdout, "  {violation}")?;
    }
    if let Some(hidden) = violations.len().checked_sub(SHOWN_VIOLATIONS).filter(|&hidden| hidden > 0) {
        writeln!(stdout, "  and {hidden} more")?;
    }
    let failed = summary.violations > 0 || !summary.lost.is_empty() || mock.unfinished() > 0;
    if let Some(path) = &options.report {
        let jobs = mock.jobs().iter().map(gitlab_mock::Job::view).collect();
        let report = serde_json::to_vec_pretty(&Report { summary, violations, jobs })?;
        std::fs::write(path, report).with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(u8::from(options.exit_when_done && failed))
}
