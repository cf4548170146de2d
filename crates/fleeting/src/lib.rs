//! What an instance group is: a set of machines in some cloud that can be listed, grown and shrunk.
//!
//! The contract is the trait [`InstanceGroup`]; every provider must pass the suite in
//! [`conformance`].
//!
//! ```
//! use drover_fleeting::{GroupError, InstanceGroup};
//!
//! async fn running(group: &dyn InstanceGroup) -> Result<usize, GroupError> {
//!     let listing = group.update().await?;
//!     Ok(listing.iter().filter(|seen| seen.state == drover_fleeting::InstanceState::Running).count())
//! }
//! ```
//!
//! [`lease`] says which of several managers a group belongs to.
//!
//! How a group is scaled is not decided here (see `drover-taskscaler-core`), and no cloud is named.

pub mod conformance;
pub mod lease;

mod doom;
mod error;
mod finding;
mod group;
mod plugin_config;
mod watch;

pub use connect_info::{
    ConnectInfo, ConnectorSettings, ExposeSecret, Os, Protocol, Renewal, RenewalError, SecretString,
};
pub use doom::{Doom, DoomKind};
pub use error::{GroupError, HeartbeatError, with_causes};
pub use finding::{Finding, Severity};
pub use group::{Changed, GroupInfo, InstanceGroup, InstanceId, InstanceState, Seen};
pub use plugin_config::PluginConfig;
pub use watch::{ByteStream, Reach, ReachError, Watch, WatchError};
