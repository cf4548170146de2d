//! A job whose instance could not be used goes back to waiting, and the instance goes.

use crate::core::Core;
use crate::ids::{ClaimKey, InstanceId, Now};
use crate::instance::Reason;

impl Core {
    /// Takes the slot away from a claim, or finds the claim gone with its instance, and makes it a reservation again. It is
    /// not asked whether there is room: the job was admitted once, and turning it away now would lose it.
    pub fn requeue(&mut self, key: &ClaimKey, now: Now) {
        self.release(key, now);
        self.claims.reserve(key.clone(), now.tick());
    }

    /// An instance proved unusable for a job that tried as long as it was allowed to. It takes no other job and goes when
    /// its last one ends, whatever its health checks say: the same job must not meet it again.
    pub fn condemn(&mut self, id: &InstanceId, why: String, now: Now) {
        if let Some(seq) = self.fleet.seq(id) {
            self.drain(seq, Reason::Unhealthy { why }, now);
        }
    }
}
