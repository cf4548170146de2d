//! One attempt of one stage: its script goes in, its output into the log, and whatever stops it wins.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trace::JobLog;

use super::signals::{Scope, Signals, Stopped};
use crate::environment::{Environment, EnvironmentError, StageEvent, StageOutput, Stop};

/// Time for a stage to end by itself after `TERM`.
const TERMINATE_PATIENCE: Duration = Duration::from_secs(10);
/// Time for it to end after `KILL`.
const KILL_PATIENCE: Duration = Duration::from_secs(3);
/// How long a broken connection may wait for the reason why the place is gone.
const CAUSE_PATIENCE: Duration = Duration::from_secs(4);

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this status.
    Exited(i32),
    /// From outside.
    Stopped(Stopped),
    /// With its place, for this reason.
    Lost(String),
    /// It never began.
    Refused(String),
    /// What it ran in is gone, and can be made again.
    Vanished(String),
}

/// Runs one attempt.
pub(super) async fn attempt(
    environment: &dyn Environment,
    name: &str,
    command: &str,
    script: Bytes,
    log: &JobLog,
    signals: &Signals,
    scope: Scope,
) -> Ended {
    let stopped = signals.stopped(scope);
    tokio::pin!(stopped);
    let handle = tokio::select! {
        biased;
        stopped = &mut stopped => return Ended::Stopped(stopped),
        started = environment.start(name, command, script) => match started {
            Ok(handle) => handle,
            Err(error) => return broken(environment, error).await,
        },
    };
    let mut output = match environment.attach(&handle, 0).await {
        Ok(output) => output,
        Err(error) => return broken(environment, error).await,
    };
    let mut stdout = log.stdout();
    let mut stderr = log.stderr();
    let lost = environment.lost();
    tokio::pin!(lost);
    loop {
        tokio::select! {
            biased;
            stopped = &mut stopped => {
                let patience = match &stopped {
                    Stopped::Taken(taken) => taken.patience(TERMINATE_PATIENCE),
                    Stopped::Canceled | Stopped::Aborted | Stopped::Interrupted(_) | Stopped::TimedOut(..) => {
                        TERMINATE_PATIENCE
                    }
                };
                stop(&mut *output, &mut stdout, &mut stderr, patience).await;
                return Ended::Stopped(stopped);
            }
            event = output.next() => match event {
                Ok(StageEvent::Stdout(bytes)) => stdout.write(&bytes),
                Ok(StageEvent::Stderr(bytes)) => stderr.write(&bytes),
                Ok(StageEvent::Exited(code)) => return Ended::Exited(code),
                Err(error) => return broken(environment, error).await,
            },
            why = &mut lost => return Ended::Lost(why),
        }
    }
}

/// Ends a running stage: asks, then insists, then gives up. What it still says goes into the log.
async fn stop(
    output: &mut dyn StageOutput,
    stdout: &mut trace::LogWriter,
    stderr: &mut trace::LogWriter,
    patience: Duration,
) {
    for (how, patience) in [(Stop::Terminate, patience), (Stop::Kill, KILL_PATIENCE)] {
        output.stop(how).await;
        let end = Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(end, output.next()).await {
                Ok(Ok(StageEvent::Stdout(bytes))) => stdout.write(&bytes),
                Ok(Ok(StageEvent::Stderr(bytes))) => stderr.write(&bytes),
                Ok(Ok(StageEvent::Exited(_))) => {
                    if how == Stop::Terminate {
                        // Its shell is gone; what it has started may not have listened.
                        output.stop(Stop::Kill).await;
                    }
                    return;
                }
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
    }
    tracing::warn!("a stage did not end after it was killed; its connection is closed");
}

/// A connection that broke is explained by the loss of its place where that comes to be known.
async fn broken(environment: &dyn Environment, error: EnvironmentError) -> Ended {
    match error {
        EnvironmentError::Refused(why) => Ended::Refused(why),
        EnvironmentError::Vanished(why) => Ended::Vanished(why),
        EnvironmentError::NotResumable(_) => Ended::Refused(error.to_string()),
        EnvironmentError::Lost(why) => match tokio::time::timeout(CAUSE_PATIENCE, environment.lost()).await {
            Ok(cause) => Ended::Lost(cause),
            Err(_) => Ended::Lost(format!("the connection to {} broke: {why}", environment.place())),
        },
    }
}
