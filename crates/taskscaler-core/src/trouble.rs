//! Troubles that no single event shows: instances that somebody else removes, and instances made for nobody.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{InstanceId, Mono};

/// How far back is looked.
pub(crate) const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Foreign removals within the window that are more than bad luck.
const TAKEN: usize = 3;
/// Instances that went without having run a job, within the window, that are more than a change of mind.
const WASTED: usize = 5;
/// Most events that are remembered.
const MOST: usize = 1_024;

/// What happened lately, as far as it is bad.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles {
    taken: VecDeque<(Mono, InstanceId)>,
    wasted: VecDeque<Mono>,
    jobs: VecDeque<Mono>,
}

// === impl Troubles ===

impl Troubles {
    /// A usable instance went without the scaler's doing.
    pub(crate) fn taken(&mut self, id: InstanceId, now: Mono) {
        push(&mut self.taken, (now, id));
    }

    /// An instance that this scaler asked for went without having run a job.
    pub(crate) fn wasted(&mut self, now: Mono) {
        push(&mut self.wasted, now);
    }

    /// A job got a slot.
    pub(crate) fn job(&mut self, now: Mono) {
        push(&mut self.jobs, now);
    }

    /// Forgets what is older than the window.
    pub(crate) fn expire(&mut self, now: Mono) {
        let old = |at: Mono| now.since(at) >= WINDOW;
        while self.taken.front().is_some_and(|(at, _)| old(*at)) {
            self.taken.pop_front();
        }
        while self.wasted.front().is_some_and(|at| old(*at)) {
            self.wasted.pop_front();
        }
        while self.jobs.front().is_some_and(|at| old(*at)) {
            self.jobs.pop_front();
        }
    }

    /// How many instances somebody else removed, and the last of them, if that is a pattern.
    pub(crate) fn taken_away(&self) -> Option<(usize, &InstanceId)> {
        let (_, last) = self.taken.back()?;
        (self.taken.len() >= TAKEN).then_some((self.taken.len(), last))
    }

    /// How many instances ran no job, and how many jobs ran, if instances are made and removed for nothing.
    pub(crate) fn churn(&self) -> Option<(usize, usize)> {
        let (wasted, jobs) = (self.wasted.len(), self.jobs.len());
        (wasted >= WASTED && wasted > jobs).then_some((wasted, jobs))
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= MOST {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_foreign_removal_is_a_pattern_until_the_window_has_passed() {
        let mut troubles = Troubles::default();
        troubles.taken("i-1".into(), at(0));
        troubles.taken("i-2".into(), at(60));
        assert_eq!(troubles.taken_away(), None);
        troubles.taken("i-3".into(), at(120));
        assert_eq!(troubles.taken_away(), Some((3, &"i-3".into())));
        troubles.expire(at(900));
        assert_eq!(troubles.taken_away(), None);
    }

    #[test]
    fn instances_without_jobs_are_churn_unless_there_were_as_many_jobs() {
        let mut troubles = Troubles::default();
        for second in 0..5 {
            assert_eq!(troubles.churn(), None);
            troubles.wasted(at(second));
        }
        troubles.job(at(5));
        assert_eq!(troubles.churn(), Some((5, 1)));
        for second in 6..10 {
            troubles.job(at(second));
        }
        assert_eq!(troubles.churn(), None);
    }

    fn at(seconds: u64) -> Mono {
        Mono::from(Duration::from_secs(seconds))
    }
}
