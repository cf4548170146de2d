//! With a cloud that behaves everything settles.

use super::*;

impl World {
    /// With a cloud that behaves, every waiting job gets its slot, and what nobody wants goes.
    pub(super) fn calm_down(mut self) {
        self.calm = true;
        if self.stopping {
            return;
        }
        self.config.policies = vec![Policy { idle_count: 0, ..Policy::default() }];
        self.config.max_instances = self.config.max_instances.max(1);
        let config = self.config.clone();
        self.both(|core, now| core.configure(config.clone(), now));
        for machine in self.cloud.values_mut() {
            machine.doomed = None;
        }
        for key in self.held.keys().cloned().collect::<Vec<_>>() {
            self.release_key(&key);
        }
        for round in 0.. {
            assert!(round < 2_000, "jobs wait for ever: {:?}", self.last);
            self.turn();
            if self.pending.is_empty() && self.held.is_empty() && round > 3 {
                break;
            }
            for key in self.held.keys().cloned().collect::<Vec<_>>() {
                self.release_key(&key);
            }
        }
        for key in std::mem::take(&mut self.reserved) {
            self.release_key(&key);
        }
        for round in 0.. {
            assert!(round < 2_000, "instances stay for ever: {:?} {:?}", self.last, self.cloud);
            self.turn();
            if self.cloud.is_empty() && self.core.ledger().instances.is_empty() {
                break;
            }
        }
        let (plan, report) = self.last.clone().expect("decided");
        assert_eq!(report.inputs.instance_count, 0);
        assert!(!plan.expecting, "nothing is expected of an empty group");
        assert_eq!(self.core.instances(self.now).count(), 0);
    }

    pub(super) fn turn(&mut self) {
        self.settle();
        while !self.launching.is_empty() {
            self.answer_increase();
        }
        while !self.deleting.is_empty() {
            self.answer_decrease();
        }
        while !self.readying.is_empty() {
            self.answer_ready_up();
        }
        while !self.checking.is_empty() {
            self.answer_check();
        }
        self.settle();
        self.pass_time();
        self.listing();
        self.settle();
    }

    pub(super) fn phase(&self, id: &InstanceId) -> Option<PhaseName> {
        self.core.instances(self.now).find(|line| line.id == *id).map(|line| line.phase)
    }

    pub(super) fn both<R: PartialEq + std::fmt::Debug>(&mut self, call: impl Fn(&mut Core, Now) -> R) -> R {
        let result = call(&mut self.core, self.now);
        if let Some(twin) = &mut self.twin {
            assert_eq!(result, call(twin, self.now), "same input, same answer");
        }
        result
    }
}
