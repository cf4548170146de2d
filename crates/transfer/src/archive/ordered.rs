//! Work that is done in parallel and handed on in order, with a bound on what is held.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The state of one run.
struct Line<I, R> {
    items: I,
    /// Nothing is left to hand out: the items are used up, or the run was stopped.
    closed: bool,
    /// How many results have been handed on; the number of the first slot.
    handed_on: usize,
    /// Results, and the places of those that are being made.
    slots: VecDeque<Option<R>>,
}

struct Shared<I, R> {
    line: Mutex<Line<I, R>>,
    /// There is room for one more result.
    room: Condvar,
    /// The first slot has been filled, or nothing will come any more.
    ready: Condvar,
}

/// Does `work` on every item, on so many threads, and gives the results to `sink` in the order of the items. At most `window`
/// results exist at a time. Each thread has a worker of its own, so workers may keep buffers. The first error of the sink ends the
/// run and is returned.
pub(crate) fn in_order<T, R, E, W>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    window: usize,
    worker: impl Fn() -> W + Sync,
    mut sink: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    R: Send,
    W: FnMut(T) -> R,
{
    let line = Line { items, closed: false, handed_on: 0, slots: VecDeque::with_capacity(window) };
    let shared = Shared { line: Mutex::new(line), room: Condvar::new(), ready: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                // A worker that panics must not leave the others waiting for its result.
                let _stop = StopOnPanic(&shared);
                let mut work = worker();
                while let Some((number, item)) = shared.take(window.max(1)) {
                    shared.put(number, work(item));
                }
            });
        }
        let _stop = StopOnPanic(&shared);
        while let Some(result) = shared.next() {
            if let Err(error) = sink(result) {
                shared.stop();
                return Err(error);
            }
        }
        Ok(())
    })
}

/// How many threads archive work gets: one per processor, within reason.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(1, 16)
}

struct StopOnPanic<'a, I: Iterator, R>(&'a Shared<I, R>);

// === impl StopOnPanic ===

impl<I: Iterator, R> Drop for StopOnPanic<'_, I, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

// === impl Shared ===

impl<I: Iterator, R> Shared<I, R> {
    fn lock(&self) -> MutexGuard<'_, Line<I, R>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item with its number, once there is room for its result.
    fn take(&self, window: usize) -> Option<(usize, I::Item)> {
        let mut line = self.lock();
        while !line.closed && line.slots.len() >= window {
            line = self.room.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        if line.closed {
            return None;
        }
        let Some(item) = line.items.next() else {
            line.closed = true;
            self.room.notify_all();
            self.ready.notify_all();
            return None;
        };
        let number = line.handed_on + line.slots.len();
        line.slots.push_back(None);
        Some((number, item))
    }

    fn put(&self, number: usize, result: R) {
        let mut line = self.lock();
        let Some(place) = number.checked_sub(line.handed_on) else { return };
        if let Some(slot) = line.slots.get_mut(place) {
            *slot = Some(result);
        }
        if place == 0 {
            self.ready.notify_all();
        }
    }

    /// The next result in order; `None` when there are no more.
    fn next(&self) -> Option<R> {
        let mut line = self.lock();
        loop {
            if let Some(result) = line.slots.front_mut().and_then(Option::take) {
                line.slots.pop_front();
                line.handed_on += 1;
                self.room.notify_one();
                return Some(result);
            }
            if line.closed && line.slots.is_empty() {
                return None;
            }
            line = self.ready.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        let mut line = self.lock();
        line.closed = true;
        line.slots.clear();
        self.room.notify_all();
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let mut seen = Vec::new();
        let outcome: Result<(), ()> = in_order(
            0..500_u64,
            4,
            8,
            || {
                |item: u64| {
                    // Early items take longer, so that later ones overtake them.
                    std::thread::sleep(Duration::from_micros(item % 7 * 20));
                    item * 2
                }
            },
            |result| {
                seen.push(result);
                Ok(())
            },
        );
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen, (0..500).map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn never_more_results_than_the_window() {
        let alive = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let outcome: Result<(), ()> = in_order(
            0..200,
            4,
            5,
            || {
                |_: i32| {
                    most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                }
            },
            |()| {
                alive.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
        );
        assert_eq!(outcome, Ok(()));
        // The result in the hands of the sink is not in the window any more.
        assert!(most.load(Ordering::SeqCst) <= 6, "{most:?}");
    }

    #[test]
    fn an_error_of_the_sink_ends_the_work() {
        let done = AtomicUsize::new(0);
        let outcome = in_order(
            0..1_000_000,
            2,
            4,
            || |item: i32| (item, done.fetch_add(1, Ordering::SeqCst)),
            |(item, _)| if item == 10 { Err("full") } else { Ok(()) },
        );
        assert_eq!(outcome, Err("full"));
        assert!(done.load(Ordering::SeqCst) < 100);
    }
}
