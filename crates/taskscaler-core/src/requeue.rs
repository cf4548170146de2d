//! A job whose instance could not be used goes back to waiting.

use crate::core::Core;
use crate::ids::{ClaimKey, Now};

impl Core {
    /// Takes the slot away from a claim, or finds the claim gone with its instance, and makes it a reservation again. It is
    /// not asked whether there is room: the job was admitted once, and turning it away now would lose it.
    pub fn requeue(&mut self, key: &ClaimKey, now: Now) {
        self.release(key, now);
        self.claims.reserve(key.clone(), now.tick());
    }
}
