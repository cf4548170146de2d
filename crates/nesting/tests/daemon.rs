//! The client against a daemon that speaks the real protocol.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drover_nesting::{Call, Client, Error, Options};
use nesting_mock::{Fault, NestingMock, Nothing, Options as DaemonOptions};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

struct Host {
    daemon: NestingMock,
    folder: TempDir,
}

impl Host {
    fn start(options: DaemonOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let daemon = NestingMock::start(&socket(&folder), Arc::new(Nothing), options).unwrap();
        Self { daemon, folder }
    }

    async fn client(&self) -> Client {
        let settings = r#"{"working_directory":"/tmp"}"#.into();
        self.with(Options { config: settings, ..Options::default() }).await
    }

    async fn with(&self, options: Options) -> Client {
        let stream = UnixStream::connect(socket(&self.folder)).await.unwrap();
        Client::connect(stream, options).await.unwrap()
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("with a space.sock")
}

#[tokio::test]
async fn a_machine_is_made_listed_and_removed() {
    let host = Host::start(DaemonOptions::default());
    let client = host.client().await;
    let created = client.create("macos", Some(1)).await.unwrap();
    assert_eq!((created.machine.name.as_str(), created.machine.addr.as_str()), ("macos", "192.0.2.1"));
    assert_eq!(created.stomped, None);
    assert_eq!(client.list().await.unwrap(), std::slice::from_ref(&created.machine));
    assert_eq!(host.daemon.machines()[0].slot, Some(1));
    client.delete(&created.machine.id).await.unwrap();
    assert_eq!(client.list().await.unwrap(), []);
    let error = client.delete("vm9").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the nesting daemon failed to delete a virtual machine: no vm (vm9) found (Unknown)"
    );
}

#[tokio::test]
async fn a_slot_that_is_taken_is_taken_over() {
    let host = Host::start(DaemonOptions::default());
    let client = host.client().await;
    let first = client.create("macos", Some(0)).await.unwrap();
    let second = client.create("macos", Some(0)).await.unwrap();
    assert_eq!(second.stomped, Some(first.machine.id));
    assert_eq!(client.list().await.unwrap(), [second.machine]);
}

#[tokio::test]
async fn settings_are_handed_over_once_and_only_where_they_are_needed() {
    let host = Host::start(DaemonOptions::default());
    let client = host.client().await;
    assert!(matches!(client.look().await, Err(Error::NotInitialized)));
    assert_eq!(host.daemon.calls_of("Init"), 0, "who only looks leaves the daemon as it is");
    client.list().await.unwrap();
    client.list().await.unwrap();
    assert_eq!(host.daemon.settings(), [r#"{"working_directory":"/tmp"}"#]);
    assert_eq!(client.look().await.unwrap(), []);
    assert!(matches!(client.init().await, Err(Error::AlreadyInitialized)));
    client.shutdown().await.unwrap();
    client.list().await.unwrap();
    assert_eq!(host.daemon.settings().len(), 2, "a daemon that was shut down needs them again");
}

#[tokio::test]
async fn settings_that_the_daemon_does_not_take_are_named_as_the_cause() {
    let host = Host::start(DaemonOptions::default());
    host.daemon.fault("Init", Fault::Fail("no such folder".to_owned()), 1);
    let error = host.client().await.list().await.unwrap_err();
    let Error::Init(source) = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the nesting daemon failed to initialize: no such folder (Unknown)");
}

#[tokio::test]
async fn a_daemon_that_knows_no_slots_is_understood() {
    let host = Host::start(DaemonOptions { without_slots: true, ..DaemonOptions::default() });
    let client = host.client().await;
    let created = client.create("macos", Some(0)).await.unwrap();
    assert_eq!((created.machine.id.as_str(), created.machine.addr.as_str()), ("vm1", "192.0.2.1"));
    assert_eq!(created.stomped, None);
    client.delete("vm1").await.unwrap();
}

#[tokio::test]
async fn what_the_daemon_refuses_is_told_in_its_words() {
    let host = Host::start(DaemonOptions::default());
    host.daemon.fault("Create", Fault::Fail("image not found: macos-99".to_owned()), 1);
    let error = host.client().await.create("macos-99", Some(0)).await.unwrap_err();
    assert!(error.is_refusal());
    assert_eq!(
        error.to_string(),
        "the nesting daemon failed to create a virtual machine: image not found: macos-99 (Unknown)"
    );
}

#[tokio::test]
async fn a_daemon_that_goes_away_is_no_refusal() {
    let host = Host::start(DaemonOptions::default());
    let client = host.client().await;
    client.list().await.unwrap();
    host.daemon.fault("Create", Fault::Cut, 1);
    let error = client.create("macos", Some(0)).await.unwrap_err();
    assert!(matches!(&error, Error::Lost { call: Call::Create, .. }) && !error.is_refusal(), "{error:?}");
    let error = client.list().await.unwrap_err();
    assert!(matches!(&error, Error::Lost { call: Call::List, .. }), "{error:?}");
    // It is there for who connects anew.
    host.client().await.list().await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_not_waited_for_without_end() {
    let host = Host::start(DaemonOptions { initialized: true, ..DaemonOptions::default() });
    let short = Duration::from_millis(50);
    let client = host.with(Options { patience: short, create_patience: short, ..Options::default() }).await;
    for method in ["List", "Create"] {
        host.daemon.fault(method, Fault::Hold, 1);
    }
    let error = client.list().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { call: Call::List, after } if after == short), "{error:?}");
    let error = client.create("macos", None).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { call: Call::Create, .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_daemon_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket(&folder)).unwrap();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        stream
    });
    let stream = UnixStream::connect(socket(&folder)).await.unwrap();
    let asked = async { Client::connect(stream, Options::default()).await?.list().await };
    let error = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Connect(_) | Error::Lost { .. }), "{error:?}");
    drop(other);
}

#[tokio::test]
async fn a_machine_without_an_address_hides_the_others_and_is_named() {
    let host = Host::start(DaemonOptions { initialized: true, ..DaemonOptions::default() });
    host.daemon.plant_stopped("vm8");
    let client = host.client().await;
    let error = client.list().await.unwrap_err();
    assert_eq!(error.without_address(), Some("vm8"));
    assert!(error.to_string().ends_with("is your virtual machine running?) (Unknown)"), "{error}");
    client.delete("vm8").await.unwrap();
    assert_eq!(client.list().await.unwrap(), []);
    let other = client.delete("vm8").await.unwrap_err();
    assert_eq!(other.without_address(), None);
}

#[tokio::test]
async fn a_slot_whose_machine_is_gone_is_told_apart() {
    let host = Host::start(DaemonOptions::default());
    let client = host.client().await;
    let first = client.create("macos", Some(0)).await.unwrap();
    assert!(host.daemon.vanish(&first.machine.id));
    let error = client.create("macos", Some(0)).await.unwrap_err();
    assert!(error.is_of_slot() && error.is_refusal(), "{error:?}");
    assert!(!client.delete(&first.machine.id).await.unwrap_err().is_of_slot());
    client.create("macos", None).await.unwrap();
}

#[tokio::test]
async fn a_daemon_is_prepared_whether_it_has_its_settings_or_not() {
    let host = Host::start(DaemonOptions::default());
    host.daemon.plant_stopped("vm8");
    let client = host.client().await;
    client.prepare().await.unwrap();
    client.prepare().await.unwrap();
    assert_eq!(host.daemon.settings().len(), 1);
    host.daemon.forget();
    host.daemon.fault("Init", Fault::Fail("no such folder".to_owned()), 1);
    assert!(matches!(client.prepare().await, Err(Error::Init(_))));
    client.prepare().await.unwrap();
}
