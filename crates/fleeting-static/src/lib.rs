//! Machines that already exist, as an instance group.
//!
//! The machines are named in the configuration and form a pool. Growing the group takes machines of the pool into use,
//! in the order of their names; shrinking returns them. Nothing is started, stopped or cleaned: what jobs leave on a
//! machine stays there. Only machines in use are instances.
//!
//! ```
//! use drover_fleeting_static::StaticGroup;
//! use fleeting::{ConnectorSettings, InstanceGroup, InstanceState};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let group = StaticGroup::from_plugin_config(&serde_json::json!({
//!     "instances": {
//!         "mini-1": { "username": "ci", "password": "secret", "external_addr": "192.0.2.1:22" },
//!         "mini-2": { "username": "ci", "password": "secret", "internal_addr": "10.0.0.2" },
//!     }
//! }))?;
//! assert_eq!(group.init(&ConnectorSettings::default()).await?.max_size, 2);
//! group.increase(1).await;
//! let listing = group.update().await?;
//! assert_eq!((listing[0].id.as_str(), listing[0].state), ("mini-1#1", InstanceState::Running));
//! # Ok::<(), fleeting::GroupError>(())
//! # }).unwrap();
//! ```
//!
//! Each machine has `username`, `password`, `key_path`, `protocol_port`, `os`, `arch`, `timeout` and `host_key` of its own where
//! it differs from `connector_config`. How many jobs run on a machine at once is the same for all: `capacity_per_instance`.
//!
//! # Whose machines they are
//!
//! A group that is told its owner ([`used_by`](fleeting::InstanceGroup::used_by)) dials each machine before it takes it into use, and
//! locks it: a symbolic link in the login's home says who uses it. A machine that does not answer, or that somebody else has
//! locked, is left alone for a while. Locks are renewed, lapse by the machine's own clock when their owner is gone, and are
//! removed when the machine is returned. Windows, and homes that cannot be written to, are used unlocked.
//!
//! A group without an owner takes machines unseen. A group that names one machine twice is refused, and it is logged when two groups of
//! a process name the same machine.
//!
//! # Names
//!
//! An instance is one time of use of a machine, and its name says which: `mini-1#2` is the second instance on machine
//! `mini-1`. A scaler can so tell it from the first, whose jobs it has counted. The job log shows the machine's name.
//! The pool is kept in memory: after a restart all machines are free.

mod claims;
mod config;
mod diagnose;
mod group;
mod holding;
mod lock;
mod pool;

pub use config::Machine;
pub use group::StaticGroup;
