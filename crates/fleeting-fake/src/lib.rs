//! A small cloud in memory, with memory: a provider for tests and simulations.
//!
//! A [`FakeCloud`] holds one instance group. Its time is virtual: nothing happens until the test lets time pass
//! ([`FakeCloud::advance`]), or until tokio's clock moves ([`Builder::tokio_clock`]), which a test can pause. Every
//! random choice follows from the seed. It records each call, tells the truth beside what its listings say, and can
//! be made to misbehave in the ways in which clouds do: slow and failed boots, dry pools, throttling, lost answers,
//! stale listings, spot notices, deletions without effect.
//!
//! ```
//! use std::time::Duration;
//! use drover_fleeting_fake::{FakeCloud, Operation};
//! use fleeting::{ConnectorSettings, GroupError, InstanceGroup, InstanceState};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let cloud = FakeCloud::builder().boot_delay(Duration::from_secs(30)).max_size(10).build();
//! cloud.init(&ConnectorSettings::default()).await.unwrap();
//!
//! cloud.stock(Some(2));
//! let answer = cloud.increase(3).await;
//! assert_eq!(answer.done, 2);
//! assert!(matches!(answer.error, Some(GroupError::NoCapacity { .. })));
//!
//! cloud.advance(Duration::from_secs(30));
//! let listing = cloud.update().await.unwrap();
//! assert!(listing.iter().all(|seen| seen.state == InstanceState::Running));
//! assert_eq!(cloud.count(Operation::Increase), 1);
//! # });
//! ```
//!
//! Each test builds its own cloud; there is nothing to reset. No machine is behind an instance: for commands that
//! really run see `drover-fleeting-local`, or give [`Builder::connect`] the address of a server.

mod builder;
mod cloud;
mod draw;
mod faults;
mod group;
mod machine;
mod record;
mod state;

pub use builder::Builder;
pub use cloud::FakeCloud;
pub use draw::Delay;
pub use faults::{Creation, Fault, Lag};
pub use machine::{Health, Instance};
pub use record::{Answer, Call, Operation, Request};
