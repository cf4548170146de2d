//! How an instance is reached: address, system, login.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fleeting::{
    ConnectInfo, ConnectorSettings, GroupError, InstanceId, Os, Protocol, Renewal, RenewalError, SecretString,
};

use crate::clients::Clients;
use crate::error::classify;
use crate::keys::{Login, can_decrypt, decrypt};
use crate::state::Details;

/// How long EC2 Instance Connect has an instance accept a key.
const KEY_LIFE: Duration = Duration::from_secs(60);

/// How long a key that cannot be pushed is taken for known to the instance, before pushing is tried again.
const WITHOUT_PUSH: Duration = Duration::from_secs(3600);

/// Between two questions for a Windows password.
const PASSWORD_INTERVAL: Duration = Duration::from_secs(5);

/// The settings that the user fixed, completed by what EC2 says of the instance.
pub(crate) fn settings(fixed: &ConnectorSettings, details: &Details) -> ConnectorSettings {
    let mut settings = fixed.clone();
    let os = *settings.os.get_or_insert(details.os);
    settings.arch.get_or_insert_with(|| details.arch.to_owned());
    if settings.username.as_deref().unwrap_or_default().is_empty() {
        let user = match os {
            Os::Linux | Os::Darwin => "ec2-user",
            Os::Windows => "Administrator",
        };
        settings.username = Some(user.to_owned());
    }
    settings
}

/// Everything to dial an instance, without the addresses' credentials.
pub(crate) fn addressed(id: &InstanceId, fixed: &ConnectorSettings, details: &Details) -> ConnectInfo {
    let mut info = ConnectInfo::new(id.as_str(), settings(fixed, details));
    info.internal_addr.clone_from(&details.private);
    info.external_addr.clone_from(&details.public);
    info
}

/// Lets a key in by EC2 Instance Connect.
pub(crate) struct Pusher {
    clients: Arc<Clients>,
    login: Arc<Login>,
    /// That keys cannot be pushed was said.
    said: Mutex<bool>,
}

// === impl Pusher ===

impl Pusher {
    pub(crate) fn new(clients: Arc<Clients>, login: Arc<Login>) -> Self {
        Self { clients, login, said: Mutex::new(false) }
    }

    /// Gives the connection info the key, and has it pushed right before each login: a pushed key lives for a minute.
    /// With `best_effort` the instance may well accept the key without being told.
    pub(crate) fn equip(self: &Arc<Self>, info: &mut ConnectInfo, zone: &str, best_effort: bool) {
        info.settings.key_pem = Some(self.login.key_pem.clone());
        let user = info.settings.username.clone().unwrap_or_default();
        let (pusher, instance, zone) = (self.clone(), info.instance.clone(), zone.to_owned());
        info.expires = Some(SystemTime::UNIX_EPOCH);
        info.renewal = Some(Renewal::new(move || {
            let (pusher, instance, zone, user) =
                (pusher.clone(), instance.clone(), zone.clone(), user.clone());
            async move { pusher.push(&instance, &zone, &user, best_effort).await }
        }));
    }

    async fn push(
        &self,
        instance: &str,
        zone: &str,
        user: &str,
        best_effort: bool,
    ) -> Result<SystemTime, RenewalError> {
        const ACTION: &str = "ec2-instance-connect:SendSSHPublicKey";
        let asked = SystemTime::now();
        let answer = self
            .clients
            .instance_connect
            .send_ssh_public_key()
            .instance_id(instance)
            .instance_os_user(user)
            .ssh_public_key(&self.login.public)
            .availability_zone(zone)
            .send()
            .await;
        let Err(error) = answer else { return Ok(asked + KEY_LIFE) };
        let error = classify(ACTION, &error);
        if let GroupError::NotFound { what } = error {
            return Err(RenewalError::Gone(what));
        }
        if !(best_effort && error.needs_operator()) {
            return Err(RenewalError::Failed(error.to_string()));
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *said, true) {
            tracing::info!(%error, "key_path or password is used without EC2 Instance Connect");
        }
        Ok(asked + WITHOUT_PUSH)
    }
}

/// The password of a Windows instance, where one is needed: asked for until it is there.
///
/// EC2 has it some minutes after the first boot. Where SSH may do with the key alone, it is asked for once.
pub(crate) async fn windows_password(
    clients: &Clients,
    info: &ConnectInfo,
    id: &InstanceId,
) -> Result<Option<SecretString>, GroupError> {
    let ssh = match info.settings.protocol() {
        Protocol::Ssh => true,
        Protocol::Winrm | Protocol::WinrmHttps => false,
    };
    let Some(key) = info.settings.key_pem.as_ref().filter(|key| ssh || can_decrypt(key)) else {
        let message = "Windows instances need connector_config.password, or key_path with the RSA private key of the \
                       launch template's key pair";
        return Err(GroupError::Configuration { message: message.to_owned() });
    };
    if ssh && !can_decrypt(key) {
        return Ok(None);
    }
    loop {
        let answer = clients.ec2.get_password_data().instance_id(id.as_str()).send().await;
        let data = match answer {
            Ok(answer) => answer.password_data.unwrap_or_default(),
            Err(_) if ssh => return Ok(None),
            Err(error) => return Err(classify("ec2:GetPasswordData", &error)),
        };
        if !data.trim().is_empty() {
            return match decrypt(key, data.trim()) {
                Ok(password) => Ok(Some(password)),
                Err(_) if ssh => Ok(None),
                Err(message) => Err(GroupError::Configuration { message }),
            };
        }
        if ssh {
            return Ok(None);
        }
        tracing::debug!(instance = %id, "the password is not there yet");
        tokio::time::sleep(PASSWORD_INTERVAL).await;
    }
}
