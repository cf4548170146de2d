//! Opens SSH connections to instances, runs commands and tunnels over them.
