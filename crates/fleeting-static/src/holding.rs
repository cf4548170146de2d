//! Machines that are in use: each is dialled to be locked, looked after and returned, by a connection of its own each time. That a
//! machine lets in somebody new is what the next job needs of it.

use std::time::Duration;

use connector::{Client, DialOptions, Output, dial};
use fleeting::{ConnectInfo, Os, Protocol, with_causes};

use crate::diagnose;
use crate::lock::{ANSWER, Answer, Lock};

/// A machine that has not answered by then is not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a machine came into use, and is kept.
#[derive(Debug)]
pub(crate) struct Holding {
    info: ConnectInfo,
    options: DialOptions,
    /// None for machines that are used without a lock.
    lock: Option<Lock>,
}

/// Why a machine cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Somebody else uses it.
    #[error("is in use by {0}")]
    Theirs(String),
    /// It does not answer, or not as it should.
    #[error("does not answer: {0}")]
    Dead(String),
}

// === impl Holding ===

impl Holding {
    /// Reaches a machine and takes its lock, if there is to be one. Machines that have no place for one are used without; that
    /// is said.
    pub(crate) async fn take(
        info: ConnectInfo,
        options: DialOptions,
        lock: Option<Lock>,
    ) -> Result<Self, Unusable> {
        let lock = lock.filter(|_| has_shell(&info));
        let holding = Self { info, options, lock };
        let Some(lock) = &holding.lock else {
            holding.check().await?;
            return Ok(holding);
        };
        match holding.ask(&lock.take()).await? {
            Answer::Held => Ok(holding),
            Answer::Theirs(who) => Err(Unusable::Theirs(who)),
            Answer::Unlockable(why) | Answer::Unclear(why) => {
                tracing::warn!(
                    machine = holding.info.instance,
                    %why,
                    "the machine cannot be locked: another manager cannot see that it is in use"
                );
                Ok(Self { lock: None, ..holding })
            }
        }
    }

    /// Whether a machine could be taken, without taking it.
    pub(crate) async fn look(
        info: ConnectInfo,
        options: DialOptions,
        lock: Option<Lock>,
    ) -> Result<(), Unusable> {
        let Some(lock) = lock.filter(|_| has_shell(&info)) else {
            return diagnose::greets(&info, options.use_external_addr).await.map_err(Unusable::Dead);
        };
        let looking = Self { info, options, lock: None };
        match looking.ask(&lock.look()).await? {
            Answer::Theirs(who) => Err(Unusable::Theirs(who)),
            Answer::Held | Answer::Unlockable(_) | Answer::Unclear(_) => Ok(()),
        }
    }

    /// True if there is a lock to renew.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether the machine answers, and is still locked by this use.
    pub(crate) async fn check(&self) -> Result<(), Unusable> {
        let Some(lock) = &self.lock else {
            return diagnose::greets(&self.info, self.options.use_external_addr)
                .await
                .map_err(Unusable::Dead);
        };
        match self.ask(&lock.renew()).await? {
            Answer::Held => Ok(()),
            Answer::Theirs(who) => Err(Unusable::Theirs(who)),
            // The place for locks went away, and with it the one that was there; the machine is not at fault.
            Answer::Unlockable(why) | Answer::Unclear(why) => {
                tracing::warn!(machine = self.info.instance, %why, "the lock of the machine is not renewed");
                Ok(())
            }
        }
    }

    /// Gives the machine back.
    pub(crate) async fn release(&self) -> Result<(), Unusable> {
        match &self.lock {
            Some(lock) => self.ask(&lock.release()).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Logs in and runs a script.
    async fn ask(&self, script: &str) -> Result<Answer, Unusable> {
        let asking = async {
            let mut info = self.info.clone();
            info.settings.timeout = Some(PATIENCE);
            let client =
                dial(&info, &self.options, &mut |_| ()).await.map_err(|error| with_causes(&error))?;
            let said = run(&client, script).await;
            client.close().await;
            Ok(Answer::parse(&said?))
        };
        let asked = tokio::time::timeout(2 * PATIENCE, asking).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", 2 * PATIENCE))).map_err(Unusable::Dead)
    }
}

/// Whether there is a POSIX shell: without one there is no lock.
fn has_shell(info: &ConnectInfo) -> bool {
    matches!(info.settings.protocol(), Protocol::Ssh) && info.settings.os != Some(Os::Windows)
}

/// What a script has said, as far as it matters.
async fn run(client: &Client, script: &str) -> Result<String, String> {
    let failed = |error: connector::ConnectionError| with_causes(&error);
    let mut process = client.exec("sh -s", script.to_owned().into()).await.map_err(failed)?;
    let mut said = Vec::new();
    let mut complaints = Vec::new();
    while let Some(output) = process.next().await.map_err(failed)? {
        let (bytes, kept) = match &output {
            Output::Stdout(bytes) => (bytes, &mut said),
            Output::Stderr(bytes) => (bytes, &mut complaints),
        };
        kept.extend_from_slice(bytes);
        if kept.len() > ANSWER {
            kept.drain(..kept.len() - ANSWER);
        }
    }
    let text = if said.is_empty() { complaints } else { said };
    Ok(String::from_utf8_lossy(&text).into_owned())
}
