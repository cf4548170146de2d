//! Machines that already exist, as an instance group.
