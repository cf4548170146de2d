//! EC2 Instance Connect: a key is let in for a while.

use serde_json::{Value, json};

use crate::fault::ErrorAnswer;
use crate::mock::Inner;
use crate::server::unknown;

pub(crate) async fn send_ssh_public_key(
    inner: &Inner,
    action: &str,
    body: &[u8],
) -> Result<Value, ErrorAnswer> {
    if action != "SendSSHPublicKey" {
        return Err(unknown(action));
    }
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| asked.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (id, user, key) = (text("InstanceId"), text("InstanceOSUser"), text("SSHPublicKey"));
    let state = inner.look(|world| world.instances.get(&id).map(|instance| instance.stage.ec2().0));
    match state {
        None => {
            return Err(ErrorAnswer::new("EC2InstanceNotFoundException", "Instance not found"));
        }
        Some("running") => {}
        Some(_) => {
            return Err(ErrorAnswer::new(
                "EC2InstanceStateInvalidException",
                "Instance is not in a valid state. Only instances in the following states are supported: running.",
            ));
        }
    }
    if !key.starts_with("ssh-ed25519 ") && !key.starts_with("ssh-rsa ") {
        return Err(ErrorAnswer::new("InvalidArgsException", "Invalid SSH public key"));
    }
    inner.options.backend.authorize_key(&id, &user, &key).await;
    let (backend, life) = (inner.options.backend.clone(), inner.options.key_life);
    tokio::spawn(async move {
        tokio::time::sleep(life).await;
        backend.revoke_keys(&id).await;
    });
    Ok(json!({ "RequestId": "00000000-0000-4000-8000-000000000000", "Success": true }))
}
