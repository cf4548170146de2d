//! What must hold after each step.

use super::*;

impl World {
    pub(super) fn settle(&mut self) {
        self.hear();
        self.marked_idle = 0;
        let (plan, report) = self.decide();
        self.hear();
        self.check_plan(&plan, &report);
        self.check_circuit(&plan, &report);
        if plan.launch > 0 {
            self.launching.push_back(plan.launch);
        }
        if !plan.delete.is_empty() {
            self.deleting.push_back(plan.delete.iter().map(|deletion| deletion.id.clone()).collect());
        }
        self.readying.extend(plan.ready_up.iter().map(|(id, _)| id.clone()));
        self.checking.extend(plan.check.iter().cloned());

        let (again, calm) = self.decide();
        let quiet = Plan { wake_at: again.wake_at, expecting: again.expecting, ..Plan::default() };
        assert_eq!(again, quiet, "deciding twice does nothing more");
        assert!(!calm.why.is_empty());
        let most = calm.inputs.max_instance_count;
        if plan.launch > 0 {
            let all = calm.inputs.instance_count + calm.inputs.deleting;
            assert!(most.is_none_or(|most| all <= most), "{all} instances of {most:?}");
        }
        self.check_counts(&calm);
        self.check_ledger();
        self.last = Some((again, calm));
    }

    pub(super) fn decide(&mut self) -> (Plan, Report) {
        let decided = self.core.decide(self.now);
        if let Some(twin) = &mut self.twin {
            let other = twin.decide(self.now);
            assert_eq!(
                serde_json::to_string(&decided).expect("writes"),
                serde_json::to_string(&other).expect("writes"),
                "same input, same plan"
            );
        }
        decided
    }

    pub(super) fn hear(&mut self) {
        let mut ready = false;
        while let Some(notice) = self.both(|core, _| core.poll_notice()) {
            let error = matches!(
                notice,
                Notice::UnexpectedlyRemoved { .. }
                    | Notice::RequestsLost { .. }
                    | Notice::CircuitOpened { .. }
            );
            assert!(!(self.fair && error), "nothing was done to it: {notice:?}");
            match notice {
                Notice::CircuitOpened { until, failures, .. } => {
                    assert_eq!(self.open_until, None, "it opens once");
                    assert!(
                        failures >= 5 && self.failures > 0,
                        "{failures} in a row, {} faults",
                        self.failures
                    );
                    let pause = (until - self.now.wall).to_std().expect("it is ahead");
                    // People are told the next whole second.
                    self.open_until = Some(self.now.mono + pause.saturating_sub(Duration::from_secs(1)));
                }
                Notice::CircuitClosed => {
                    assert!(self.open_until.take().is_some(), "only what is open closes");
                }
                Notice::Ready { .. } => ready = true,
                Notice::RequestsLost { .. } => self.failures += 1,
                Notice::Marked { id, reason } => {
                    self.failures += u32::from(reason == Reason::CreationTimeout);
                    self.marked_idle += u32::from(reason == Reason::Idle);
                    self.open.remove(&id);
                }
                Notice::UnexpectedlyRemoved { id, .. } => {
                    self.failures += 1;
                    self.open.remove(&id);
                }
                Notice::Deleted { id, .. } => {
                    self.open.remove(&id);
                }
                Notice::Appeared { id, origin, .. } => {
                    let state = self.cloud.get(&id).map(|machine| machine.state);
                    let well = matches!(state, Some(SeenState::Creating | SeenState::Running));
                    self.failures += u32::from(!well);
                    if let Some(machine) = self.cloud.get_mut(&id) {
                        machine.adopted |= origin == Origin::Preexisted && machine.uses > 0;
                    }
                }
                Notice::Announced { id, .. } => {
                    self.open.remove(&id);
                }
                Notice::Running { .. } | Notice::PolicySwitched { .. } => {}
            }
        }
        if ready {
            assert_eq!(self.open_until, None, "an instance that becomes ready closes the circuit");
        }
        while let Some(event) = self.both(|core, _| core.poll_event()) {
            match event {
                Event::Granted { key, slot } => {
                    assert_eq!(self.pending.pop_front().as_ref(), Some(&key), "first come, first served");
                    self.granted(key, slot);
                }
                Event::Doomed { key, doom } => {
                    assert!(self.held.contains_key(&key), "only who runs there hears");
                    self.heard.insert(key, doom);
                }
                Event::Lost { key, slot, .. } => {
                    assert_eq!(self.held.remove(&key), Some(slot), "only what was held is lost");
                }
            }
        }
        for (key, slot) in &self.held {
            let known = self.core.doom(&slot.instance);
            assert_eq!(self.heard[key].as_ref(), known, "{key} knows what is announced for {slot}");
        }
    }

    pub(super) fn check_plan(&self, plan: &Plan, report: &Report) {
        assert!(plan.wake_at.is_none_or(|at| at > self.now.mono), "wakes at once: {plan:?} {report:?}");
        if plan.launch > 0 {
            assert!(i64::from(plan.launch) <= report.wanted.required);
            assert!(!self.stopping);
        }
        for deletion in &plan.delete {
            let busy = self.held.values().any(|slot| slot.instance == deletion.id);
            assert!(!busy, "{} is deleted while busy: {}", deletion.id, deletion.reason);
            assert!(self.cloud.contains_key(&deletion.id) || self.dead.contains_key(&deletion.id));
            assert!(!self.open.contains(&deletion.id), "{} may take jobs", deletion.id);
        }
        assert!(self.marked_idle <= report.wanted.excess, "{} removed: {report:?}", self.marked_idle);
    }

    /// What the circuit breaker promises, and that nothing is held up without a fault.
    pub(super) fn check_circuit(&self, plan: &Plan, report: &Report) {
        let says = |of: fn(&Why) -> bool| report.why.iter().any(of);
        let held_up = says(|why| matches!(why, Why::CircuitOpen { .. } | Why::BackoffUntil { .. }));
        let probing = says(|why| matches!(why, Why::Probing { .. }));
        let failing = says(|why| matches!(why, Why::DeletionFailing { .. } | Why::RemovedByOthers { .. }));
        assert!(!(self.fair && (held_up || probing || failing)), "nothing was done to it: {:?}", report.why);
        assert!(!held_up || plan.launch == 0, "launches against {:?}", report.why);
        let Some(until) = self.open_until else {
            assert!(!probing && !says(|why| matches!(why, Why::CircuitOpen { .. })), "the circuit is closed");
            return;
        };
        if plan.launch > 0 {
            let counts = &report.counts;
            let coming = counts.requested + counts.restoring + counts.creating + counts.booting;
            assert_eq!((plan.launch, coming), (1, 0), "one instance is tried at a time: {report:?}");
            assert!(self.now.mono >= until && probing, "tried too early, {:?} of {until:?}", self.now);
        }
    }

    pub(super) fn check_counts(&self, report: &Report) {
        assert_eq!(report.inputs.acquired as usize, self.held.len());
        assert_eq!(report.inputs.pending as usize, self.pending.len());
        assert_eq!(report.inputs.reserved as usize, self.reserved.len());
        let mut by_phase: BTreeMap<PhaseName, u32> = BTreeMap::new();
        let mut used = 0;
        for line in self.core.instances(self.now) {
            *by_phase.entry(line.phase).or_default() += 1;
            used += line.slots_used;
            let leaving =
                matches!(line.phase, PhaseName::Deleting | PhaseName::Creating | PhaseName::Booting);
            assert!(!leaving || line.slots_used == 0, "{line} has jobs");
            if self.config.max_use_count > 0 {
                assert!(line.use_count <= self.config.max_use_count);
            }
            if let Some(machine) = self.cloud.get(&line.id)
                && !machine.adopted
            {
                assert_eq!(line.use_count, machine.uses, "{line}");
            }
        }
        let count = |phase| by_phase.get(&phase).copied().unwrap_or(0);
        assert_eq!(used, report.inputs.acquired);
        assert_eq!(report.counts.restoring, count(PhaseName::Restoring));
        assert_eq!(report.counts.creating, count(PhaseName::Creating));
        assert_eq!(report.counts.booting, count(PhaseName::Booting));
        assert_eq!(report.counts.ready, count(PhaseName::Ready));
        assert_eq!(report.counts.suspect, count(PhaseName::Suspect));
        assert_eq!(report.counts.draining, count(PhaseName::Draining));
        assert_eq!(report.counts.deleting, count(PhaseName::Deleting));
    }

    pub(super) fn check_ledger(&mut self) {
        let changed = self.core.ledger_changed();
        let changes = self.core.take_ledger_changes();
        assert_eq!(changed, !changes.is_empty());
        if changed {
            self.journal.push(serde_json::to_vec(&changes).expect("writes"));
        }
        self.stored.apply(changes);
        assert_eq!(self.stored, self.core.ledger(), "the changes make up the ledger");
        assert!(!self.core.ledger_changed());
    }
}
