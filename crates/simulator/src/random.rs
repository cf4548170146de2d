//! Chance, drawn from a seed that is an input.

use std::time::Duration;

/// Steele, Lea and Flood's SplitMix64: the same numbers from the same seed in every version of this program, which the
/// generators of libraries do not promise.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

// === impl Random ===

impl Random {
    #[cfg(test)]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for one purpose, so that more draws for one thing do not change another.
    pub(crate) fn stream(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// Normally distributed, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Exponentially distributed with this mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Lognormally distributed around a median, in whole milliseconds.
    pub(crate) fn lognormal(&mut self, median: Duration, sigma: f64) -> Duration {
        seconds(median.as_secs_f64() * (sigma * self.normal()).exp())
    }
}

/// A span of seconds in whole milliseconds; what is no span is none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is cut to a year")]
pub(crate) fn seconds(seconds: f64) -> Duration {
    const YEAR: f64 = 366.0 * 86_400.0;
    if seconds.is_nan() {
        return Duration::ZERO;
    }
    Duration::from_millis((seconds.clamp(0.0, YEAR) * 1e3).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_are_fixed_for_all_time() {
        let mut random = Random::new(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf, "the first number of the published generator");
        assert_ne!(Random::stream(1, 1).next(), Random::stream(1, 2).next());
    }

    #[test]
    fn draws_have_the_means_of_their_distributions() {
        let mut random = Random::new(7);
        let n = 20_000;
        let mean = (0..n).map(|_| random.exponential(5.0)).sum::<f64>() / f64::from(n);
        assert!((mean - 5.0).abs() < 0.2, "{mean}");
        let mut spans: Vec<Duration> =
            (0..n).map(|_| random.lognormal(Duration::from_secs(40), 0.5)).collect();
        spans.sort_unstable();
        let median = spans[spans.len() / 2].as_secs_f64();
        assert!((median - 40.0).abs() < 1.5, "{median}");
    }
}
