//! Credentials for registries: where they come from, and which one an image gets.
//!
//! The sources and their order are GitLab Runner's: the variable `DOCKER_AUTH_CONFIG`, the configuration of the manager's user,
//! then what GitLab sends with the job. For one registry path the first source wins.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use bollard::auth::DockerCredentials;
use job::ExposeSecret as _;
use job::{Context, SecretString};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::reference::Reference;

/// Programs that look up credentials must not hold a job up for ever.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// Key of the registry that images without a host come from.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Credentials by registry path.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    entries: BTreeMap<String, Credential>,
    /// What could not be read; for the job's log.
    pub(crate) warnings: Vec<String>,
}

/// One user of one registry path.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    username: String,
    password: SecretString,
    identity_token: Option<SecretString>,
    server: String,
    /// Where it was found, as the log names it.
    pub(crate) source: String,
}

/// A `config.json`.
#[derive(Deserialize, Default)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default, rename = "credsStore")]
    store: String,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// Answer of a credential helper.
#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Why a source is not used.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("it is not valid: {0}")]
    Invalid(String),
    #[error("the name of credential helper \"{0}\" is a path: path traversal is not allowed")]
    Path(String),
    #[error(
        "credential helper `docker-credential-{program}` for {server}: {why} (credential helpers run on the manager, so it must be \
         installed there)"
    )]
    Helper { program: String, server: String, why: String },
}

// === impl Credentials ===

impl Credentials {
    /// Reads all sources. `home` is that of the manager's user.
    pub(crate) async fn of(context: &Context, home: Option<PathBuf>) -> Self {
        let mut credentials = Self::default();
        if let Some(text) = context.variables().get("DOCKER_AUTH_CONFIG").filter(|text| !text.is_empty()) {
            credentials.read("$DOCKER_AUTH_CONFIG", &text).await;
        }
        for path in home.iter().flat_map(|home| [home.join(".docker/config.json"), home.join(".dockercfg")]) {
            let Ok(text) = tokio::fs::read_to_string(&path).await else { continue };
            credentials.read(&path.display().to_string(), &text).await;
            break;
        }
        for credential in context.job().credentials.iter().filter(|credential| credential.kind == "registry")
        {
            credentials.add(
                &credential.url,
                Credential {
                    username: credential.username.clone(),
                    password: SecretString::from(credential.password.expose()),
                    identity_token: None,
                    server: credential.url.clone(),
                    source: "job payload (GitLab Registry)".to_owned(),
                },
            );
        }
        credentials
    }

    /// The credential of the longest path that leads to an image.
    pub(crate) fn find(&self, image: &str) -> Option<&Credential> {
        let mut path = image_path(image);
        loop {
            if let Some(found) = self.entries.get(&path) {
                return Some(found);
            }
            path.truncate(path.rfind('/')?);
        }
    }

    fn add(&mut self, key: &str, credential: Credential) {
        self.entries.entry(registry_key(key)).or_insert(credential);
    }

    async fn read(&mut self, source: &str, text: &str) {
        match entries(source, text).await {
            Ok(found) => {
                for (key, credential) in found {
                    self.add(&key, credential);
                }
            }
            Err(error) => self.warnings.push(format!(
                "Failed to resolve credentials from {source}: {error}. Credentials from this source will not be used."
            )),
        }
    }
}

// === impl Credential ===

impl Credential {
    /// What a pull sends.
    pub(crate) fn for_pull(&self) -> DockerCredentials {
        let secret = |secret: &SecretString| Some(secret.expose_secret().to_owned());
        DockerCredentials {
            username: Some(self.username.clone()),
            password: secret(&self.password),
            identitytoken: self.identity_token.as_ref().and_then(secret),
            serveraddress: Some(self.server.clone()),
            ..DockerCredentials::default()
        }
    }
}

/// The credentials of one source: `auths`, overridden by the store, overridden by helpers.
async fn entries(source: &str, text: &str) -> Result<BTreeMap<String, Credential>, SourceError> {
    let mut file: ConfigFile = serde_json::from_str(text).map_err(|error| {
        // The text of the error may quote what is secret; its place does not.
        let (line, column) = (error.line(), error.column());
        SourceError::Invalid(format!("no JSON of a Docker configuration, at line {line} column {column}"))
    })?;
    if file.auths.is_empty() && file.store.is_empty() && file.helpers.is_empty() {
        // The old form is the map alone. Other settings have no members that name a user.
        file.auths = serde_json::from_str(text).unwrap_or_default();
    }
    let mut found = BTreeMap::new();
    for (server, entry) in &file.auths {
        if let Some(credential) = plain(source, server, entry)? {
            found.insert(server.clone(), credential);
        }
    }
    if !file.store.is_empty() {
        let listed = helper(&file.store, "list", "").await?;
        let servers: BTreeMap<String, String> =
            serde_json::from_str(&listed).map_err(|error| SourceError::Helper {
                program: file.store.clone(),
                server: "all registries".to_owned(),
                why: error.to_string(),
            })?;
        for server in servers.keys() {
            found.insert(server.clone(), asked(source, &file.store, server).await?);
        }
    }
    for (server, program) in &file.helpers {
        found.insert(server.clone(), asked(source, program, server).await?);
    }
    Ok(found)
}

fn plain(source: &str, server: &str, entry: &AuthEntry) -> Result<Option<Credential>, SourceError> {
    let (username, password) = if entry.auth.is_empty() {
        (entry.username.clone(), entry.password.clone())
    } else {
        let bad = || SourceError::Invalid(format!("the `auth` of {server} is not base64 of user:password"));
        let bytes = BASE64_STANDARD
            .decode(entry.auth.trim())
            .or_else(|_| BASE64_URL_SAFE.decode(entry.auth.trim()))
            .map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        (user.to_owned(), password.trim_end_matches('\0').to_owned())
    };
    if username.is_empty() && password.is_empty() && entry.identitytoken.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential {
        username,
        password: SecretString::from(password),
        identity_token: (!entry.identitytoken.is_empty())
            .then(|| SecretString::from(entry.identitytoken.as_str())),
        server: server.to_owned(),
        source: source.to_owned(),
    }))
}

async fn asked(source: &str, program: &str, server: &str) -> Result<Credential, SourceError> {
    let text = helper(program, "get", server).await?;
    let answer: HelperAnswer = serde_json::from_str(&text).map_err(|_| SourceError::Helper {
        program: program.to_owned(),
        server: server.to_owned(),
        why: "its answer is not JSON with Username and Secret".to_owned(),
    })?;
    let secret = SecretString::from(answer.secret);
    // This name says that the secret is a token of the registry itself.
    let (username, password, identity_token) = if answer.username == "<token>" {
        (String::new(), SecretString::from(""), Some(secret))
    } else {
        (answer.username, secret, None)
    };
    Ok(Credential {
        username,
        password,
        identity_token,
        server: server.to_owned(),
        source: source.to_owned(),
    })
}

/// Runs a credential helper on this machine.
async fn helper(program: &str, action: &str, input: &str) -> Result<String, SourceError> {
    if program.contains(['/', '\\']) || program.contains("..") {
        return Err(SourceError::Path(program.to_owned()));
    }
    let failed = |why: String| SourceError::Helper {
        program: program.to_owned(),
        server: if input.is_empty() { "all registries".to_owned() } else { input.to_owned() },
        why,
    };
    let run = async {
        let mut child = tokio::process::Command::new(format!("docker-credential-{program}"))
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why in its own words.
            match stdin.write_all(input.as_bytes()).await {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(HELPER_TIMEOUT, run)
        .await
        .map_err(|_| failed(format!("it did not end within {HELPER_TIMEOUT:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        // Helpers complain on their standard output.
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(failed(format!("{}: {}", output.status, said.trim())));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

/// A key of `auths` as it is compared.
fn registry_key(key: &str) -> String {
    let path = match key.split_once("://") {
        Some(("http" | "https", rest)) => rest.split('/').next().unwrap_or_default(),
        Some(_) | None => {
            let key = key.trim_end_matches('/');
            let after = key.rfind('/').map(|slash| slash + 1);
            match after.and_then(|after| key[after..].find(':').map(|colon| after + colon)) {
                Some(colon) => &key[..colon],
                None => key,
            }
        }
    };
    lower_host(path)
}

/// An image as it is compared.
fn image_path(image: &str) -> String {
    let name = Reference::parse(image).name;
    let first = name.split('/').next().unwrap_or_default();
    let has_host = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_host { lower_host(name) } else { format!("{DEFAULT_REGISTRY}/{name}") }
}

fn lower_host(path: &str) -> String {
    let (host, rest) = match path.find('/') {
        Some(slash) => path.split_at(slash),
        None => (path, ""),
    };
    let host = host.to_ascii_lowercase();
    let host = if host == "index.docker.io" { DEFAULT_REGISTRY } else { &host };
    format!("{host}{rest}")
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    async fn found(config: &str, image: &str) -> Option<String> {
        let mut credentials = Credentials::default();
        credentials.read("$DOCKER_AUTH_CONFIG", config).await;
        assert_eq!(credentials.warnings, Vec::<String>::new());
        credentials.find(image).map(|credential| credential.username.clone())
    }

    #[test_case("reg.example.com/a/b:1", Some("deep"); "the longest path wins")]
    #[test_case("reg.example.com/a/c", Some("host"); "the host is enough")]
    #[test_case("REG.example.com/a/b@sha256:ab", Some("deep"); "a digest hides nothing")]
    #[test_case("ruby", Some("hub"); "no host")]
    #[test_case("other.example.com/a", None; "another host")]
    #[tokio::test]
    async fn an_image_gets_the_credential_of_its_longest_path(image: &str, user: Option<&str>) {
        let auth = |text: &str| BASE64_STANDARD.encode(text);
        let config = format!(
            r#"{{"auths": {{"reg.example.com": {{"auth": "{}"}}, "reg.example.com/a/b": {{"username": "deep", "password": "x"}},
                "https://index.docker.io/v1/": {{"auth": "{}"}}}}}}"#,
            auth("host:p:q?>"),
            auth("hub:x")
        );
        assert_eq!(found(&config, image).await.as_deref(), user);
    }

    #[tokio::test]
    async fn the_old_form_of_the_file_is_read() {
        assert_eq!(
            found(r#"{"r.example.com": {"username": "old", "password": "x"}}"#, "r.example.com/x").await,
            Some("old".to_owned())
        );
    }

    #[tokio::test]
    async fn an_earlier_source_wins_for_the_same_path() {
        let mut credentials = Credentials::default();
        credentials
            .read("first", r#"{"auths": {"r.example.com": {"username": "a", "password": "x"}}}"#)
            .await;
        credentials
            .read("second", r#"{"auths": {"R.example.com/": {"username": "b", "password": "x"}}}"#)
            .await;
        assert_eq!(credentials.find("r.example.com/i").unwrap().source, "first");
    }

    #[test_case("{not json", "no JSON"; "no json")]
    #[test_case(r#"{"auths": {"r": {"auth": "%%%"}}}"#, "not base64"; "no base64")]
    #[test_case(r#"{"credHelpers": {"r": "../bin/evil"}}"#, "path traversal is not allowed"; "a path")]
    #[test_case(r#"{"credHelpers": {"r": "no-such-helper"}}"#, "installed there"; "a missing helper")]
    #[tokio::test]
    async fn a_source_that_cannot_be_read_is_named_and_left_out(config: &str, why: &str) {
        let mut credentials = Credentials::default();
        credentials.read("$DOCKER_AUTH_CONFIG", config).await;
        assert!(credentials.warnings[0].contains(why), "{:?}", credentials.warnings);
        assert!(credentials.entries.is_empty());
    }
}
