//! Chance that depends on nothing but the seed: each draw is a function of (seed, purpose, number), so that the order
//! of calls does not change what happens to an instance.

use std::time::Duration;

/// How long something takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// Anything between the two, equally likely.
    Uniform {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// At least `min`, then an exponential tail: the shape of lifetimes and of slow boots.
    Exponential {
        /// Shortest.
        min: Duration,
        /// Mean of the whole.
        mean: Duration,
    },
}

/// What is drawn for an instance or a call; keeps the draws independent of each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Appear = 1,
    Boot = 2,
    BootFailure = 3,
    Life = 4,
    Delete = 5,
    Latency = 6,
}

/// A number in `0.0 .. 1.0`.
pub(crate) fn unit(seed: u64, purpose: Purpose, number: u64) -> f64 {
    let mixed = mix(mix(mix(seed) ^ purpose as u64) ^ number);
    // 53 bits are what a double holds exactly.
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

// === impl Delay ===

impl Delay {
    /// No delay at all.
    pub const NONE: Self = Self::Fixed(Duration::ZERO);

    pub(crate) fn draw(self, seed: u64, purpose: Purpose, number: u64) -> Duration {
        let unit = unit(seed, purpose, number);
        match self {
            Self::Fixed(delay) => delay,
            Self::Uniform { min, max } => min + max.saturating_sub(min).mul_f64(unit),
            Self::Exponential { min, mean } => min + mean.saturating_sub(min).mul_f64(-(1.0 - unit).ln()),
        }
    }
}

impl From<Duration> for Delay {
    fn from(delay: Duration) -> Self {
        Self::Fixed(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_purpose_and_number_only() {
        let same = unit(1, Purpose::Boot, 1);
        assert_eq!(same.to_bits(), unit(1, Purpose::Boot, 1).to_bits());
        for other in [unit(2, Purpose::Boot, 1), unit(1, Purpose::Life, 1), unit(1, Purpose::Boot, 2)] {
            assert_ne!(same.to_bits(), other.to_bits());
        }
    }

    #[test]
    fn delays_keep_their_bounds_and_their_mean() {
        let (min, max) = (Duration::from_secs(10), Duration::from_secs(30));
        let mean = |delay: Delay| {
            let all = (0..10_000).map(|n| delay.draw(7, Purpose::Boot, n));
            let all: Vec<_> = all.inspect(|d| assert!(*d >= min)).collect();
            all.iter().sum::<Duration>().as_secs_f64() / all.len() as f64
        };
        assert!((mean(Delay::Uniform { min, max }) - 20.0).abs() < 0.5);
        assert!((mean(Delay::Exponential { min, mean: max }) - 30.0).abs() < 1.0);
        assert!((0..1000).all(|n| Delay::Uniform { min, max }.draw(7, Purpose::Boot, n) <= max));
    }
}
