//! Reaching instances: real OpenSSH servers behind the cloud's instances, logged in to by the connector.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, Pkcs1PublicEncryptingKey, PrivateDecryptingKey};
use aws_mock::{Fault, InstanceBackend, Options};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connector::{DialError, DialOptions, dial};
use fleeting::{ConnectorSettings, ExposeSecret as _, GroupError, InstanceGroup, Os, Protocol, RenewalError};
use tempfile::TempDir;

use crate::common::{Cloud, running, until};
use crate::ports::free_port;

/// Each instance is an OpenSSH server that lets in what was pushed.
#[derive(Default)]
struct Servers(Mutex<BTreeMap<String, Server>>);

struct Server {
    folder: TempDir,
    process: Child,
}

impl Server {
    fn start() -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("host");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host).status();
        assert!(made.unwrap().success(), "tests need ssh-keygen (Debian: openssh-client)");
        std::fs::write(folder.path().join("keys"), "").unwrap();
        let port = free_port();
        let at = folder.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/keys\n\
             StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\n"
        );
        std::fs::write(folder.path().join("config"), config).unwrap();
        let _ = std::fs::create_dir_all("/run/sshd");
        let process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(folder.path().join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tests need OpenSSH's sshd (Debian: openssh-server)");
        (Self { folder, process }, format!("127.0.0.1:{port}"))
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[async_trait]
impl InstanceBackend for Servers {
    async fn start(&self, instance: &str) -> Option<String> {
        let (server, address) = Server::start();
        self.0.lock().unwrap().insert(instance.to_owned(), server);
        Some(address)
    }

    async fn stop(&self, instance: &str) {
        self.0.lock().unwrap().remove(instance);
    }

    async fn authorize_key(&self, instance: &str, _: &str, public_key: &str) {
        if let Some(server) = self.0.lock().unwrap().get(instance) {
            std::fs::write(server.keys(), format!("{public_key}\n")).unwrap();
        }
    }

    async fn revoke_keys(&self, instance: &str) {
        if let Some(server) = self.0.lock().unwrap().get(instance) {
            std::fs::write(server.keys(), "").unwrap();
        }
    }
}

fn settings() -> ConnectorSettings {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    ConnectorSettings {
        username: Some(me),
        timeout: Some(Duration::from_secs(60)),
        ..ConnectorSettings::default()
    }
}

async fn with_servers() -> (Cloud, drover_fleeting_aws::AwsGroup) {
    let options = Options {
        backend: Arc::new(Servers::default()),
        key_life: Duration::from_secs(3600),
        ..Options::default()
    };
    let cloud = Cloud::new(options).await;
    let group = cloud.build_with(&settings()).await;
    (cloud, group)
}

#[tokio::test]
async fn a_fresh_key_is_let_in_right_before_the_login() {
    let (cloud, group) = with_servers().await;
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    let info = group.connect_info(&id).await.unwrap();
    assert_eq!(cloud.aws.calls_of("SendSSHPublicKey"), 0);
    let client = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(cloud.aws.calls_of("SendSSHPublicKey"), 1);
    drop(client);
    // The information may be kept: each later login has the key let in again once the minute is over.
    dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(cloud.aws.calls_of("SendSSHPublicKey"), 2);
}

#[tokio::test]
async fn a_password_leaves_the_key_its_way_in_and_is_enough_without_it() {
    let (cloud, group) = with_servers().await;
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    let fixed = ConnectorSettings { password: Some("not the login's".into()), ..settings() };
    let group = cloud.build_with(&fixed).await;
    group.update().await.unwrap();
    let info = group.connect_info(&id).await.unwrap();
    dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(cloud.aws.calls_of("SendSSHPublicKey"), 1);
    // Without the permission the password is all that there is, and no error.
    cloud.aws.fail("SendSSHPublicKey", Fault::AccessDenied, None);
    let group = cloud.build_with(&fixed).await;
    group.update().await.unwrap();
    let mut info = group.connect_info(&id).await.unwrap();
    info.settings.timeout = Some(Duration::from_secs(3));
    let error = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("Authentication") && !text.contains("the IAM policy lacks"), "{text}");
}

#[tokio::test]
async fn a_terminated_instance_is_given_up_at_once() {
    let (cloud, group) = with_servers().await;
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    let info = group.connect_info(&id).await.unwrap();
    // The group's picture is old, and another machine answers at the address.
    let (server, address) = Server::start();
    let info = fleeting::ConnectInfo { internal_addr: Some(address), ..info };
    cloud.aws.terminate(id.as_str(), "an instance was taken out of service in response to a user request.");
    let error = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap_err();
    let DialError::Renewal { source: RenewalError::Gone(why), .. } = &error else { panic!("{error:?}") };
    assert!(
        why.contains("ec2-instance-connect:SendSSHPublicKey: Instance is not in a valid state"),
        "in the words of AWS: {why}"
    );
    drop(server);
    until(&group, "it is gone", |listing| listing.iter().all(|line| line.id != id)).await;
    assert!(matches!(group.connect_info(&id).await, Err(GroupError::NotFound { .. })));
}

#[tokio::test]
async fn a_push_that_is_forbidden_names_the_permission() {
    let (cloud, group) = with_servers().await;
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    cloud.aws.fail("SendSSHPublicKey", Fault::AccessDenied, None);
    let mut info = group.connect_info(&id).await.unwrap();
    info.settings.timeout = Some(Duration::from_secs(3));
    let error = dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("the IAM policy lacks ec2-instance-connect:SendSSHPublicKey"), "{text}");
}

#[tokio::test]
async fn system_and_login_are_those_of_the_image_unless_fixed() {
    for (architecture, windows, os, arch, user) in [
        ("x86_64", false, Os::Linux, "amd64", "ec2-user"),
        ("arm64", false, Os::Linux, "arm64", "ec2-user"),
        ("arm64_mac", false, Os::Darwin, "arm64", "ec2-user"),
        ("x86_64", true, Os::Windows, "amd64", "Administrator"),
    ] {
        let cloud = Cloud::new(Options::default()).await;
        cloud.aws.change_group("build", |group| {
            group.architecture = architecture.to_owned();
            group.windows = windows;
        });
        let fixed = ConnectorSettings { use_static_credentials: true, ..ConnectorSettings::default() };
        let group = cloud.build_with(&fixed).await;
        group.increase(1).await;
        let id = running(&group, 1).await.remove(0);
        let info = group.connect_info(&id).await.unwrap();
        assert_eq!(info.settings.os, Some(os));
        assert_eq!(info.settings.arch.as_deref(), Some(arch));
        assert_eq!(info.settings.username.as_deref(), Some(user));
        assert!(info.external_addr.is_some() && info.internal_addr.is_some());
        assert!(info.settings.key_pem.is_none() && info.renewal.is_none());
    }
}

#[tokio::test]
async fn a_windows_instance_without_a_way_to_log_in_says_what_to_configure() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.windows = true);
    let group = cloud.build().await;
    group.increase(1).await;
    let id = running(&group, 1).await.remove(0);
    let error = group.connect_info(&id).await.unwrap_err();
    assert!(error.to_string().contains("connector_config.password, or key_path"), "{error}");
    assert!(error.needs_operator());
    let fixed = ConnectorSettings {
        password: Some("secret".into()),
        protocol: Some(Protocol::Ssh),
        ..ConnectorSettings::default()
    };
    let group = cloud.build_with(&fixed).await;
    group.update().await.unwrap();
    let info = group.connect_info(&id).await.unwrap();
    assert!(info.settings.password.is_some() && info.settings.key_pem.is_none());
}

#[tokio::test]
async fn the_password_that_ec2_generated_is_decrypted_with_the_launch_key() {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public = Pkcs1PublicEncryptingKey::new(key.public_key()).unwrap();
    let mut room = vec![0; public.ciphertext_size()];
    let data = STANDARD.encode(&*public.encrypt(b"P@ss w0rd", &mut room).unwrap());
    let der = AsDer::<Pkcs8V1Der>::as_der(&key).unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );

    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| {
        group.windows = true;
        group.password_data = Some(data);
    });
    for protocol in [Protocol::WinrmHttps, Protocol::Ssh] {
        let fixed = ConnectorSettings {
            key_pem: Some(pem.clone().into()),
            protocol: Some(protocol),
            ..ConnectorSettings::default()
        };
        let group = cloud.build_with(&fixed).await;
        if cloud.aws.desired("build") == 0 {
            group.increase(1).await;
        }
        let id = running(&group, 1).await.remove(0);
        let info = group.connect_info(&id).await.unwrap();
        assert_eq!(info.settings.password.unwrap().expose_secret(), "P@ss w0rd");
        assert!(info.settings.key_pem.is_some());
    }
}
