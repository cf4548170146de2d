//! Instances that are containers of one Docker engine: one big machine becomes many small ones that come and go.
//!
//! [`DockerGroup`] is a provider like those of clouds: it makes, lists and deletes containers, and says how to reach them. The
//! image of an instance has an SSH server, and whatever jobs need; for the executor `docker-autoscaler`, an engine of its own.
//! `docs/docker.md` shows such an image.
//!
//! ```no_run
//! use drover_fleeting_docker::{Config, DockerGroup};
//! use fleeting::{ConnectorSettings, InstanceGroup};
//!
//! # async fn example() -> Result<(), fleeting::GroupError> {
//! let group = DockerGroup::new(Config { max_size: 4, ..Config::new("build", "registry.example.com/ci-instance:1") });
//! group.init(&ConnectorSettings::default()).await?;
//! group.increase(2).await;
//! for seen in group.update().await? {
//!     println!("{} is {:?}", seen.id, seen.state);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Whose containers
//!
//! A container belongs to the group whose name its label `drover.instance-group` bears. All others are neither listed nor
//! touched, whatever they are called. Instances outlive the manager: after a restart it finds its own.
//!
//! One manager at a time scales a group: it keeps a volume at the engine, `drover.lease.NAME.NUMBER`, whose label says who it is and
//! until when. Other managers stand by.
//!
//! # Logins
//!
//! Unless the credentials are static, the manager makes a key pair that never leaves its memory, and writes the public half
//! into the container whenever somebody is about to connect. The container's own host key is read through the engine, so that a
//! connection cannot end at anybody else's server.

mod config;
mod containers;
mod group;
mod lease;
mod login;

pub use config::Config;
pub use group::DockerGroup;
