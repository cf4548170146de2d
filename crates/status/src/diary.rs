//! The last things that happened, oldest first. Bounded, so that it costs the same after a year.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Moments that are kept.
pub const KEPT: usize = 64;
/// Most bytes of one text: an error can carry the output of a command.
const LONGEST: usize = 600;

/// What happened at one moment, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When it happened; when it happened last if it was repeated.
    pub at: DateTime<Utc>,
    /// What kind of thing it is.
    pub kind: Kind,
    /// What happened, and why.
    pub text: String,
    /// How often it happened in a row.
    pub times: u32,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something was decided.
    Decision,
    /// An instance came to another state.
    Instance,
    /// Another policy came into force.
    Policy,
    /// Something failed.
    Error,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

/// The last [`KEPT`] moments of one kind of teller.
#[derive(Debug, Clone, Default)]
pub struct Diary(VecDeque<Moment>);

// === impl Diary ===

impl Diary {
    /// Adds a moment; the oldest one goes when there is no room. What repeats the last one is counted there.
    pub fn add(&mut self, at: DateTime<Utc>, kind: Kind, text: impl Into<String>) {
        let mut text = text.into();
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push_str("...");
        }
        if let Some(last) = self.0.back_mut()
            && last.kind == kind
            && last.text == text
        {
            last.at = at;
            last.times = last.times.saturating_add(1);
            return;
        }
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Moment { at, kind, text, times: 1 });
    }

    /// All that are kept, oldest first.
    #[must_use]
    pub fn moments(&self) -> Vec<Moment> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn the_oldest_moments_go_first() {
        let mut diary = Diary::default();
        for second in 0..100 {
            diary.add(at(second), Kind::Decision, second.to_string());
        }
        let moments = diary.moments();
        assert_eq!(moments.len(), KEPT);
        assert_eq!((moments[0].text.as_str(), moments[KEPT - 1].text.as_str()), ("36", "99"));
    }

    #[test]
    fn what_repeats_is_counted_and_takes_no_room() {
        let mut diary = Diary::default();
        for second in 0..1000 {
            diary.add(at(second), Kind::Error, "no capacity");
        }
        let moments = diary.moments();
        assert_eq!((moments.len(), moments[0].times, moments[0].at), (1, 1000, at(999)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut diary = Diary::default();
        diary.add(at(0), Kind::Error, "ä".repeat(10_000));
        let text = &diary.moments()[0].text;
        assert!(text.len() <= LONGEST + 3 && text.ends_with("ä..."), "{text}");
    }
}
