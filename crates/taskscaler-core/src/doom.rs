//! What a cloud has announced about the end of an instance, from both who can know it.

use std::cmp::Reverse;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// An announcement that an instance will, or may, be taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doom {
    /// What was announced.
    pub kind: DoomKind,
    /// When the instance will be gone, where that is certain and known. Jobs are ended shortly before.
    pub at: Option<DateTime<Utc>>,
    /// The provider's words.
    pub why: String,
}

/// What was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoomKind {
    /// Spare capacity is taken back.
    Interruption,
    /// The cloud advises to leave; nothing is certain.
    Rebalance,
    /// The machine will be stopped, rebooted or retired for maintenance.
    Maintenance,
    /// Something else ends the instance: its group, or an operator.
    Ending,
}

/// Who knows of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Herald {
    /// The listing of the group.
    Listing,
    /// The instance itself.
    Instance,
}

/// All that was announced for one instance. Each herald takes back what it said, and nothing of the other's: a listing lags
/// behind what the instance knows, and the instance cannot always be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Dooms {
    listed: Option<Doom>,
    told: Option<Doom>,
}

/// A moment that moves by less is the same announcement, from another source.
const SAME: TimeDelta = TimeDelta::seconds(60);

// === impl Doom ===

impl Doom {
    /// An announcement without a moment.
    pub fn new(kind: DoomKind, why: impl Into<String>) -> Self {
        Self { kind, at: None, why: why.into() }
    }

    /// The same with the moment at which the instance is gone.
    #[must_use]
    pub fn at(self, at: DateTime<Utc>) -> Self {
        Self { at: Some(at), ..self }
    }

    /// It is worth saying although `before` was said.
    pub(crate) fn is_news(&self, before: Option<&Self>) -> bool {
        let Some(before) = before.filter(|before| before.kind == self.kind) else { return true };
        match (before.at, self.at) {
            (None, None) | (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(now)) => (now - before).abs() >= SAME,
        }
    }
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{}, at {}", self.why, at.format("%Y-%m-%d %H:%M:%S UTC")),
            None => f.write_str(&self.why),
        }
    }
}

// === impl DoomKind ===

impl DoomKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Interruption, Self::Rebalance, Self::Maintenance, Self::Ending];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interruption => "interruption",
            Self::Rebalance => "rebalance",
            Self::Maintenance => "maintenance",
            Self::Ending => "ending",
        }
    }
}

impl fmt::Display for DoomKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Dooms ===

impl Dooms {
    /// The announcement that counts: what is certain goes before what is not, then what comes first, then what the instance
    /// says.
    pub(crate) fn first(&self) -> Option<&Doom> {
        let urgency = |doom: &&Doom| {
            let certain = match doom.kind {
                DoomKind::Interruption | DoomKind::Maintenance | DoomKind::Ending => true,
                DoomKind::Rebalance => false,
            };
            Reverse((!certain, doom.at.is_none(), doom.at))
        };
        // Of equals the last one counts.
        [&self.listed, &self.told].into_iter().flatten().max_by_key(urgency)
    }

    /// What this herald says now.
    pub(crate) fn hear(&mut self, herald: Herald, doom: Option<Doom>) {
        match herald {
            Herald::Listing => self.listed = doom,
            Herald::Instance => self.told = doom,
        }
    }

    /// Whether this herald would say anything new with that.
    pub(crate) fn differs(&self, herald: Herald, doom: Option<&Doom>) -> bool {
        let said = match herald {
            Herald::Listing => &self.listed,
            Herald::Instance => &self.told,
        };
        said.as_ref() != doom
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn doom(kind: DoomKind, second: Option<i64>) -> Doom {
        Doom { kind, at: second.map(at), why: format!("{kind} {second:?}") }
    }

    fn first(listed: Option<Doom>, told: Option<Doom>) -> Option<String> {
        let mut dooms = Dooms::default();
        dooms.hear(Herald::Listing, listed);
        dooms.hear(Herald::Instance, told);
        dooms.first().map(|doom| doom.why.clone())
    }

    #[test]
    fn what_is_certain_and_soon_counts() {
        use DoomKind::{Ending, Interruption, Maintenance, Rebalance};
        let soon = doom(Interruption, Some(120));
        assert_eq!(first(None, None), None);
        let later = doom(Maintenance, Some(90_000));
        assert_eq!(first(Some(later.clone()), Some(soon.clone())), Some(soon.why.clone()));
        assert_eq!(first(Some(soon.clone()), Some(later.clone())), Some(soon.why.clone()));
        let advice = doom(Rebalance, None);
        assert_eq!(first(Some(doom(Ending, None)), Some(advice.clone())), Some("ending None".to_owned()));
        assert_eq!(first(Some(later.clone()), Some(advice)), Some(later.why));
        assert_eq!(first(Some(doom(Interruption, None)), Some(soon.clone())), Some(soon.why));
        let (listed, told) = (doom(Interruption, Some(60)), Doom::new(Interruption, "told").at(at(60)));
        assert_eq!(first(Some(listed), Some(told)), Some("told".to_owned()));
    }

    #[test]
    fn each_herald_takes_back_its_own_word_only() {
        let mut dooms = Dooms::default();
        let told = doom(DoomKind::Interruption, Some(1));
        assert!(dooms.differs(Herald::Instance, Some(&told)));
        dooms.hear(Herald::Instance, Some(told.clone()));
        assert!(!dooms.differs(Herald::Instance, Some(&told)) && !dooms.differs(Herald::Listing, None));
        dooms.hear(Herald::Listing, None);
        assert_eq!(dooms.first(), Some(&told));
        dooms.hear(Herald::Instance, None);
        assert_eq!(dooms.first(), None);
    }

    #[test]
    fn the_same_announcement_from_another_source_is_no_news() {
        use DoomKind::{Interruption, Maintenance, Rebalance};
        let told = doom(Interruption, Some(120));
        assert!(told.is_news(None));
        assert!(told.is_news(Some(&doom(Rebalance, None))));
        assert!(told.is_news(Some(&doom(Interruption, None))));
        assert!(!told.is_news(Some(&doom(Interruption, Some(117)))));
        assert!(!doom(Interruption, None).is_news(Some(&told)));
        assert!(doom(Maintenance, Some(7_200)).is_news(Some(&doom(Maintenance, Some(3_600)))));
    }

    #[test]
    fn the_words_name_the_moment() {
        let doom = Doom::new(DoomKind::Interruption, "spot interruption notice (terminate)");
        assert_eq!(doom.to_string(), "spot interruption notice (terminate)");
        let dated = doom.at(at(0)).to_string();
        assert_eq!(dated, "spot interruption notice (terminate), at 2027-01-15 08:00:00 UTC");
    }
}
