//! What the daemon remembers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A machine, as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// Its id.
    pub id: String,
    /// The image that it was made of.
    pub image: String,
    /// The address that was told.
    pub addr: String,
    /// The slot that it has.
    pub slot: Option<i32>,
}

/// How a call ends that does not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The daemon answers that it failed, in these words.
    Fail(String),
    /// The call waits until [`release`](crate::NestingMock::release), and is carried out then.
    Hold,
    /// The connection is cut without an answer.
    Cut,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) initialized: bool,
    pub(crate) machines: BTreeMap<String, MachineView>,
    /// Machines that are being made, or do not run: the hypervisor knows them, and no address of theirs.
    pub(crate) without_address: BTreeSet<String>,
    /// The machine that was made last for each slot, until the daemon itself has removed it.
    pub(crate) slots: BTreeMap<i32, String>,
    pub(crate) made: u32,
    pub(crate) calls: Vec<String>,
    pub(crate) settings: Vec<String>,
    pub(crate) images: Vec<String>,
    pub(crate) faults: BTreeMap<String, VecDeque<Fault>>,
}

// === impl State ===

impl State {
    /// Counts a call and says how it will end.
    pub(crate) fn called(&mut self, method: &str) -> Option<Fault> {
        self.calls.push(method.to_owned());
        self.faults.get_mut(method).and_then(VecDeque::pop_front)
    }

    /// Forgets a machine that was removed; whether there was one.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let known = self.machines.remove(id).is_some() | self.without_address.remove(id);
        if known {
            self.slots.retain(|_, holder| holder != id);
        }
        known
    }

    /// Machines that take up room on the host.
    pub(crate) fn count(&self) -> usize {
        self.machines.len() + self.without_address.len()
    }
}
