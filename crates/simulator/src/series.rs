//! A number over time.

use crate::world::Millis;

/// A step function, kept as integral and peak of each minute.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    minutes: Vec<(u64, u32)>,
    now: Millis,
    value: u32,
}

const MINUTE: Millis = 60_000;

// === impl Series ===

impl Series {
    /// The value is this from now on.
    pub(crate) fn set(&mut self, at: Millis, value: u32) {
        if value == self.value {
            return;
        }
        self.fill(at);
        self.value = value;
        self.peak(at);
    }

    /// Nothing changes before this moment.
    pub(crate) fn close(&mut self, at: Millis) {
        self.fill(at);
    }

    /// The largest value.
    pub(crate) fn most(&self) -> u32 {
        self.minutes.iter().map(|(_, most)| *most).max().unwrap_or(0)
    }

    /// `count` spans of equal length: the mean of each, and the peak.
    pub(crate) fn sampled(&self, count: usize) -> Vec<(f64, u32)> {
        let width = self.minutes.len().div_ceil(count.max(1)).max(1);
        self.minutes.chunks(width).map(mean_and_most).collect()
    }

    /// Minutes that one of [`sampled`](Self::sampled) spans.
    pub(crate) fn minutes(&self) -> usize {
        self.minutes.len()
    }

    fn fill(&mut self, to: Millis) {
        while self.now < to {
            let end = (self.now / MINUTE + 1) * MINUTE;
            let until = end.min(to);
            let long = until - self.now;
            let value = self.value;
            let minute = self.minute(self.now);
            minute.0 += u64::from(value) * long;
            minute.1 = minute.1.max(value);
            self.now = until;
        }
    }

    fn peak(&mut self, at: Millis) {
        let value = self.value;
        let minute = self.minute(at);
        minute.1 = minute.1.max(value);
    }

    fn minute(&mut self, at: Millis) -> &mut (u64, u32) {
        let index = usize::try_from(at / MINUTE).unwrap_or(0);
        if self.minutes.len() <= index {
            self.minutes.resize(index + 1, (0, 0));
        }
        &mut self.minutes[index]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean for a picture")]
fn mean_and_most(minutes: &[(u64, u32)]) -> (f64, u32) {
    let sum: u64 = minutes.iter().map(|(integral, _)| integral).sum();
    let most = minutes.iter().map(|(_, most)| *most).max().unwrap_or(0);
    (sum as f64 / (minutes.len() as u64 * MINUTE) as f64, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_spread_over_the_minutes_that_it_lasts() {
        let mut series = Series::default();
        series.set(30_000, 4);
        series.set(90_000, 0);
        series.close(120_000);
        assert_eq!(series.sampled(2), [(2.0, 4), (2.0, 4)]);
        assert_eq!(series.most(), 4);
    }
}
