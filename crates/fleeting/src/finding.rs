//! What a provider has to say about its group before anything goes wrong.

use std::fmt;

use serde::Serialize;

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Was examined and is as it should be.
    Good,
    /// Worth knowing; nothing has to be done.
    Notice,
    /// Works, but jobs may be lost or money wasted.
    Warning,
    /// Does not work until somebody acts.
    Error,
}

/// The result of one check of a group's settings, permissions or surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was examined, in a form that stays the same from release to release, for example
    /// `aws/permission/autoscaling:SetDesiredCapacity`.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What it leads to. Empty where nothing follows.
    pub leads_to: String,
    /// The command or the change that repairs it. Empty where nothing has to be repaired.
    pub repair: String,
}

// === impl Finding ===

impl Finding {
    /// A check that found nothing wrong.
    pub fn good(check: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            severity: Severity::Good,
            what: what.into(),
            leads_to: String::new(),
            repair: String::new(),
        }
    }

    /// A check that found something.
    pub fn new(severity: Severity, check: impl Into<String>, what: impl Into<String>) -> Self {
        Self { severity, ..Self::good(check, what) }
    }

    /// Adds what it leads to.
    #[must_use]
    pub fn leads_to(mut self, consequence: impl Into<String>) -> Self {
        self.leads_to = consequence.into();
        self
    }

    /// Adds what repairs it.
    #[must_use]
    pub fn repair(mut self, command: impl Into<String>) -> Self {
        self.repair = command.into();
        self
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}
