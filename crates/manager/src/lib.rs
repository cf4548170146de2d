//! Polls GitLab for jobs, hands them to executors, reloads its configuration and shuts down in order.

mod dispatch;
