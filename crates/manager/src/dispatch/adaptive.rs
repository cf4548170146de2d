//! How many requests of one runner may be under way: grows while GitLab gives jobs, shrinks when it does not (GitLab
//! Runner's `FF_USE_ADAPTIVE_REQUEST_CONCURRENCY`).

/// The limit in force, between 1 and `request_concurrency`.
#[derive(Debug, Clone)]
pub(crate) struct Adaptive {
    value: f64,
    most: usize,
    enabled: bool,
}

impl Adaptive {
    pub(crate) fn new(most: usize, enabled: bool) -> Self {
        Self { value: 1.0, most: most.max(1), enabled }
    }

    pub(crate) fn configure(&mut self, most: usize, enabled: bool) {
        self.most = most.max(1);
        self.enabled = enabled;
        self.scale(1.0);
    }

    /// Learns from one answer; `retried` means that the HTTP layer had to try more than once.
    pub(crate) fn learn(&mut self, job: bool, retried: bool) {
        self.scale(match (retried, job) {
            (true, _) => 0.5,
            (false, true) => 1.1,
            (false, false) => 0.95,
        });
    }

    /// Requests that may be under way at once.
    pub(crate) fn limit(&self) -> usize {
        if !self.enabled {
            return self.most;
        }
        // The value is between 1 and `most`, which is small.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=most")]
        let limit = self.value.ceil() as usize;
        limit
    }

    /// The value before it is rounded up to a limit.
    pub(crate) fn value(&self) -> f64 {
        self.value
    }

    fn scale(&mut self, factor: f64) {
        #[expect(clippy::cast_precision_loss, reason = "request_concurrency is a small number")]
        let most = self.most as f64;
        self.value = (self.value * factor).clamp(1.0, most);
    }
}
