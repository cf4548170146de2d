//! Steps that use the network: mirrors and registries fail now and then, so a step that failed is tried again, a few times.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::steps::say;

/// Before each further try, in seconds.
const PAUSES: [u64; 3] = [5, 20, 60];

/// Runs a step until it succeeds, or has failed too often. `what` says what is being done, for people.
pub(crate) fn patiently(what: &str, step: impl FnMut() -> Result<()>) -> Result<()> {
    with_pauses(what, &PAUSES.map(Duration::from_secs), step)
}

fn with_pauses(what: &str, pauses: &[Duration], mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let tries = pauses.len() + 1;
    for (number, pause) in pauses.iter().enumerate() {
        match step() {
            Ok(()) => return Ok(()),
            Err(error) => say(&format!(
                "{what}: try {} of {tries} failed: {error:#}; the next one is in {} seconds",
                number + 1,
                pause.as_secs()
            )),
        }
        sleep(*pause);
    }
    step().with_context(|| format!("{what}: failed {tries} times, is the network there?"))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_step_is_tried_until_it_succeeds_and_not_for_ever() {
        let mut count = 0;
        let mut fails = |times: u32| {
            count = 0;
            let done = with_pauses("a step", &[Duration::ZERO; 2], || {
                count += 1;
                if count <= times { Err(anyhow!("broken")) } else { Ok(()) }
            });
            (done.map_err(|error| format!("{error:#}")), count)
        };
        assert_eq!(fails(0), (Ok(()), 1));
        assert_eq!(fails(2), (Ok(()), 3));
        let (done, tries) = fails(9);
        assert_eq!(
            (done.unwrap_err().as_str(), tries),
            ("a step: failed 3 times, is the network there?: broken", 3)
        );
    }
}
