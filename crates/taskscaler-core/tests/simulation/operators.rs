//! What operators do, and restarts.

use super::*;

impl World {
    pub(super) fn configure(&mut self) {
        let new = random_config(&mut self.random);
        // The use count of an instance stays below the limit that applied to it, so keep that limit here.
        self.config.policies = new.policies;
        self.config.max_instances = new.max_instances;
        self.config.scale_throttle = new.scale_throttle;
        self.config.reservation_throttling = new.reservation_throttling;
        if self.random.chance(30) {
            self.config.capacity_per_instance = new.capacity_per_instance;
        }
        let config = self.config.clone();
        self.both(|core, now| core.configure(config.clone(), now));
    }

    pub(super) fn restart(&mut self) {
        self.now.mono = Duration::from_secs(self.random.below(1_000));
        let down = Duration::from_secs(self.random.below(if self.fair { 60 } else { 600 }));
        self.sleep(down);
        if self.fair || self.random.chance(50) {
            // Calls that were under way when the manager died.
            self.calls_complete_unheard();
        }
        self.launching.clear();
        self.deleting.clear();
        self.readying.clear();
        self.checking.clear();
        self.reserved.clear();
        self.pending.clear();
        self.held.clear();
        self.open.clear();
        self.listings.clear();
        self.listed = false;
        self.stopping = false;
        if self.random.chance(10) {
            self.config.restores_state = !self.config.restores_state;
        }
        let mut ledger = Ledger::default();
        for record in self.journal.drain(..) {
            ledger.apply(serde_json::from_slice(&record).expect("reads what it wrote"));
        }
        assert_eq!(ledger, self.stored, "the journal makes up the ledger");
        self.open_until = None;
        self.core = Core::new(self.config.clone(), ledger.clone(), self.now);
        if self.twin.is_some() {
            self.twin = Some(Core::new(self.config.clone(), ledger, self.now));
        }
        // A store that is told to forget starts empty.
        self.stored = self.core.ledger();
        let all = LedgerChanges {
            upserts: self.stored.instances.clone().into_iter().collect(),
            requests: Some(self.stored.requests.clone()),
            ..LedgerChanges::default()
        };
        self.journal.push(serde_json::to_vec(&all).expect("writes"));
    }

    pub(super) fn calls_complete_unheard(&mut self) {
        for asked in std::mem::take(&mut self.launching) {
            (0..asked).for_each(|_| self.make_machine(SeenState::Creating));
        }
        for id in std::mem::take(&mut self.deleting).into_iter().flatten() {
            self.set(&id, SeenState::Deleting);
        }
    }
}
