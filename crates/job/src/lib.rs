//! Pure job logic: variables, stages, shell scripts, secret masking, log format.

pub mod log;
