//! Where requests go.

use http::Method;
use url::Url;

use crate::ClientError;

/// The calls of GitLab's runner API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `POST runners`
    Register,
    /// `POST runners/verify`
    Verify,
    /// `DELETE runners`
    UnregisterRunner,
    /// `DELETE runners/managers`
    UnregisterManager,
    /// `POST runners/reset_authentication_token`
    ResetToken,
    /// `POST runners/{id}/reset_authentication_token`
    ResetTokenWithPat,
    /// `GET runners/router/discovery`
    Discovery,
    /// `POST jobs/request`
    RequestJob,
    /// `PUT jobs/{id}`
    UpdateJob,
    /// `PATCH jobs/{id}/trace`
    PatchTrace,
    /// `POST jobs/{id}/artifacts`
    UploadArtifact,
    /// `GET jobs/{id}/artifacts`
    DownloadArtifact,
}

/// The root of GitLab's API, `<url>/api/v4/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

// === impl Endpoint ===

impl Endpoint {
    /// The `endpoint` label that GitLab Runner's request metrics give to this call; `None` for calls that it does not measure.
    #[must_use]
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::ResetToken | Self::ResetTokenWithPat => Some("reset_token"),
            Self::Discovery => Some("discovery"),
            Self::RequestJob => Some("request_job"),
            Self::UpdateJob => Some("update_job"),
            Self::PatchTrace => Some("patch_trace"),
            Self::Register
            | Self::Verify
            | Self::UnregisterRunner
            | Self::UnregisterManager
            | Self::UploadArtifact
            | Self::DownloadArtifact => None,
        }
    }

    /// The path below `api/v4/` with `{id}` in place of numbers: the `path` label of GitLab Runner's retry metric.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Register | Self::UnregisterRunner => "runners",
            Self::Verify => "runners/verify",
            Self::UnregisterManager => "runners/managers",
            Self::ResetToken => "runners/reset_authentication_token",
            Self::ResetTokenWithPat => "runners/{id}/reset_authentication_token",
            Self::Discovery => "runners/router/discovery",
            Self::RequestJob => "jobs/request",
            Self::UpdateJob => "jobs/{id}",
            Self::PatchTrace => "jobs/{id}/trace",
            Self::UploadArtifact | Self::DownloadArtifact => "jobs/{id}/artifacts",
        }
    }

    /// The HTTP method.
    #[must_use]
    pub fn method(self) -> Method {
        match self {
            Self::Register
            | Self::Verify
            | Self::ResetToken
            | Self::ResetTokenWithPat
            | Self::RequestJob
            | Self::UploadArtifact => Method::POST,
            Self::UnregisterRunner | Self::UnregisterManager => Method::DELETE,
            Self::Discovery | Self::DownloadArtifact => Method::GET,
            Self::UpdateJob => Method::PUT,
            Self::PatchTrace => Method::PATCH,
        }
    }
}

// === impl BaseUrl ===

impl BaseUrl {
    /// Reads the `url` of a runner: a trailing `/` and then one trailing `/ci` are removed (GitLab Runner's rule), and
    /// `/api/v4/` is appended.
    ///
    /// # Errors
    /// [`ClientError::Url`] and [`ClientError::Scheme`].
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let mut parsed = Url::parse(url.trim()).map_err(ClientError::Url)?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(ClientError::Scheme(parsed.scheme().to_owned()));
        }
        let path = parsed.path().trim_end_matches('/');
        let path = path.strip_suffix("/ci").unwrap_or(path).trim_end_matches('/');
        let path = format!("{path}/api/v4/");
        parsed.set_path(&path);
        parsed.set_query(None);
        parsed.set_fragment(None);
        // Tokens travel in headers; user info would become an Authorization header that GitLab does not expect.
        let _ = parsed.set_username("");
        let _ = parsed.set_password(None);
        Ok(Self(parsed))
    }

    /// The root itself.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// Host name or address of GitLab.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The URL of a path below the root, with its query.
    pub(crate) fn join(&self, path_and_query: &str) -> Result<Url, ClientError> {
        self.0.join(path_and_query).map_err(ClientError::Url)
    }

    /// The same path on another server: scheme, host and port of `location`.
    pub(crate) fn moved_to(&self, location: &Url) -> Option<Self> {
        let host = location.host_str()?;
        let mut url = self.0.clone();
        url.set_scheme(location.scheme()).ok()?;
        url.set_host(Some(host)).ok()?;
        url.set_port(location.port()).ok()?;
        Some(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("https://gitlab.test", "https://gitlab.test/api/v4/")]
    #[test_case("https://gitlab.test/", "https://gitlab.test/api/v4/")]
    #[test_case("https://gitlab.test/ci", "https://gitlab.test/api/v4/"; "ci suffix")]
    #[test_case("https://gitlab.test/ci/", "https://gitlab.test/api/v4/"; "ci suffix and slash")]
    #[test_case("https://gitlab.test/sub/ci", "https://gitlab.test/sub/api/v4/"; "sub path")]
    #[test_case("https://gitlab.test/cicd", "https://gitlab.test/cicd/api/v4/"; "not the suffix")]
    #[test_case("http://user:pw@[::1]:8080/x?y#z", "http://[::1]:8080/x/api/v4/"; "everything else")]
    fn base_url(given: &str, wanted: &str) {
        assert_eq!(BaseUrl::parse(given).unwrap().as_url().as_str(), wanted);
    }

    #[test]
    fn other_schemes_are_client_errors() {
        assert!(matches!(BaseUrl::parse("ftp://gitlab.test"), Err(ClientError::Scheme(s)) if s == "ftp"));
        assert!(matches!(BaseUrl::parse("gitlab.test"), Err(ClientError::Url(_))));
    }

    #[test]
    fn a_redirect_moves_scheme_host_and_port_but_not_the_path() {
        let base = BaseUrl::parse("http://old.test:8080/sub").unwrap();
        let moved = base.moved_to(&Url::parse("https://new.test/whatever?q").unwrap()).unwrap();
        assert_eq!(moved.as_url().as_str(), "https://new.test/sub/api/v4/");
    }
}
