//! Many jobs, several runners, and what goes wrong around them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail them")]

mod entries;
mod load;
mod outages;
mod pools;
mod shutdown;
