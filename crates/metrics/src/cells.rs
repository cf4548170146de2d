//! The numbers themselves. Counting is an atomic addition; only the first row with new label values takes a lock to write.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Most rows of a family whose labels come from outside; further label values share one row.
const MOST_ROWS: usize = 200;

/// Only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// A whole number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

/// Time, added up.
#[derive(Debug, Default)]
pub(crate) struct Seconds(AtomicU64);

/// Durations by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound and one for what is beyond, not cumulative.
    buckets: Box<[AtomicU64]>,
    sum: Seconds,
}

/// Rows that differ in label values.
#[derive(Debug)]
pub(crate) struct Family<K, T> {
    rows: RwLock<BTreeMap<K, Arc<T>>>,
}

// === impl Counter ===

impl Counter {
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Gauge ===

impl Gauge {
    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Seconds ===

impl Seconds {
    pub(crate) fn add(&self, by: Duration) {
        // 584 thousand years fit.
        self.0.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "microseconds of 285 years are exact")]
    pub(crate) fn get(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e6
    }
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: Seconds::default(),
        }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.add(duration);
    }

    /// Each bound with the number of observations up to it; the last one is infinity and counts all.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut count = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.buckets).map(move |(bound, bucket)| {
            count += bucket.load(Ordering::Relaxed);
            (bound, count)
        })
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum.get()
    }
}

// === impl Family ===

impl<K, T> Default for Family<K, T> {
    fn default() -> Self {
        Self { rows: RwLock::new(BTreeMap::new()) }
    }
}

impl<K: Ord + Clone, T> Family<K, T> {
    /// The row of these label values, made if need be. When there are too many, `rest` names the row that they share.
    pub(crate) fn row<Q>(&self, key: &Q, rest: &Q, make: impl FnOnce() -> T) -> Arc<T>
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(row) = self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(row);
        }
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let key = if rows.len() < MOST_ROWS { key } else { rest };
        Arc::clone(rows.entry(key.to_owned()).or_insert_with(|| Arc::new(make())))
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&K, &T)) {
        for (key, row) in &*self.rows.read().unwrap_or_else(PoisonError::into_inner) {
            visit(key, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_on_a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[1.0, 5.0]);
        for seconds in [0, 1, 2, 5, 6] {
            histogram.observe(Duration::from_secs(seconds));
        }
        let counts: Vec<_> = histogram.cumulative().collect();
        assert_eq!(counts, [(1.0, 2), (5.0, 4), (f64::INFINITY, 5)]);
        assert!((histogram.sum() - 14.0).abs() < 1e-9);
    }

    #[test]
    fn a_family_stops_growing() {
        let family = Family::<String, Counter>::default();
        for number in 0..2 * MOST_ROWS {
            family.row(number.to_string().as_str(), "other", Counter::default).inc();
        }
        let (mut rows, mut other) = (0, 0);
        family.for_each(|key, counter| {
            rows += 1;
            if key == "other" {
                other = counter.get();
            }
        });
        assert_eq!(rows, MOST_ROWS + 1);
        assert_eq!(other, MOST_ROWS as u64);
    }
}
