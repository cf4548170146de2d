//! Client of the daemon that makes virtual machines on a host.
