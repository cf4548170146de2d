//! What is secret in a job: known when it starts, and announced while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use job::log::CompiledMasks;

use crate::log::Lane;

/// Most words that a job may announce. Each makes a new search table.
const MOST: usize = 1000;
/// Most bytes in them.
const MOST_BYTES: usize = 1024 * 1024;

/// The secrets of one log.
pub(crate) struct Secrets {
    held: Mutex<Held>,
    /// How often words were announced: streams look here whether they know all.
    generation: AtomicU64,
}

struct Held {
    masks: CompiledMasks,
    /// Announced, and not yet in `masks`: several that come together make one table.
    new: Vec<String>,
    words: usize,
    bytes: usize,
    warned: bool,
}

// === impl Secrets ===

impl Secrets {
    pub(crate) fn new(masks: CompiledMasks) -> Self {
        let held = Held { masks, new: Vec::new(), words: 0, bytes: 0, warned: false };
        Self { held: Mutex::new(held), generation: AtomicU64::new(0) }
    }

    /// Everything that is known, and which generation that is.
    pub(crate) fn all(&self) -> (CompiledMasks, u64) {
        let mut held = self.held();
        held.compile();
        (held.masks.clone(), self.generation.load(Ordering::Acquire))
    }

    /// Has a stream search for what was announced since it was told last.
    pub(crate) fn tell(&self, lane: &mut Lane) {
        if lane.knows == self.generation.load(Ordering::Acquire) {
            return;
        }
        let (masks, generation) = self.all();
        lane.stream.adopt(&masks);
        lane.knows = generation;
    }

    /// One more word.
    ///
    /// # Errors
    /// The words for the job's log when there are too many; once.
    pub(crate) fn announce(&self, word: String) -> Result<(), String> {
        let mut held = self.held();
        if held.words >= MOST || held.bytes + word.len() > MOST_BYTES {
            return match std::mem::replace(&mut held.warned, true) {
                true => Ok(()),
                false => Err(format!(
                    "the job announces more than {MOST} words by ::add-mask::, or more than 1 MiB; the ones from here on are not masked"
                )),
            };
        }
        held.words += 1;
        held.bytes += word.len();
        held.new.push(word);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn compile(&mut self) {
        if !self.new.is_empty() {
            self.masks = self.masks.with_phrases(self.new.iter().map(String::as_str));
            self.new.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use job::log::MaskRules;

    use super::*;

    #[test]
    fn a_job_that_announces_without_end_is_told_once() {
        let secrets = Secrets::new(CompiledMasks::new(&MaskRules::default()));
        let warnings =
            (0..2 * MOST).filter(|number| secrets.announce(format!("word{number}")).is_err()).count();
        assert_eq!(warnings, 1);
    }
}
