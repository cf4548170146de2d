//! A stand-in for the calls of AWS that instance groups need, with time, capacity and faults.
//!
//! [`AwsMock`] speaks the real protocols (the query protocol of EC2, Auto Scaling and STS, JSON of EC2 Instance Connect) on
//! one address, so that the official SDKs talk to it. Its cloud has memory: instances boot, serve, end and are replaced,
//! room runs out, listings lag behind. The same calls at the same times give the same names and answers.
//!
//! ```
//! use drover_aws_mock::{AwsMock, Fault, GroupOptions, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let aws = AwsMock::start(Options::default()).await?;
//! aws.add_group(GroupOptions::new("build"));
//! aws.fail("SetDesiredCapacity", Fault::Throttled, Some(1));
//! // An SDK with `aws.url()` as its endpoint meets the group `build` there.
//! assert_eq!(aws.desired("build"), 0);
//! assert_eq!(aws.calls_of("SetDesiredCapacity"), 0);
//! # Ok(())
//! # }
//! ```
//!
//! What stands behind an instance is up to an [`InstanceBackend`], for example a real SSH server that lets in the keys
//! which were pushed.
//!
//! Signatures must be there but are not examined; there is one account and one region; launch templates, networks and
//! images do not exist.

mod autoscaling;
mod backend;
mod connect;
mod ec2;
mod fault;
mod identity;
mod instance;
mod kinds;
mod metadata;
mod mock;
mod options;
mod query;
mod server;
mod world;
mod xml;

pub use backend::{InstanceBackend, Nothing};
pub use fault::{ErrorAnswer, Fault};
pub use kinds::{HookResult, MixedPolicy, TypeOverride, WarmPool};
pub use metadata::MetadataFault;
pub use mock::{AwsMock, InstanceView};
pub use options::{GroupOptions, Options};
