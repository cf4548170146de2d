//! What a reload changes.

use secrecy::ExposeSecret;
use serde::Serialize;

use crate::model::{Config, Runner};
use crate::read::{KeyPath, Section};
use crate::schema::Reload;

/// One key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The key, below its runner entry or at the top of the file.
    pub key: String,
    /// What the new value needs to take effect: [`Reload::Live`] or [`Reload::Restart`].
    pub reload: Reload,
}

/// The differences between two versions of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Changed keys outside of the runner entries.
    pub global: Vec<Change>,
    /// Runner entries, in the order of the new file; removed ones last.
    pub runners: Vec<RunnerChange>,
}

/// What became of one runner entry. Indices count from 0 in the old and in the new file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum RunnerChange {
    /// Present in both, the same; its place may have changed.
    Same {
        /// Index in the old file.
        old: usize,
        /// Index in the new file.
        new: usize,
    },
    /// Present in both, with different values.
    Changed {
        /// Index in the old file.
        old: usize,
        /// Index in the new file.
        new: usize,
        /// What differs.
        changes: Vec<Change>,
    },
    /// Only in the new file.
    Added {
        /// Index in the new file.
        new: usize,
    },
    /// Only in the old file.
    Removed {
        /// Index in the old file.
        old: usize,
    },
}

// === impl Change ===

impl Change {
    pub(crate) fn new(at: &KeyPath, reload: Reload) -> Self {
        Self { key: at.as_str().to_owned(), reload }
    }
}

// === impl Diff ===

impl Diff {
    /// Compares two versions of a file.
    ///
    /// A runner entry is the same one if it has the same URL and number, else the same URL and token, else the same URL and
    /// name: a rotated token or a new name does not make a new runner.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut global = Vec::new();
        let without_runners = |config: &Config| Config { runners: Vec::new(), ..config.clone() };
        Section::compare(
            &without_runners(old),
            &without_runners(new),
            &KeyPath::default(),
            Reload::Live,
            &mut global,
        );

        let pairs = pair(&old.runners, &new.runners);
        let mut runners = Vec::new();
        for (index, runner) in new.runners.iter().enumerate() {
            let partner = pairs.get(index).copied().flatten();
            runners.push(
                match partner.and_then(|old_index| Some((old_index, old.runners.get(old_index)?))) {
                    None => RunnerChange::Added { new: index },
                    Some((old_index, before)) => {
                        let mut changes = Vec::new();
                        Section::compare(before, runner, &KeyPath::default(), Reload::Live, &mut changes);
                        if changes.is_empty() {
                            RunnerChange::Same { old: old_index, new: index }
                        } else {
                            RunnerChange::Changed { old: old_index, new: index, changes }
                        }
                    }
                },
            );
        }
        for index in 0..old.runners.len() {
            if !pairs.contains(&Some(index)) {
                runners.push(RunnerChange::Removed { old: index });
            }
        }
        Self { global, runners }
    }

    /// Whether nothing changed but, perhaps, the order of entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.global.is_empty()
            && self.runners.iter().all(|change| matches!(change, RunnerChange::Same { .. }))
    }

    /// Changed global keys that only a new process takes up.
    pub fn needs_restart(&self) -> impl Iterator<Item = &Change> {
        self.global.iter().filter(|change| change.reload == Reload::Restart)
    }
}

impl Config {
    /// What changed from `self` to `new`; see [`Diff::between`].
    #[must_use]
    pub fn diff(&self, new: &Self) -> Diff {
        Diff::between(self, new)
    }
}

// === impl RunnerChange ===

impl RunnerChange {
    /// Whether the entry must be started again for its changes to take effect.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        match self {
            Self::Changed { changes, .. } => changes.iter().any(|change| change.reload == Reload::Restart),
            Self::Same { .. } | Self::Added { .. } | Self::Removed { .. } => false,
        }
    }
}

/// For each new entry the index of its old self.
fn pair(old: &[Runner], new: &[Runner]) -> Vec<Option<usize>> {
    let rules: [fn(&Runner, &Runner) -> bool; 3] = [
        |a, b| a.url() == b.url() && a.id.is_some_and(|id| id != 0) && a.id == b.id,
        |a, b| {
            let token = |runner: &Runner| runner.token().map(|token| token.expose_secret().to_owned());
            a.url() == b.url() && token(a).is_some() && token(a) == token(b)
        },
        |a, b| a.url() == b.url() && !a.name().is_empty() && a.name() == b.name(),
    ];
    let mut partners: Vec<Option<usize>> = vec![None; new.len()];
    for same in rules {
        for (index, after) in new.iter().enumerate() {
            if partners.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let free = old
                .iter()
                .enumerate()
                .find(|(old_index, before)| !partners.contains(&Some(*old_index)) && same(before, after));
            if let (Some(slot), Some((old_index, _))) = (partners.get_mut(index), free) {
                *slot = Some(old_index);
            }
        }
    }
    partners
}
