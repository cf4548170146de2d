//! Medians and units.

use std::time::Duration;

/// One mebibyte.
pub(crate) const MIB: f64 = 1024.0 * 1024.0;

/// The middle one; of an even number the upper middle. Not a number for none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The figure that nine of ten do not exceed.
pub(crate) fn ninetieth(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() * 9).div_ceil(10).max(1);
    figures.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// Bytes in mebibytes.
#[expect(clippy::cast_precision_loss, reason = "memory is shown with one decimal")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

/// A time in milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_does_not_ask_for_order() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn ninetieth_is_a_nearest_rank() {
        let figures = (1..=30).map(f64::from).collect();
        assert_eq!(ninetieth(figures).to_bits(), 27.0_f64.to_bits());
    }
}
