//! Client of the daemon that makes virtual machines on a host: one for each job.
//!
//! GitLab's `nesting` runs on macOS hosts and starts virtual machines there, mostly with Tart. It listens at a unix socket or a port of
//! the host, speaks gRPC without TLS, and keeps the number of a job's slot with each machine.
//!
//! [`Client`] talks over any byte stream that leads there; usually that is a tunnel of the host's SSH connection.
//!
//! ```no_run
//! use drover_nesting::{Client, Options};
//! use tokio::io::{AsyncRead, AsyncWrite};
//!
//! async fn one(tunnel: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), drover_nesting::Error> {
//!     let options = Options { config: r#"{"image_dir": "/images"}"#.into(), ..Options::default() };
//!     let daemon = Client::connect(tunnel, options).await?;
//!     for machine in daemon.list().await? {
//!         daemon.delete(&machine.id).await?;
//!     }
//!     let created = daemon.create("macos-sonoma", Some(0)).await?;
//!     println!("{} listens at {}", created.machine.id, created.machine.addr);
//!     daemon.delete(&created.machine.id).await
//! }
//! ```
//!
//! A daemon that has just started wants its settings first. Calls that find it so hand it [`Options::config`] and are made again,
//! once.
//!
//! # What it does not do
//!
//! It does not reach the machines: their addresses are those of the host's own network.

mod client;
mod connection;
mod error;
mod wire;

pub use client::{Client, Created, Options, VirtualMachine};
pub use error::{Call, Error};
