//! Logging in.

use std::sync::Arc;

use connect_info::{ConnectInfo, ExposeSecret, SecretString};
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{MethodKind, MethodSet};

use crate::error::DialError;
use crate::link::Events;

/// What an instance is logged into with; read once, used for every connection.
pub(crate) struct Credentials {
    pub(crate) user: String,
    key: Option<Arc<PrivateKey>>,
    password: Option<SecretString>,
}

/// Why a login failed.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// The server took none of these.
    Refused(Vec<&'static str>),
    /// The connection broke meanwhile.
    Broken(russh::Error),
}

/// Questions that the server may ask in a row; a guard against one that asks for ever.
const MAX_PROMPTS: usize = 8;

// === impl Credentials ===

impl Credentials {
    /// Reads the credentials in `info`.
    pub(crate) fn read(info: &ConnectInfo) -> Result<Self, DialError> {
        let instance = &info.instance;
        let missing = |what| DialError::NoCredentials { instance: instance.clone(), what };
        let settings = &info.settings;
        let user =
            settings.username.clone().filter(|name| !name.is_empty()).ok_or_else(|| missing("username"))?;
        let key = match settings
            .key_pem
            .as_ref()
            .map(ExposeSecret::expose_secret)
            .filter(|pem| !pem.trim().is_empty())
        {
            Some(pem) => Some(Arc::new(read_key(instance, pem)?)),
            None => None,
        };
        let password = settings.password.clone().filter(|password| !password.expose_secret().is_empty());
        if key.is_none() && password.is_none() {
            return Err(missing("private key or password"));
        }
        Ok(Self { user, key, password })
    }

    /// Tries the key, the password, and the password as the answer to the server's questions, in this order; after the first
    /// refusal only what the server offers.
    pub(crate) async fn login(&self, handle: &mut Handle<Events>) -> Result<(), LoginError> {
        let mut tried = Vec::new();
        let mut offered: Option<MethodSet> = None;
        if let Some(key) = &self.key {
            tried.push("publickey");
            let hash = if key.algorithm().is_rsa() {
                handle.best_supported_rsa_hash().await?.flatten()
            } else {
                None
            };
            let key = PrivateKeyWithHashAlg::new(key.clone(), hash);
            match handle.authenticate_publickey(&self.user, key).await? {
                AuthResult::Success => return Ok(()),
                AuthResult::Failure { remaining_methods, .. } => offered = Some(remaining_methods),
            }
        }
        let Some(password) = &self.password else { return Err(LoginError::Refused(tried)) };
        if offers(offered.as_ref(), MethodKind::Password) {
            tried.push("password");
            match handle.authenticate_password(&self.user, password.expose_secret()).await? {
                AuthResult::Success => return Ok(()),
                AuthResult::Failure { remaining_methods, .. } => offered = Some(remaining_methods),
            }
        }
        if offers(offered.as_ref(), MethodKind::KeyboardInteractive) {
            tried.push("keyboard-interactive");
            if self.answer(handle, password).await? {
                return Ok(());
            }
        }
        Err(LoginError::Refused(tried))
    }

    /// Answers hidden prompts with the password. Servers with PAM often offer passwords only this way.
    async fn answer(
        &self,
        handle: &mut Handle<Events>,
        password: &SecretString,
    ) -> Result<bool, russh::Error> {
        let mut response = handle.authenticate_keyboard_interactive_start(&self.user, None).await?;
        for _ in 0..MAX_PROMPTS {
            match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let answers =
                        prompts
                            .iter()
                            .map(|prompt| {
                                if prompt.echo { String::new() } else { password.expose_secret().to_owned() }
                            })
                            .collect();
                    response = handle.authenticate_keyboard_interactive_respond(answers).await?;
                }
            }
        }
        Ok(false)
    }
}

// === impl LoginError ===

impl From<russh::Error> for LoginError {
    fn from(error: russh::Error) -> Self {
        Self::Broken(error)
    }
}

/// True if the server offers `method`, or has not said yet what it offers.
fn offers(offered: Option<&MethodSet>, method: MethodKind) -> bool {
    offered.is_none_or(|methods| methods.contains(&method))
}

fn read_key(instance: &str, pem: &str) -> Result<PrivateKey, DialError> {
    let instance = instance.to_owned();
    // The parser below takes these for damaged keys.
    if ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| pem.contains(mark))
    {
        return Err(DialError::KeyEncrypted { instance });
    }
    match decode_secret_key(pem, None) {
        Ok(key) if key.is_encrypted() => Err(DialError::KeyEncrypted { instance }),
        Ok(key) => Ok(key),
        Err(russh::keys::Error::KeyIsEncrypted) => Err(DialError::KeyEncrypted { instance }),
        Err(source) => Err(DialError::KeyUnreadable { instance, source: source.into() }),
    }
}
