//! The calls that the mock tells apart.

use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};

/// A kind of request. Faults are aimed at these and statistics are kept by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST runners`.
    Register,
    /// `POST runners/verify`.
    Verify,
    /// `DELETE runners`.
    Unregister,
    /// `DELETE runners/managers`.
    UnregisterManager,
    /// `POST runners/reset_authentication_token`, and the form with the id of a runner.
    ResetToken,
    /// `GET runners/router/discovery`.
    Discovery,
    /// `POST jobs/request`.
    RequestJob,
    /// `PUT jobs/{id}`.
    UpdateJob,
    /// `PATCH jobs/{id}/trace`.
    PatchTrace,
    /// `POST jobs/{id}/artifacts`.
    UploadArtifact,
    /// `GET jobs/{id}/artifacts`.
    DownloadArtifact,
    /// Git over smart HTTP.
    Git,
    /// The object storage to which artifact downloads are redirected.
    Storage,
    /// The mock's own `/mock/...`; no fault and no rule touches it.
    Admin,
    /// A path that GitLab's runner API does not have.
    Unknown,
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) endpoint: Endpoint,
    /// Job id, or the id of a runner for a token reset.
    pub(crate) id: Option<u64>,
}

// === impl Endpoint ===

impl Endpoint {
    /// All of them.
    pub const ALL: [Endpoint; 15] = [
        Endpoint::Register,
        Endpoint::Verify,
        Endpoint::Unregister,
        Endpoint::UnregisterManager,
        Endpoint::ResetToken,
        Endpoint::Discovery,
        Endpoint::RequestJob,
        Endpoint::UpdateJob,
        Endpoint::PatchTrace,
        Endpoint::UploadArtifact,
        Endpoint::DownloadArtifact,
        Endpoint::Git,
        Endpoint::Storage,
        Endpoint::Admin,
        Endpoint::Unknown,
    ];

    /// The name used in JSON and scenario files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Endpoint::Register => "register",
            Endpoint::Verify => "verify",
            Endpoint::Unregister => "unregister",
            Endpoint::UnregisterManager => "unregister_manager",
            Endpoint::ResetToken => "reset_token",
            Endpoint::Discovery => "discovery",
            Endpoint::RequestJob => "request_job",
            Endpoint::UpdateJob => "update_job",
            Endpoint::PatchTrace => "patch_trace",
            Endpoint::UploadArtifact => "upload_artifact",
            Endpoint::DownloadArtifact => "download_artifact",
            Endpoint::Git => "git",
            Endpoint::Storage => "storage",
            Endpoint::Admin => "admin",
            Endpoint::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Route ===

impl Route {
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        if path.starts_with("/mock/") || path == "/mock" {
            return Self::bare(Endpoint::Admin);
        }
        let Some(api) = path.strip_prefix("/api/v4/") else {
            let git = path.contains(".git/") || path.ends_with(".git");
            return Self::bare(if git { Endpoint::Git } else { Endpoint::Unknown });
        };
        let mut segments = api.splitn(4, '/');
        let parts = (segments.next().unwrap_or(""), segments.next(), segments.next(), segments.next());
        let post = method == Method::POST;
        match parts {
            ("runners", None, None, None) if post => Self::bare(Endpoint::Register),
            ("runners", None, None, None) if method == Method::DELETE => Self::bare(Endpoint::Unregister),
            ("runners", Some("verify"), None, None) if post => Self::bare(Endpoint::Verify),
            ("runners", Some("managers"), None, None) if method == Method::DELETE => {
                Self::bare(Endpoint::UnregisterManager)
            }
            ("runners", Some("reset_authentication_token"), None, None) if post => {
                Self::bare(Endpoint::ResetToken)
            }
            ("runners", Some(id), Some("reset_authentication_token"), None) if post => {
                Self::with_id(Endpoint::ResetToken, id)
            }
            ("runners", Some("router"), Some("discovery"), None) if method == Method::GET => {
                Self::bare(Endpoint::Discovery)
            }
            ("jobs", Some("request"), None, None) if post => Self::bare(Endpoint::RequestJob),
            ("jobs", Some(id), None, None) if method == Method::PUT => Self::with_id(Endpoint::UpdateJob, id),
            ("jobs", Some(id), Some("trace"), None) if method == Method::PATCH => {
                Self::with_id(Endpoint::PatchTrace, id)
            }
            ("jobs", Some(id), Some("artifacts"), None) if post => {
                Self::with_id(Endpoint::UploadArtifact, id)
            }
            ("jobs", Some(id), Some("artifacts"), None) if method == Method::GET => {
                Self::with_id(Endpoint::DownloadArtifact, id)
            }
            _ => Self::bare(Endpoint::Unknown),
        }
    }

    fn bare(endpoint: Endpoint) -> Self {
        Self { endpoint, id: None }
    }

    fn with_id(endpoint: Endpoint, id: &str) -> Self {
        id.parse().map_or_else(|_| Self::bare(Endpoint::Unknown), |id| Self { endpoint, id: Some(id) })
    }
}
