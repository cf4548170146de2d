//! The uploader against a model of GitLab, in virtual time.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails is a test that fails")]

mod cancel;
mod content;
mod end;
mod gitlab;
mod outages;
mod running;
