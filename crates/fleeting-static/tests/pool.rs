//! The pool of machines, and the provider contract.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use drover_fleeting_static::StaticGroup;
use fleeting::conformance::{self, Harness, Verdict};
use fleeting::{
    ConnectorSettings, ExposeSecret, GroupError, HeartbeatError, InstanceGroup, InstanceId, SecretString,
    Severity,
};
use serde_json::json;

fn group() -> StaticGroup {
    StaticGroup::from_plugin_config(&json!({ "instances": {
        "c": { "internal_addr": "10.0.0.3", "username": "ci" },
        "a": { "internal_addr": "10.0.0.1:2222", "username": "ci" },
        "b": { "external_addr": "192.0.2.2", "username": "ci" },
    } }))
    .unwrap()
}

async fn listed(group: &StaticGroup) -> Vec<String> {
    group.update().await.unwrap().into_iter().map(|seen| seen.id.to_string()).collect()
}

fn ids(names: &[&'static str]) -> Vec<InstanceId> {
    names.iter().copied().map(InstanceId::from).collect()
}

#[tokio::test]
async fn machines_are_taken_by_name_and_returned_to_the_pool() {
    let group = group();
    assert_eq!(group.init(&ConnectorSettings::default()).await.unwrap().max_size, 3);
    assert_eq!(listed(&group).await, Vec::<String>::new());

    group.increase(2).await;
    assert_eq!(listed(&group).await, ["a#1", "b#1"]);
    group.decrease(&ids(&["a#1"])).await;
    group.increase(1).await;
    assert_eq!(listed(&group).await, ["a#2", "b#1"]);
    // The first time of use is over; the second is another instance.
    assert_eq!(group.decrease(&ids(&["a#1"])).await.error, None);
    assert_eq!(listed(&group).await, ["a#2", "b#1"]);

    let answer = group.increase(5).await;
    assert_eq!(answer.done, 1);
    assert!(matches!(answer.error, Some(GroupError::LimitReached { .. })));
}

#[tokio::test]
async fn machines_that_are_not_in_use_cannot_be_reached_or_returned() {
    let group = group();
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(1).await;
    for unknown in ["a", "a#0", "a#2", "b#1", "x#1", "#", "a#x"] {
        let answer = group.decrease(&ids(&[unknown])).await;
        assert!(matches!(answer.error, Some(GroupError::NotFound { .. })), "{unknown}");
        assert!(group.connect_info(&unknown.into()).await.is_err(), "{unknown}");
    }
    assert_eq!(listed(&group).await, ["a#1"]);
}

#[tokio::test]
async fn settings_of_a_machine_go_before_those_of_the_connector() {
    let dir = tempfile::tempdir().unwrap();
    let key = write_key(dir.path(), 0o600);
    let group = StaticGroup::from_plugin_config(&json!({ "instances": {
        "a": { "internal_addr": "10.0.0.1", "username": "me", "timeout": "5s", "host_key": "SHA256:a", "key_path": key },
        "b": { "internal_addr": "10.0.0.2", "password": "own" },
    } }))
    .unwrap();
    let settings = ConnectorSettings {
        username: Some("all".into()),
        password: Some(SecretString::from("shared")),
        timeout: Some(Duration::from_secs(60)),
        ..ConnectorSettings::default()
    };
    group.init(&settings).await.unwrap();
    group.increase(2).await;

    let a = group.connect_info(&"a#1".into()).await.unwrap();
    assert_eq!((a.instance.as_str(), a.internal_addr.as_deref()), ("a#1", Some("10.0.0.1")));
    assert_eq!(a.settings.username.as_deref(), Some("me"));
    assert_eq!(a.settings.timeout, Some(Duration::from_secs(5)));
    assert_eq!(a.settings.host_key.as_deref(), Some("SHA256:a"));
    assert!(a.settings.key_pem.unwrap().expose_secret().contains("PRIVATE KEY"));
    assert_eq!(a.settings.password.unwrap().expose_secret(), "shared");
    let b = group.connect_info(&"b#1".into()).await.unwrap().settings;
    assert_eq!((b.username.as_deref(), b.timeout), (Some("all"), Some(Duration::from_secs(60))));
    assert_eq!(b.password.unwrap().expose_secret(), "own");
    assert!(b.key_pem.is_none());
}

#[tokio::test]
async fn machines_that_do_not_answer_are_found() {
    use tokio::io::AsyncWriteExt as _;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut visitor, _) = server.accept().await.unwrap();
        visitor.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    });
    let group = StaticGroup::from_plugin_config(&json!({ "instances": {
        "here": { "internal_addr": "127.0.0.1", "protocol_port": address.port() },
        "nowhere": { "internal_addr": "127.0.0.1:1", "username": "ci" },
    } }))
    .unwrap();
    let findings = group.diagnose().await;
    let severities: Vec<_> =
        findings.iter().map(|finding| (finding.check.as_str(), finding.severity)).collect();
    assert_eq!(
        severities,
        [("static/machine/here", Severity::Good), ("static/machine/nowhere", Severity::Error)]
    );
    assert!(findings[1].repair.contains("ssh -v -p 1 ci@127.0.0.1"), "{:?}", findings[1]);
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_unhealthy() {
    let pool = Pool::start().await;
    let group = StaticGroup::from_plugin_config(&json!({ "instances": {
        "here": { "internal_addr": "127.0.0.1", "protocol_port": pool.port },
        "nowhere": { "internal_addr": "127.0.0.1:1" },
    } }))
    .unwrap();
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(2).await;
    assert_eq!(group.heartbeat(&"here#1".into()).await, Ok(()));
    let Err(HeartbeatError::Unhealthy(why)) = group.heartbeat(&"nowhere#1".into()).await else { panic!() };
    assert!(why.starts_with("machine `nowhere` does not answer: "), "{why}");
}

#[tokio::test]
async fn key_files_that_are_missing_public_or_no_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let init = async |path: &Path| {
        let machine = json!({ "internal_addr": "h", "key_path": path });
        let group = StaticGroup::from_plugin_config(&json!({ "instances": { "a": machine } })).unwrap();
        group.init(&ConnectorSettings::default()).await.map_err(|error| error.to_string())
    };
    assert!(init(&write_key(dir.path(), 0o600)).await.is_ok());
    assert!(init(&write_key(dir.path(), 0o640)).await.is_ok(), "a group may share a key");
    let public = init(&write_key(dir.path(), 0o644)).await.unwrap_err();
    assert!(
        public.contains("is open to all users of this machine (mode 0644); run `chmod 600` on it"),
        "{public}"
    );
    assert!(public.contains("plugin_config.instances.a.key_path"), "{public}");
    let missing = init(&dir.path().join("nowhere")).await.unwrap_err();
    assert!(missing.contains("nowhere") && missing.contains("cannot be read"), "{missing}");
    let text = dir.path().join("text");
    std::fs::write(&text, "hello").unwrap();
    std::fs::set_permissions(&text, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(init(&text).await.unwrap_err().contains("holds no private key"));
}

fn write_key(dir: &Path, mode: u32) -> std::path::PathBuf {
    let path = dir.join("key");
    std::fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n")
        .unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

/// Machines at which a greeting is all that there is.
struct Pool {
    port: u16,
}

impl Pool {
    async fn start() -> Self {
        use tokio::io::AsyncWriteExt as _;
        let server = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut visitor, _) = server.accept().await.unwrap();
                // Whoever is gone needs no greeting.
                let _ = visitor.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            }
        });
        Self { port }
    }
}

#[async_trait]
impl Harness for Pool {
    type Group = StaticGroup;

    async fn group(&self) -> StaticGroup {
        let machine =
            |address: &str| json!({ "internal_addr": address, "protocol_port": self.port, "username": "ci" });
        let machines =
            json!({ "a": machine("127.0.0.1"), "b": machine("127.0.0.2"), "c": machine("127.0.0.3") });
        StaticGroup::from_plugin_config(&json!({ "instances": machines })).unwrap()
    }

    async fn pause(&self, _: &StaticGroup) {}

    fn can_be_filled(&self) -> bool {
        true
    }

    async fn existing(&self, group: &StaticGroup) -> Option<BTreeSet<InstanceId>> {
        Some(group.update().await.unwrap().into_iter().map(|seen| seen.id).collect())
    }
}

#[tokio::test]
async fn static_machines_keep_the_contract() {
    let verdicts = conformance::run(&Pool::start().await).await.unwrap();
    assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Kept), "{verdicts:?}");
}
