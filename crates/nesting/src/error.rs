//! Why the daemon did not do what it was asked to.

use std::fmt;
use std::time::Duration;

/// A call to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Hands the daemon its settings.
    Init,
    /// Makes a machine.
    Create,
    /// Removes a machine.
    Delete,
    /// Asks which machines there are.
    List,
    /// Stops the hypervisor.
    Shutdown,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What answers at the address does not speak the daemon's protocol, or nothing answers.
    #[error("the nesting daemon does not answer as one")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon wants [`init`](crate::Client::init) first. Calls other than `init` and `shutdown` do that by themselves.
    #[error("the nesting daemon is not initialized")]
    NotInitialized,
    /// Somebody has initialised the daemon before.
    #[error("the nesting daemon is already initialized")]
    AlreadyInitialized,
    /// The daemon could not initialise itself, which it was asked for because another call needs it.
    #[error("initializing the nesting daemon with `nesting_config`")]
    Init(#[source] Box<Error>),
    /// The daemon answered that it did not do it.
    #[error("the nesting daemon failed to {call}: {message} ({code})")]
    Refused {
        /// What it was asked for.
        call: Call,
        /// The kind of failure, in the words of gRPC, for example `Internal`.
        code: String,
        /// What the daemon says of it.
        message: String,
    },
    /// The daemon's answer cannot be used.
    #[error("the nesting daemon was asked to {call}, and its answer cannot be used: {why}")]
    Answer {
        /// What it was asked for.
        call: Call,
        /// What is wrong with it.
        why: String,
    },
    /// The connection broke before the answer came. What was asked for may have happened.
    #[error("the connection to the nesting daemon broke when it was to {call}")]
    Lost {
        /// What it was asked for.
        call: Call,
        /// What was noticed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer did not come in time. What was asked for may happen yet.
    #[error("the nesting daemon did not {call} within {after:?}")]
    TimedOut {
        /// What it was asked for.
        call: Call,
        /// How long was waited.
        after: Duration,
    },
}

// === impl Error ===

impl Error {
    /// The daemon was there and did not do it: not the way to it is to blame, but what it was asked for, or its host.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Answer { .. } | Self::TimedOut { .. } => true,
            Self::Connect(_)
            | Self::NotInitialized
            | Self::AlreadyInitialized
            | Self::Init(_)
            | Self::Lost { .. } => false,
        }
    }

    /// Id of the machine because of which the daemon lists none at all: it has no address, as while it boots, or when its host was
    /// restarted under it.
    ///
    /// Daemons ask their hypervisor for the address of each machine, and give up at the first one that has none.
    #[must_use]
    pub fn without_address(&self) -> Option<&str> {
        let Self::Refused { call: Call::List, message, .. } = self else { return None };
        let (id, rest) = message.strip_prefix("getting \"")?.split_once('"')?;
        (!id.is_empty() && rest.starts_with(" addr")).then_some(id)
    }

    /// The daemon could not remove the machine that had the slot before, for example because there is none any more: it never forgets
    /// that one then, and makes no other in the slot.
    #[must_use]
    pub fn is_of_slot(&self) -> bool {
        matches!(self, Self::Refused { call: Call::Create, message, .. } if message.starts_with("clearing slot"))
    }
}

// === impl Call ===

impl Call {
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Init => "Init",
            Self::Create => "Create",
            Self::Delete => "Delete",
            Self::List => "List",
            Self::Shutdown => "Shutdown",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "initialize",
            Self::Create => "create a virtual machine",
            Self::Delete => "delete a virtual machine",
            Self::List => "list its virtual machines",
            Self::Shutdown => "shut down",
        })
    }
}
