//! What operators see of a manager: `drover explain`, the status page, and metrics in a real Prometheus.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod explain;
mod prometheus;
mod secrets;
mod socket;
mod watched;
