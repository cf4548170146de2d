//! Opens SSH connections to instances, runs commands and tunnels over them.
//!
//! [`dial`] connects to an instance, patiently while it boots, and gives a [`Client`]. [`Client::exec`] runs a command as a
//! [`Process`]; [`Client::connect_unix`] and [`Client::connect_tcp`] open a [`Tunnel`] to something that only the instance can
//! reach, such as its Docker engine.
//!
//! ```no_run
//! use connect_info::{ConnectInfo, ConnectorSettings};
//! use drover_connector::{DialOptions, Output, dial};
//!
//! # async fn example(key: connect_info::SecretString) -> Result<(), Box<dyn std::error::Error>> {
//! let settings =
//!     ConnectorSettings { username: Some("ci".into()), key_pem: Some(key), ..ConnectorSettings::default() };
//! let mut info = ConnectInfo::new("i-1", settings);
//! info.internal_addr = Some("10.0.0.7".into());
//!
//! let client = dial(&info, &DialOptions::default(), &mut |attempt| {
//!     tracing::info!(number = attempt.number, error = %attempt.error, "still trying");
//! })
//! .await?;
//! let mut process = client.exec("bash -s", "echo hello; exit 3".into()).await?;
//! while let Some(output) = process.next().await? {
//!     match output {
//!         Output::Stdout(bytes) | Output::Stderr(bytes) => assert_eq!(bytes, "hello\n"),
//!     }
//! }
//! assert_eq!(process.wait().await?.code(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Many commands on one connection
//!
//! All commands and tunnels of an instance share one SSH connection, and a few more when the server allows too few sessions on
//! one. A lost connection is noticed within five keepalive intervals, also if the instance freezes without closing it; then
//! everything on it fails with [`ConnectionError::Lost`]. It is never repeated here: only the caller knows whether a command may
//! run twice.
//!
//! OpenSSH takes no input of a command before the command runs, which costs a second round trip. [`Client::prepare`] starts a
//! command ahead of its input, so that a script on its way to a shell costs one.
//!
//! # Back-pressure
//!
//! At most about 1 MiB of output per command or tunnel waits in memory for its reader. A reader that stops while nothing else
//! uses the connection stops the remote command, through TCP. The SSH library in use cannot stop one channel and not the others,
//! so beside other commands such output goes to an unnamed file until the reader catches up, up to
//! [`DialOptions::unread_limit`]. Dropping the [`Process`] or [`Tunnel`] frees both.
//!
//! # What it does not do
//!
//! Windows instances over WinRM are refused as not available yet. There are no terminals, agents or remote forwards.

mod auth;
mod client;
mod dial;
mod error;
mod host_key;
mod inbox;
mod link;
mod prepared;
mod process;
mod sessions;
mod spill;
mod table;
mod tunnel;
mod wire;

pub use client::Client;
pub use dial::{Attempt, DialOptions, dial};
pub use error::{ConnectionError, DialError};
pub use host_key::HostKeys;
pub use prepared::Prepared;
pub use process::{ExitStatus, Output, Process, ProcessStdin};
pub use tunnel::Tunnel;
