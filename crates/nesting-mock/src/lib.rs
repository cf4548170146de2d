//! A stand-in for the daemon that makes virtual machines on a host.
