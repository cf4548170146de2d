//! What owners of claims do.

use super::*;

impl World {
    pub(super) fn reserve(&mut self) {
        self.keys += 1;
        let key = ClaimKey::from(format!("job-{}", self.keys));
        let before = self.last.as_ref().map(|(_, report)| report.clone());
        let outcome = self.both(|core, now| core.reserve(key.clone(), now));
        match outcome {
            Ok(()) => {
                assert!(!self.stopping && self.listed);
                let report = before.expect("a listing came with a decision");
                assert!(report.available > 0 || !report.policy.preemptive, "no slot for a preemptive claim");
                assert!(report.available > 0 || report.potential.is_none_or(|p| p > 0));
                assert!(
                    self.both(|core, now| core.reserve(key.clone(), now)).is_err(),
                    "a key is reserved once"
                );
                self.reserved.push(key);
            }
            Err(NoCapacity::ShuttingDown) => assert!(self.stopping),
            Err(NoCapacity::NotListed) => assert!(!self.listed),
            Err(NoCapacity::HeldElsewhere { .. }) => panic!("there is no other manager"),
            Err(NoCapacity::Lacking { .. }) => panic!("the group can give all that it was made for"),
            Err(NoCapacity::KeyInUse { .. }) => panic!("keys are unique"),
            Err(NoCapacity::NoneReady { .. }) => assert!(before.expect("listed").policy.preemptive),
            Err(NoCapacity::AtMaximum { .. }) => {
                assert!(before.expect("listed").potential.is_some_and(|potential| potential <= 0));
            }
            Err(NoCapacity::Throttled { .. }) => assert!(before.expect("listed").idle > 0),
            Err(NoCapacity::Backoff { .. }) => assert!(before.expect("listed").available <= 0),
        }
    }

    pub(super) fn acquire(&mut self) {
        let Some(key) = self.random.pick(&self.reserved) else { return };
        self.reserved.retain(|other| *other != key);
        match self.both(|core, now| core.acquire(&key, now)).expect("reserved") {
            Acquire::Granted(slot) => {
                assert!(self.pending.is_empty(), "nobody is overtaken");
                self.granted(key, slot);
            }
            Acquire::Pending => self.pending.push_back(key),
        }
    }

    pub(super) fn release(&mut self) {
        let mut keys: Vec<ClaimKey> = self.held.keys().cloned().collect();
        if self.random.chance(30) {
            keys.extend(self.reserved.iter().cloned());
            keys.extend(self.pending.iter().cloned());
        }
        let Some(key) = self.random.pick(&keys) else { return };
        self.release_key(&key);
    }

    pub(super) fn release_key(&mut self, key: &ClaimKey) {
        self.held.remove(key);
        self.reserved.retain(|other| other != key);
        self.pending.retain(|other| other != key);
        self.both(|core, now| core.release(key, now));
        self.both(|core, now| core.release(key, now));
    }

    pub(super) fn granted(&mut self, key: ClaimKey, slot: Slot) {
        assert!(self.open.contains(&slot.instance), "{slot} is not on a ready instance");
        assert!(slot.index < self.config.capacity(), "{slot} does not exist");
        assert!(!self.held.values().any(|held| *held == slot), "{slot} is taken");
        assert_eq!(self.core.doom(&slot.instance), None, "no job begins where the end is announced");
        self.heard.insert(key.clone(), None);
        let machine = self
            .cloud
            .get_mut(&slot.instance)
            .or_else(|| self.dead.get_mut(&slot.instance))
            .expect("instances come from the cloud");
        machine.uses += 1;
        let max = self.config.max_use_count;
        let known = !machine.adopted;
        assert!(max == 0 || machine.uses <= max || !known, "{slot} is used {} times of {max}", machine.uses);
        self.held.insert(key, slot);
    }
}
