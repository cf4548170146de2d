//! Interactive web terminals of running jobs, over TLS.
//!
//! GitLab lets a user open a terminal in a running job. It learns from the job request where the runner's session server is, which
//! certificate it has and which secret it wants ([`Session`]), and connects to it with a web socket.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use drover_session::{Options, SessionServer, Terminals};
//!
//! async fn one_job(terminals: Arc<dyn Terminals>) -> Result<(), drover_session::StartError> {
//!     let server = SessionServer::start(Options {
//!         listen: "0.0.0.0:8093".to_owned(),
//!         advertise: "runner.example.test:8093".to_owned(),
//!         timeout: Duration::from_secs(1800),
//!     })
//!     .await?;
//!     let session = server.open();
//!     // Goes to GitLab with the job request: session.url(), server.certificate(), session.authorization().
//!     session.offer(terminals);
//!     // The job runs. While somebody is connected, its end waits for them, for at most `timeout`.
//!     session.finished(|line| println!("{line}")).await;
//!     Ok(())
//! }
//! ```
//!
//! The certificate is made when the server starts and never leaves memory. A session is known by 64 hexadecimal digits and
//! opened by 64 others; both are new for every job, and end with it.

mod server;
mod session;
mod socket;
mod tls;

pub use server::{Options, SessionServer, StartError};
pub use session::{Session, Terminal, TerminalError, Terminals};
