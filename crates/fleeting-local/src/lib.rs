//! Instances on this machine: separate processes, each with an SSH server of its own.
