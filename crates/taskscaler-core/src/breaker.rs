//! The circuit breaker: after repeated failures no instances are asked for, then one is, to see whether that works again.

use std::time::Duration;

use crate::ids::Mono;

/// Failures in a row, without an instance that became ready between them, that open the circuit. Failures of one batch
/// count once, and a back-off lies between two: at least 15 s pass from the first to the last.
const TRIP: u32 = 5;
/// How long an open circuit stays open at first; doubled each time that the probe fails.
const FIRST: Duration = Duration::from_secs(60);
/// The longest time between two probes.
const LONGEST: Duration = Duration::from_secs(300);

/// Stops launches that only fail, and finds out by itself when they work again.
///
/// Closed: launches are free. Open: none until a moment. Half open, from that moment: one instance at a time, and its end
/// decides. An instance that becomes ready closes the circuit, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    until: Mono,
    /// How often it opened without closing in between.
    times: u32,
    /// An instance was asked for to see whether it works again.
    probing: bool,
}

/// What the breaker allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Circuit {
    /// Everything.
    Closed,
    /// Nothing before this moment.
    Open { until: Mono },
    /// One instance, if none is on its way.
    HalfOpen,
}

// === impl Breaker ===

impl Breaker {
    pub(crate) fn circuit(&self, now: Mono) -> Circuit {
        match self.open {
            None => Circuit::Closed,
            Some(open) if open.until > now => Circuit::Open { until: open.until },
            Some(_) => Circuit::HalfOpen,
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The one instance of a half-open circuit was asked for.
    pub(crate) fn probe(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
    }

    /// Takes in a failure; `counted` is false for one that belongs to a batch that was counted. Returns until when the
    /// circuit is open if this failure opened it, and it was closed before.
    pub(crate) fn fail(&mut self, counted: bool, now: Mono) -> Option<Mono> {
        self.failures = self.failures.saturating_add(u32::from(counted));
        match &mut self.open {
            None if self.failures >= TRIP => {
                let until = now + FIRST;
                self.open = Some(Open { until, times: 1, probing: false });
                Some(until)
            }
            None => None,
            Some(open) => {
                if open.probing || (counted && open.until <= now) {
                    open.until = now + (FIRST * (1 << open.times.min(3))).min(LONGEST);
                    open.times += 1;
                    open.probing = false;
                }
                None
            }
        }
    }

    /// An instance became ready. Returns true if that closed the circuit.
    pub(crate) fn succeed(&mut self) -> bool {
        std::mem::take(self).open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_failure_in_a_row_opens_it_and_says_so_once() {
        let mut breaker = Breaker::default();
        let said: Vec<Option<Mono>> = (0..8).map(|second| breaker.fail(true, at(second))).collect();
        assert_eq!(said.iter().flatten().collect::<Vec<_>>(), [&at(4 + 60)]);
        assert_eq!(breaker.circuit(at(63)), Circuit::Open { until: at(64) });
        assert_eq!(breaker.circuit(at(64)), Circuit::HalfOpen);
    }

    #[test]
    fn an_instance_that_becomes_ready_starts_the_count_anew() {
        let mut breaker = Breaker::default();
        for second in 0..4 {
            breaker.fail(true, at(second));
        }
        assert!(!breaker.succeed());
        assert_eq!(breaker.fail(true, at(5)), None);
        assert_eq!(breaker.circuit(at(5)), Circuit::Closed);
    }

    #[test]
    fn failures_of_one_batch_count_once() {
        let mut breaker = Breaker::default();
        breaker.fail(true, at(0));
        for _ in 0..50 {
            assert_eq!(breaker.fail(false, at(0)), None);
        }
        assert_eq!(breaker.failures(), 1);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_five_minutes() {
        let mut breaker = opened();
        let mut now = at(64);
        let mut waits = Vec::new();
        for _ in 0..5 {
            breaker.probe();
            assert_eq!(breaker.fail(false, now), None, "it is said once");
            let Circuit::Open { until } = breaker.circuit(now) else { panic!("open") };
            waits.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(waits, [120, 240, 300, 300, 300]);
        breaker.probe();
        assert!(breaker.succeed());
        assert_eq!(breaker.circuit(now), Circuit::Closed);
    }

    #[test]
    fn stragglers_that_fail_while_it_is_open_do_not_prolong_it() {
        let mut breaker = opened();
        breaker.fail(true, at(30));
        assert_eq!(breaker.circuit(at(64)), Circuit::HalfOpen);
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for second in 0..5 {
            breaker.fail(true, at(second));
        }
        breaker
    }

    fn at(seconds: u64) -> Mono {
        Mono::from(Duration::from_secs(seconds))
    }
}
