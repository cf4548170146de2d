//! Progress of a transfer, told every now and then.

use std::time::{Duration, Instant};

use crate::Console;

/// Counts bytes and says how it goes, no more often than asked for.
#[derive(Debug)]
pub(crate) struct Meter {
    console: Console,
    what: &'static str,
    every: Duration,
    total: Option<u64>,
    bytes: u64,
    started: Instant,
    told: Instant,
}

impl Meter {
    /// `every` zero is never; `what` is for example `Uploading`.
    pub(crate) fn new(console: &Console, what: &'static str, every: Duration, total: Option<u64>) -> Self {
        let now = Instant::now();
        Self { console: console.clone(), what, every, total, bytes: 0, started: now, told: now }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if !self.every.is_zero() && self.told.elapsed() >= self.every {
            self.told = Instant::now();
            self.console.info(&self.line(self.started.elapsed()));
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let speed = self.bytes as f64 / elapsed.as_secs_f64().max(0.001);
        let of = self.total.map(|total| format!(" of {}", size(total as f64))).unwrap_or_default();
        format!("{} {}{of} ({}/s)", self.what, size(self.bytes as f64), size(speed))
    }
}

/// Bytes for people, in powers of ten.
pub(crate) fn size(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KB", "MB", "GB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_of_what_and_how_fast() {
        let (console, memory) = Console::memory();
        let mut meter = Meter::new(&console, "Uploading", Duration::ZERO, Some(3_000_000));
        meter.add(1_500_000);
        assert_eq!(memory.text(), "");
        assert_eq!(meter.line(Duration::from_secs(2)), "Uploading 1.5 MB of 3.0 MB (750.0 KB/s)");
    }
}
