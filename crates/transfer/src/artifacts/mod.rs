//! Artifacts: `artifacts-uploader` and `artifacts-downloader`.

mod download;
mod provenance;
mod upload;

use std::path::PathBuf;

use gitlab_api::{Client, ClientError, ClientOptions, JobCredentials, TlsFiles};
use secrecy::SecretString;

use crate::{ArchiveError, ExtractError};

pub use download::{DownloadArgs, download};
pub use provenance::{Provenance, ProvenanceError};
pub use upload::{UploadArgs, Uploaded, upload};

/// Who asks, and whom: flags of both commands.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Coordinator {
    /// Address of GitLab
    #[arg(long, env = "CI_SERVER_URL", default_value = "")]
    pub url: String,
    /// Token of the job
    #[arg(long, env = "CI_JOB_TOKEN", default_value = "", hide_env_values = true, value_parser = secret)]
    pub token: SecretString,
    /// Id of the job
    #[arg(long, env = "CI_JOB_ID", default_value = "0", value_parser = crate::flags::job_id)]
    pub id: u64,
    /// Certificate authorities to trust beside those of the system
    #[arg(long, env = "CI_SERVER_TLS_CA_FILE", default_value = "", value_name = "FILE", value_parser = crate::flags::path)]
    pub tls_ca_file: PathBuf,
    /// Client certificate
    #[arg(long, env = "CI_SERVER_TLS_CERT_FILE", default_value = "", value_name = "FILE", value_parser = crate::flags::path)]
    pub tls_cert_file: PathBuf,
    /// Key of the client certificate
    #[arg(long, env = "CI_SERVER_TLS_KEY_FILE", default_value = "", value_name = "FILE", value_parser = crate::flags::path)]
    pub tls_key_file: PathBuf,
}

/// Why a command failed. The text is the last line of its log.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    /// Address, token or id are missing.
    #[error("Missing runner credentials")]
    Credentials,
    /// No job has this id.
    #[error("Missing build ID")]
    Id,
    /// The client cannot be built.
    #[error("the connection to GitLab cannot be set up")]
    Client(#[from] ClientError),
    /// The files cannot be looked for.
    #[error("failed to look for artifacts")]
    Select(#[source] std::io::Error),
    /// The archive cannot be made.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The statement of provenance cannot be made.
    #[error("failed to make the statement of provenance")]
    Provenance(#[from] ProvenanceError),
    /// 401 or 403.
    #[error("permission denied")]
    Denied,
    /// 413.
    #[error("too large")]
    TooLarge,
    /// 503, each time.
    #[error("service unavailable")]
    Unavailable,
    /// 404.
    #[error("file does not exist")]
    NotFound,
    /// Anything else that the network or GitLab did.
    #[error("{0}")]
    Failed(String),
    /// A file for the download cannot be made or written.
    #[error("failed to keep the download")]
    Staging(#[source] std::io::Error),
    /// The archive cannot be extracted.
    #[error("failed to extract the artifacts")]
    Extract(#[from] ExtractError),
    /// The runtime cannot be started.
    #[error("failed to start")]
    Start(#[source] std::io::Error),
}

// === impl Coordinator ===

impl Coordinator {
    /// The job as GitLab knows it.
    fn credentials(&self) -> Result<JobCredentials, ArtifactsError> {
        use secrecy::ExposeSecret as _;
        if self.url.is_empty() || self.token.expose_secret().is_empty() {
            return Err(ArtifactsError::Credentials);
        }
        if self.id == 0 {
            return Err(ArtifactsError::Id);
        }
        Ok(JobCredentials { id: self.id, token: self.token.clone() })
    }

    /// The part of the token that may be shown.
    fn short_token(&self) -> String {
        use secrecy::ExposeSecret as _;
        gitlab_api::short_token(self.token.expose_secret()).to_owned()
    }

    fn options(&self) -> ClientOptions {
        let given = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        ClientOptions {
            tls: TlsFiles {
                ca_file: given(&self.tls_ca_file),
                cert_file: given(&self.tls_cert_file),
                key_file: given(&self.tls_key_file),
            },
            user_agent: concat!("drover-helper ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ClientOptions::new(self.url.clone())
        }
    }

    fn client(options: ClientOptions) -> Result<Client, ArtifactsError> {
        Ok(Client::new(options)?)
    }
}

/// One thread is enough for one transfer; archives have threads of their own.
fn runtime() -> Result<tokio::runtime::Runtime, ArtifactsError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ArtifactsError::Start)
}

#[expect(clippy::unnecessary_wraps, reason = "that is what the argument parser calls")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}
