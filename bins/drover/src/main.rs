//! The command line of drover.
fn main() {}
