//! GitLab's side of the runner API for tests and the demo: strict, stateful, with faults.
