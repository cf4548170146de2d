//! The numbers that tell concurrent jobs apart: `CI_CONCURRENT_ID` and `CI_CONCURRENT_PROJECT_ID`, each the lowest one that is
//! free (GitLab Runner's rule). They name build folders, so two running jobs must not share them.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers taken by the running jobs of one runner.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    all: Pool,
    by_project: BTreeMap<u64, Pool>,
}

/// Numbers of one job; to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) id: u32,
    pub(crate) project_id: u32,
    project: u64,
}

/// Lowest-free numbers: those given back are kept sorted, beyond them everything is free.
#[derive(Debug, Default)]
struct Pool {
    free: BTreeSet<u32>,
    next: u32,
    taken: u32,
}

// === impl Numbers ===

impl Numbers {
    pub(crate) fn take(&mut self, project: u64) -> Taken {
        let id = self.all.take();
        let project_id = self.by_project.entry(project).or_default().take();
        Taken { id, project_id, project }
    }

    pub(crate) fn give_back(&mut self, taken: Taken) {
        self.all.give_back(taken.id);
        if let Some(pool) = self.by_project.get_mut(&taken.project) {
            pool.give_back(taken.project_id);
            if pool.taken == 0 {
                self.by_project.remove(&taken.project);
            }
        }
    }
}

// === impl Pool ===

impl Pool {
    fn take(&mut self) -> u32 {
        self.taken += 1;
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, number: u32) {
        self.taken -= 1;
        self.free.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken_for_the_runner_and_for_the_project() {
        let mut numbers = Numbers::default();
        let a = numbers.take(7);
        let b = numbers.take(7);
        let c = numbers.take(8);
        assert_eq!(
            [(a.id, a.project_id), (b.id, b.project_id), (c.id, c.project_id)],
            [(0, 0), (1, 1), (2, 0)]
        );
        numbers.give_back(a);
        let d = numbers.take(8);
        assert_eq!((d.id, d.project_id), (0, 1));
        numbers.give_back(c);
        let e = numbers.take(7);
        assert_eq!((e.id, e.project_id), (2, 0));
    }

    #[test]
    fn nothing_is_kept_for_projects_without_jobs() {
        let mut numbers = Numbers::default();
        for project in 0..100 {
            let taken = numbers.take(project);
            numbers.give_back(taken);
        }
        assert!(numbers.by_project.is_empty());
        assert_eq!(numbers.take(1).id, 0);
    }
}
