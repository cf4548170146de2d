//! What the cloud says.

use super::*;

impl World {
    pub(super) fn listing(&mut self) {
        let fresh: Vec<Seen> = self
            .cloud
            .iter()
            .map(|(id, machine)| Seen {
                id: id.clone(),
                state: machine.state,
                doomed: machine.doomed.clone(),
            })
            .collect();
        self.listings.push_front((self.now.mono, fresh));
        self.listings.truncate(4);
        // Clouds lag by minutes, not by hours.
        self.listings.retain(|(at, _)| *at + Duration::from_secs(600) > self.now.mono);
        let stale = if self.calm || self.random.chance(80) { 0 } else { self.random.below(4) as usize };
        let (_, listing) = self.listings.get(stale).or(self.listings.front()).cloned().unwrap_or_default();
        self.both(|core, now| core.observe(&listing, now));
        self.listed = true;
    }

    pub(super) fn answer_increase(&mut self) {
        let Some(asked) = self.launching.pop_front() else { return };
        let granted = if self.calm || self.random.chance(70) {
            asked
        } else {
            self.random.below(u64::from(asked) + 1) as u32
        };
        for _ in 0..granted {
            self.make_machine(SeenState::Creating);
        }
        let failure = (granted < asked).then(|| Failure {
            kind: FailureKind::NoCapacity,
            message: "out of machines".to_owned(),
            retry_after: self.random.chance(20).then(|| Duration::from_secs(90)),
        });
        self.failures += u32::from(failure.is_some());
        self.both(|core, now| core.increased(asked, granted, failure.clone(), now));
    }

    pub(super) fn answer_decrease(&mut self) {
        let Some(asked) = self.deleting.pop_front() else { return };
        let mut accepted = asked.clone();
        if !self.calm && self.random.chance(25) {
            accepted.truncate(self.random.below(accepted.len() as u64) as usize);
        }
        for id in &accepted {
            if let Some(machine) = self.cloud.get_mut(id)
                && (self.calm || self.random.chance(90))
            {
                machine.state = SeenState::Deleting;
            }
        }
        let failure =
            (accepted.len() < asked.len()).then(|| Failure::new(FailureKind::Transient, "try again"));
        self.both(|core, now| core.decreased(&asked, &accepted, failure.clone(), now));
    }

    pub(super) fn answer_ready_up(&mut self) {
        let Some(id) = self.random.pick(&self.readying) else { return };
        self.readying.retain(|other| *other != id);
        let outcome =
            if self.calm || self.random.chance(85) { Ok(()) } else { Err("exit status 1".to_owned()) };
        if outcome.is_ok() && self.phase(&id) == Some(PhaseName::Booting) {
            self.open.insert(id.clone());
        }
        self.failures += u32::from(outcome.is_err());
        self.both(|core, now| core.readied(&id, outcome.clone(), now));
    }

    pub(super) fn answer_check(&mut self) {
        let Some(id) = self.random.pick(&self.checking) else { return };
        self.checking.retain(|other| *other != id);
        let health = match self.random.below(10) {
            _ if self.calm => Health::Healthy,
            0..5 => Health::Healthy,
            5..8 => Health::Unhealthy("status check failed".to_owned()),
            _ => Health::Unknown("timeout".to_owned()),
        };
        let phase = self.phase(&id);
        match (&health, phase) {
            (Health::Healthy, Some(PhaseName::Suspect)) => {
                self.open.insert(id.clone());
            }
            (Health::Unhealthy(_), _) => {
                self.open.remove(&id);
            }
            _ => {}
        }
        self.both(|core, now| core.health(&id, health.clone(), now));
    }

    pub(super) fn complain(&mut self) {
        let busy: Vec<InstanceId> = self.held.values().map(|slot| slot.instance.clone()).collect();
        let Some(id) = self.random.pick(&busy) else { return };
        self.open.remove(&id);
        self.both(|core, now| core.suspect(&id, "dial timeout".to_owned(), now));
    }

    pub(super) fn cloud_acts(&mut self) {
        let ids: Vec<InstanceId> = self.cloud.keys().cloned().collect();
        let id = self.random.pick(&ids);
        self.failures += 1;
        match (self.random.below(6), id) {
            (0, Some(id)) => self.kill(&id),
            (1, Some(id)) => self.set(&id, SeenState::Deleting),
            (2, Some(id)) => {
                if let Some(machine) = self.cloud.get_mut(&id) {
                    machine.doomed = Some(Doom::new(DoomKind::Interruption, "spot notice"));
                }
            }
            (3, Some(id)) if self.cloud[&id].state == SeenState::Creating => {
                self.set(&id, SeenState::Timeout);
            }
            (4, _) => self.make_machine(SeenState::Running),
            (5, Some(id)) => {
                let taken = Doom::new(DoomKind::Interruption, "terminate");
                let taken = taken.at(self.now.wall + TimeDelta::seconds(120));
                let told = self.random.chance(70).then_some(taken);
                self.both(|core, now| core.told(&id, told.as_ref(), now));
                if told.is_some() {
                    self.open.remove(&id);
                }
            }
            _ => {}
        }
    }

    pub(super) fn set(&mut self, id: &InstanceId, state: SeenState) {
        if let Some(machine) = self.cloud.get_mut(id) {
            machine.state = state;
        }
    }

    pub(super) fn kill(&mut self, id: &InstanceId) {
        if let Some(machine) = self.cloud.remove(id) {
            self.dead.insert(id.clone(), machine);
        }
    }

    pub(super) fn make_machine(&mut self, state: SeenState) {
        self.made += 1;
        // Names in no particular order.
        let id = InstanceId::from(format!("i-{:03}-{}", (self.made * 7919) % 1000, self.made));
        self.cloud.insert(id, Machine { state, doomed: None, uses: 0, adopted: false });
    }

    pub(super) fn pass_time(&mut self) {
        let wake = self.last.as_ref().and_then(|(plan, _)| plan.wake_at);
        let step = match (self.random.below(6), wake) {
            (0, _) => Duration::from_millis(self.random.below(2_000)),
            (1, _) => Duration::from_secs(self.random.below(120)),
            (2, _) => Duration::from_secs(self.random.below(3_600)),
            (_, Some(wake)) => wake.saturating_sub(self.now.mono),
            (_, None) => Duration::from_secs(30),
        };
        // What is looked at once an hour looks late.
        self.sleep(if self.fair { step.min(Duration::from_secs(60)) } else { step });
        if !self.calm && self.random.chance(3) {
            // Somebody sets the clock.
            self.now.wall += TimeDelta::seconds(self.random.below(7_200) as i64 - 3_600);
        }
        let ids: Vec<InstanceId> = self.cloud.keys().cloned().collect();
        for id in ids {
            let progress = self.calm || self.random.chance(70);
            match self.cloud[&id].state {
                SeenState::Creating if progress => self.set(&id, SeenState::Running),
                SeenState::Deleting | SeenState::Timeout if progress => self.kill(&id),
                SeenState::Creating
                | SeenState::Running
                | SeenState::Deleting
                | SeenState::Deleted
                | SeenState::Timeout => {}
            }
        }
    }

    pub(super) fn sleep(&mut self, step: Duration) {
        self.now.mono += step;
        self.now.wall += TimeDelta::from_std(step).expect("hours");
    }
}
