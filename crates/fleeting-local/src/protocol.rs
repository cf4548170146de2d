//! What the group and the process of an instance say to each other: one line of JSON each way. After that, the
//! instance lives for as long as its standard input stays open.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// First line on the standard input of an instance. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    /// Name of the instance; also the mark in the environment of what runs on it.
    pub(crate) id: String,
    /// Its directory: exists, and is removed by the instance at its end.
    pub(crate) dir: PathBuf,
    /// A directory to remove as well if it is empty then and the manager is dead.
    pub(crate) parent: Option<PathBuf>,
    /// The only login name.
    pub(crate) username: String,
    /// The only key that may log in, in OpenSSH's public form.
    pub(crate) authorized_key: String,
    /// Shell for commands.
    pub(crate) shell: PathBuf,
}

/// First line of JSON on the standard output of an instance: it takes connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// Fingerprint of the host key, `SHA256:...`.
    pub(crate) host_key: String,
}
