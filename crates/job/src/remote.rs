//! Where git finds the project, and how it authenticates there.

use crate::context::Context;

/// GitLab's user name for job tokens.
pub(crate) const TOKEN_USER: &str = "gitlab-ci-token";

/// A URL of the form `scheme://[user@]host[:port][/path]`, kept as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remote<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
}

/// What git is told about one job's remote.
pub(crate) struct Access {
    /// URL of `origin`, without credentials.
    pub(crate) origin: String,
    /// `scheme://host` of `origin`, if git may keep credentials for it.
    pub(crate) credential_url: Option<String>,
    /// What is put in front of URLs that begin with the second.
    pub(crate) rewrites: Vec<(String, String)>,
    /// `scheme://host` for which the job token is offered by a helper.
    pub(crate) helper_urls: Vec<String>,
}

// === impl Remote ===

impl<'a> Remote<'a> {
    /// The parts of `url`, or none if it has no scheme.
    pub(crate) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Some(Self { scheme, host, path })
    }

    pub(crate) fn is_http(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("http") || self.scheme.eq_ignore_ascii_case("https")
    }

    fn is_ssh(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("ssh") || self.scheme.eq_ignore_ascii_case("git+ssh")
    }

    /// `scheme://host[:port]`.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    /// The whole, without user.
    fn bare(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }

    /// The whole, for a user of SSH.
    fn with_git_user(&self) -> String {
        format!("{}://git@{}{}", self.scheme, self.host, self.path)
    }
}

// === impl Access ===

impl Access {
    /// GitLab Runner's rules: `clone_url` before the payload's URL, and the hosts of both and of `url` get the job token. No
    /// URL ever has it: git makes URLs arguments of its own children, where every user of a machine can read them.
    /// Rewrites end in a slash on both sides: without it, they would reach hosts whose names begin alike.
    pub(crate) fn of(context: &Context) -> Self {
        let job = &context.job;
        let repo_url = job.git_info.repo_url.as_str();
        let clone_url = context.runner.clone_url.trim_end_matches('/');
        let project_path = context.variables.get("CI_PROJECT_PATH").unwrap_or_default();
        let own = format!("{clone_url}/{project_path}.git");
        let url = if clone_url.is_empty() { repo_url } else { own.as_str() };
        let base = if clone_url.is_empty() { context.runner.url.trim_end_matches('/') } else { clone_url };

        let Some(remote) = Remote::parse(url) else {
            // A local path, or the short form of SSH, which have no place for a token.
            return Self {
                origin: url.to_owned(),
                credential_url: None,
                rewrites: Vec::new(),
                helper_urls: Vec::new(),
            };
        };
        let origin = if remote.is_ssh() { remote.with_git_user() } else { remote.bare() };
        let credential_url = (remote.is_http() || remote.is_ssh()).then(|| remote.origin());
        let base = Remote::parse(base).filter(Remote::is_http);
        let host =
            Remote::parse(repo_url).filter(Remote::is_http).map(|remote| Remote { path: "", ..remote });

        let mut helper_urls: Vec<String> = Vec::new();
        for remote in [Some(remote).filter(Remote::is_http), base, host].into_iter().flatten() {
            let url = remote.origin();
            if !helper_urls.contains(&url) {
                helper_urls.push(url);
            }
        }
        let mut rewrites = Vec::new();
        if context.settings.submodule_force_https
            && let Some(base) = base.or(host)
        {
            let to = format!("{}/", base.bare());
            rewrites.extend(ssh_forms(context).into_iter().map(|from| (to.clone(), from)));
        }
        Self { origin, credential_url, rewrites, helper_urls }
    }
}

/// What URLs of GitLab's SSH host begin with.
fn ssh_forms(context: &Context) -> Vec<String> {
    let variable = |key| context.variables.get(key).filter(|value| !value.is_empty());
    let Some(host) = variable("CI_SERVER_SHELL_SSH_HOST").or_else(|| variable("CI_SERVER_HOST")) else {
        return Vec::new();
    };
    match variable("CI_SERVER_SHELL_SSH_PORT") {
        Some(port) if port != "22" => vec![format!("ssh://git@{host}:{port}/")],
        Some(_) | None => vec![format!("git@{host}:"), format!("ssh://git@{host}/")],
    }
}

/// `text` as a quoted value of a git configuration file.
pub(crate) fn config_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // A line break in disguise for some readers, of no use in any value.
            '\r' => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A section header with a name, as in `[url "…"]`.
pub(crate) fn config_section(section: &str, name: &str) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "");
    format!("[{section} \"{name}\"]")
}
