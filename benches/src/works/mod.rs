//! What is measured, one file each.

pub(crate) mod against;
pub(crate) mod decision;
pub(crate) mod docker;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod layout;
pub(crate) mod log;
pub(crate) mod sleeping;
pub(crate) mod throughput;
