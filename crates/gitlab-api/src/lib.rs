//! GitLab's runner API: requests, answers and a small client.
//!
//! Requests are built by plain functions ([`request`]), answers are read by plain functions into outcomes that say what the
//! runner has to do next, and one small [`Client`] sends them: over kept connections, with the retry layer, certificate
//! handling and long polling of GitLab Runner. A job is a [`ReceivedJob`]; its log goes out by [`Client::patch_trace`], its
//! state by [`Client::update_job`].
//!
//! ```no_run
//! # async fn example() -> Result<(), drover_gitlab_api::ClientError> {
//! use std::sync::Arc;
//! use drover_gitlab_api::*;
//!
//! let client = Client::new(ClientOptions::new("https://gitlab.example.com"))?;
//! let info = Arc::new(RunnerInfo::new(InfoFields {
//!     executor: "instance".into(),
//!     shell: "bash".into(),
//!     features: Features::INSTANCE,
//!     ..InfoFields::of_this_build("drover", "0.1.0", "unknown")
//! })?);
//! let request = JobRequest {
//!     token: "glrt-...".into(),
//!     system_id: "s_0123456789ab".into(),
//!     info,
//!     session: None,
//!     long_poll: true,
//! };
//! match client.request_job(&request).await.outcome {
//!     JobRequestOutcome::Job(received) => println!("job {}", received.job.id),
//!     JobRequestOutcome::None => println!("nothing to do"),
//!     other => println!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: decide when to ask for jobs, keep the log, or run anything.

mod answer;
mod artifact;
mod client;
mod der;
mod endpoint;
mod error;
mod info;
mod observe;
pub mod request;
mod retry;
mod system_id;
mod tls;
mod token;
mod transport;

pub use answer::{
    JobRequestOutcome, JobRequestReply, NewToken, PatchOutcome, PatchReply, Payload, ReceivedJob,
    RemoteState, RunnerCallError, RunnerRecord, UpdateOutcome, UpdateReply, Verification,
};
pub use artifact::{ArtifactBody, Download, DownloadError, UploadError, Uploaded};
pub use client::{Client, ClientOptions};
pub use endpoint::{BaseUrl, Endpoint};
pub use error::{ApiError, Call, ClientError};
pub use info::{Features, InfoConfig, InfoFields, RunnerInfo, user_agent};
pub use job_payload::{ExposeSecret, SecretString, Token, short_token};
pub use observe::{Ended, Observer};
pub use request::{
    ArtifactUpload, JobCredentials, JobRequest, JobState, JobUpdate, RegisterRequest, Session,
};
pub use retry::RetryPolicy;
pub use system_id::{SystemId, SystemIdError, machine_id};
pub use tls::{TlsFiles, TlsMaterial};
pub use token::TokenKind;
pub use transport::Timeouts;
