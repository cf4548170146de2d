//! The group's desired capacity, which others may change at the same time.
//!
//! AWS can only be told an absolute number, and its listings may lag behind what it was told. So every change starts
//! from a number that was just read, except where that number is one which this process has itself replaced a moment ago.

use std::time::{Duration, Instant};

/// How long a listing may show what was before a change.
const SETTLING: Duration = Duration::from_secs(20);

/// What is known of the desired capacity.
#[derive(Debug, Default)]
pub(crate) struct Size {
    last: Option<Written>,
    /// A change is or was under way whose outcome is not known.
    unsure: bool,
    /// How often somebody else has changed it.
    pub(crate) drifts: u64,
}

#[derive(Debug)]
struct Written {
    value: u32,
    at: Instant,
    /// What it was before, newest last: a listing that shows one of these lags behind.
    earlier: Vec<u32>,
}

/// A number that was read, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// From where changes start.
    pub(crate) base: u32,
    /// What was expected, if somebody else has changed it.
    pub(crate) drifted_from: Option<u32>,
}

// === impl Size ===

impl Size {
    /// Takes in a number that AWS has just told.
    pub(crate) fn read(&mut self, desired: u32, now: Instant) -> Reading {
        let Some(last) = self.last.as_mut().filter(|_| !self.unsure) else {
            self.unsure = false;
            self.last = Some(Written { value: desired, at: now, earlier: Vec::new() });
            return Reading { base: desired, drifted_from: None };
        };
        if now.duration_since(last.at) > SETTLING {
            last.earlier.clear();
        }
        if desired == last.value {
            return Reading { base: desired, drifted_from: None };
        }
        if last.earlier.contains(&desired) {
            return Reading { base: last.value, drifted_from: None };
        }
        let expected = last.value;
        self.drifts += 1;
        self.last = Some(Written { value: desired, at: now, earlier: Vec::new() });
        Reading { base: desired, drifted_from: Some(expected) }
    }

    /// The number was changed by this process.
    pub(crate) fn wrote(&mut self, value: u32, now: Instant) {
        let mut earlier = match self.last.take() {
            Some(mut last) => {
                if now.duration_since(last.at) > SETTLING {
                    last.earlier.clear();
                }
                last.earlier.push(last.value);
                last.earlier
            }
            None => Vec::new(),
        };
        earlier.retain(|before| *before != value);
        self.unsure = false;
        self.last = Some(Written { value, at: now, earlier });
    }

    /// A change begins whose outcome may never be known: unless [`wrote`](Self::wrote) follows, what is read next counts.
    pub(crate) fn uncertain(&mut self) {
        self.unsure = true;
    }

    /// Members were ended together with their share of the number.
    pub(crate) fn lowered_by_one(&mut self, now: Instant) {
        if let Some(value) = self.last.as_ref().map(|last| last.value.saturating_sub(1)) {
            self.wrote(value, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_lags_behind_does_not_undo_a_change() {
        let (mut size, now) = (Size::default(), Instant::now());
        assert_eq!(size.read(0, now).base, 0);
        size.wrote(2, now);
        size.wrote(3, now);
        assert_eq!(size.read(0, now), Reading { base: 3, drifted_from: None });
        assert_eq!(size.read(2, now), Reading { base: 3, drifted_from: None });
        assert_eq!(size.read(3, now), Reading { base: 3, drifted_from: None });
    }

    #[test]
    fn what_somebody_else_set_is_what_changes_start_from() {
        let (mut size, now) = (Size::default(), Instant::now());
        size.read(0, now);
        size.wrote(2, now);
        assert_eq!(size.read(7, now), Reading { base: 7, drifted_from: Some(2) });
        assert_eq!(size.read(7, now), Reading { base: 7, drifted_from: None });
        assert_eq!(size.drifts, 1);
    }

    #[test]
    fn after_a_while_an_old_number_is_a_change_from_outside() {
        let (mut size, now) = (Size::default(), Instant::now());
        size.read(0, now);
        size.wrote(2, now);
        let later = now + SETTLING + Duration::from_secs(1);
        assert_eq!(size.read(0, later), Reading { base: 0, drifted_from: Some(2) });
    }

    #[test]
    fn ended_members_lower_it() {
        let (mut size, now) = (Size::default(), Instant::now());
        size.read(3, now);
        size.lowered_by_one(now);
        size.lowered_by_one(now);
        assert_eq!(size.read(3, now).base, 1);
        assert_eq!(size.read(1, now), Reading { base: 1, drifted_from: None });
    }

    #[test]
    fn after_a_change_of_unknown_outcome_the_next_number_counts() {
        let (mut size, now) = (Size::default(), Instant::now());
        size.read(1, now);
        size.uncertain();
        assert_eq!(size.read(4, now), Reading { base: 4, drifted_from: None });
        assert_eq!(size.drifts, 0);
    }
}
