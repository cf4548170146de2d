//! Rules about files that the configuration names. These read the file system.

use std::path::{Path, PathBuf};

use super::Findings;
use crate::diagnostic::Diagnostic;
use crate::model::Config;
use crate::read::KeyPath;

/// What a file is for.
#[derive(Clone, Copy)]
enum Purpose {
    /// A private key: must be there, and must not be readable by others.
    Key,
    /// Needed.
    Needed,
    /// Left out when it is not there.
    Optional,
}

/// Looks at every file that the configuration names. Relative paths are taken from `base`.
pub(crate) fn check_files(config: &Config, base: &Path) -> Vec<Diagnostic> {
    let mut findings = Findings::default();
    for (index, runner) in config.runners.iter().enumerate() {
        let at = KeyPath::default().key("runners").index(index);
        let mut look = |at: &KeyPath, path: Option<&str>, purpose: Purpose| {
            if let Some(path) = path {
                file(at, &base.join(path), path, purpose, &mut findings);
            }
        };
        look(&at.key("tls-ca-file"), runner.tls_ca_file.as_deref(), Purpose::Optional);
        look(&at.key("tls-cert-file"), runner.tls_cert_file.as_deref(), Purpose::Needed);
        look(&at.key("tls-key-file"), runner.tls_key_file.as_deref(), Purpose::Key);
        if let Some(autoscaler) = &runner.autoscaler {
            let at = at.key("autoscaler");
            if let Some(connector) = &autoscaler.connector_config {
                look(
                    &at.key("connector_config").key("key_path"),
                    connector.key_path.as_deref(),
                    Purpose::Key,
                );
            }
            if let Some(connector) =
                autoscaler.vm_isolation.as_ref().and_then(|isolation| isolation.connector_config.as_ref())
            {
                let at = at.key("vm_isolation").key("connector_config").key("key_path");
                look(&at, connector.key_path.as_deref(), Purpose::Key);
            }
        }
        if let Some(ssh) = &runner.ssh {
            look(&at.key("ssh").key("identity_file"), ssh.identity_file.as_deref(), Purpose::Key);
        }
        if let Some(gcs) = runner.cache.as_ref().and_then(|cache| cache.gcs.as_ref()) {
            let at = at.key("cache").key("gcs").key("CredentialsFile");
            look(&at, gcs.credentials_file.as_deref(), Purpose::Needed);
        }
    }
    findings.into_vec()
}

/// A file with tokens should be for its owner alone.
pub(crate) fn check_own(path: &Path) -> Option<Diagnostic> {
    let mut findings = Findings::default();
    let mode = mode(path)?;
    if mode & 0o077 != 0 {
        findings.warning(
            "permissions",
            &KeyPath::default(),
            format!("`{}` holds tokens, but its mode {:03o} lets others at it", path.display(), mode & 0o777),
            "run: chmod 600 on the file",
        );
    }
    findings.into_vec().pop()
}

fn file(at: &KeyPath, path: &PathBuf, written: &str, purpose: Purpose, findings: &mut Findings) {
    let problem = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => match std::fs::File::open(path) {
            Ok(_) => None,
            Err(error) => Some(format!("`{written}` cannot be read: {error}")),
        },
        Ok(_) => Some(format!("`{written}` is not a file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("`{written}` does not exist"))
        }
        Err(error) => Some(format!("`{written}` cannot be looked at: {error}")),
    };
    match (problem, purpose) {
        (Some(problem), Purpose::Key | Purpose::Needed) => {
            findings.error(
                "file",
                at,
                problem,
                "a relative path starts at the folder of the configuration file",
            );
        }
        (Some(problem), Purpose::Optional) => {
            findings.warning(
                "file",
                at,
                format!("{problem}; it is left out"),
                "correct the path, or remove the key",
            );
        }
        (None, Purpose::Key) => {
            if let Some(mode) = mode(path).filter(|mode| mode & 0o077 != 0) {
                let message =
                    format!("private key `{written}` has mode {:03o}: others can read it", mode & 0o777);
                findings.warning("permissions", at, message, "run: chmod 600 on the file");
            }
        }
        (None, Purpose::Needed | Purpose::Optional) => {}
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).ok().map(|found| found.permissions().mode())
}

#[cfg(not(unix))]
fn mode(_path: &Path) -> Option<u32> {
    None
}
