//! Connecting: keys, passwords, host keys, boots.

use std::error::Error as _;

use connect_info::{AddressError, ConnectInfo, ConnectorSettings, Protocol, SecretString};
use drover_connector::{DialError, HostKeys};
use russh::MethodKind;
use tokio::net::TcpListener;

use super::*;

async fn log_in(info: &ConnectInfo) -> Result<Client, DialError> {
    soon("dial", dial(info, &hasty(), &mut |_| {})).await
}

/// Options that do not repeat a refused login.
fn hasty() -> DialOptions {
    DialOptions { login_retries: 0, ..DialOptions::default() }
}

#[tokio::test]
async fn all_kinds_of_keys_log_in() {
    let sshd = Sshd::start("");
    let kinds: [(&str, &[&str]); 9] = [
        ("ed25519", &["-t", "ed25519"]),
        ("ecdsa256", &["-t", "ecdsa", "-b", "256"]),
        ("ecdsa384", &["-t", "ecdsa", "-b", "384"]),
        ("ecdsa521", &["-t", "ecdsa", "-b", "521"]),
        ("ecdsa-pkcs8", &["-t", "ecdsa", "-m", "PKCS8"]),
        ("ecdsa-sec1", &["-t", "ecdsa", "-m", "PEM"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("rsa-pkcs1", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ];
    for (name, arguments) in kinds {
        let pem = sshd.authorize(name, arguments);
        let client = log_in(&sshd.info_with(&pem)).await;
        let client = client.unwrap_or_else(|error| panic!("{name}: {error}: {:?}", error.source()));
        let ended = run(&client, "echo in", "").await.unwrap();
        assert_eq!(ended.stdout, "in\n", "{name}");
    }
}

#[tokio::test]
async fn a_wrong_key_names_user_and_method_and_is_tried_as_often_as_asked() {
    let sshd = Sshd::start("");
    let wrong = {
        let other = Sshd::prepare("");
        other.info().settings.key_pem.unwrap()
    };
    let mut info = sshd.info();
    info.settings.key_pem = Some(wrong);
    let mut retries = 0;
    let options = DialOptions { login_retries: 2, ..DialOptions::default() };
    let error = soon(
        "dial",
        dial(&info, &options, &mut |attempt| {
            retries += u32::from(matches!(attempt.error, DialError::Authentication { .. }));
        }),
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("authentication refused for user `{}` (tried publickey)", sshd::user())
    );
    assert_eq!(retries, 2);
}

#[tokio::test]
async fn mistakes_in_the_settings_are_not_repeated() {
    let sshd = Sshd::prepare("");
    let mut no_retry = |_: drover_connector::Attempt<'_>| panic!("a mistake in the settings was tried again");

    let garbage = dial(&sshd.info_with("not a key"), &hasty(), &mut no_retry).await.unwrap_err();
    assert!(matches!(garbage, DialError::KeyUnreadable { .. }), "{garbage:?}");

    for (name, format) in [("locked", "RFC4716"), ("locked-pkcs8", "PKCS8"), ("locked-pem", "PEM")] {
        let pem = sshd.authorize(name, &["-t", "rsa", "-b", "2048", "-m", format, "-N", "secret"]);
        let locked = dial(&sshd.info_with(&pem), &hasty(), &mut no_retry).await.unwrap_err();
        assert!(matches!(locked, DialError::KeyEncrypted { .. }), "{name}: {locked:?}");
    }

    let mut keyless = sshd.info();
    keyless.settings.key_pem = None;
    let keyless = dial(&keyless, &hasty(), &mut no_retry).await.unwrap_err();
    assert_eq!(keyless.to_string(), "instance `i-1` has no private key or password to log in with");

    let mut windows = sshd.info();
    windows.settings.protocol = Some(Protocol::WinrmHttps);
    let windows = dial(&windows, &hasty(), &mut no_retry).await.unwrap_err();
    assert_eq!(windows.to_string(), "instance `i-1` wants winrm+https, which is not available yet");

    let nowhere = ConnectInfo::new("i-1", ConnectorSettings::default());
    let nowhere = dial(&nowhere, &hasty(), &mut no_retry).await.unwrap_err();
    assert!(matches!(nowhere, DialError::Address(AddressError::NoAddress(_))), "{nowhere:?}");

    let mut pinned = sshd.info();
    pinned.settings.host_key = Some("SHA256:short".into());
    let pinned = dial(&pinned, &hasty(), &mut no_retry).await.unwrap_err();
    assert!(matches!(pinned, DialError::HostKeyUnreadable { .. }), "{pinned:?}");
}

#[tokio::test]
async fn an_instance_that_boots_is_reached_once_it_is_up() {
    let mut sshd = Sshd::prepare("");
    let info = sshd.info();
    let mut attempts = 0;
    let client = soon(
        "dial",
        dial(&info, &hasty(), &mut |attempt| {
            attempts += 1;
            assert_eq!(attempt.number, attempts);
            assert_eq!(attempt.target.port, sshd.port());
            assert!(
                matches!(attempt.error, DialError::Connect { .. } | DialError::Handshake { .. }),
                "{:?}",
                attempt.error
            );
            if attempts == 3 {
                sshd.launch();
            }
        }),
    )
    .await
    .unwrap();
    assert!(attempts >= 3);
    assert!(run(&client, "true", "").await.unwrap().status.unwrap().success());
}

#[tokio::test]
async fn a_key_that_cloud_init_writes_late_is_accepted_when_it_is_there() {
    let sshd = Sshd::start("");
    std::fs::rename(sshd.path("authorized"), sshd.path("later")).unwrap();
    let mut refusals = 0;
    let client = soon(
        "dial",
        dial(&sshd.info(), &DialOptions::default(), &mut |attempt| {
            refusals += u32::from(matches!(attempt.error, DialError::Authentication { .. }));
            if refusals == 2 && sshd.path("later").exists() {
                std::fs::rename(sshd.path("later"), sshd.path("authorized")).unwrap();
            }
        }),
    )
    .await;
    assert!(client.is_ok(), "{client:?}");
    assert_eq!(refusals, 2);
}

#[tokio::test]
async fn an_instance_that_never_comes_up_is_given_up_after_the_timeout() {
    let sshd = Sshd::prepare("");
    let mut info = sshd.info();
    info.settings.timeout = Some(Duration::from_millis(400));
    let mut retries = 0;
    let error = soon("dial", dial(&info, &hasty(), &mut |_| retries += 1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("dial ssh: after retrying {} times during 400ms timeout", retries + 1)
    );
    let cause = error.source().unwrap();
    assert_eq!(cause.to_string(), format!("dial tcp 127.0.0.1:{}", sshd.port()));
    assert!(cause.source().unwrap().to_string().contains("refused"));
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut info = Sshd::prepare("").info();
    info.internal_addr = Some(silent.local_addr().unwrap().to_string());
    info.settings.timeout = Some(Duration::from_millis(300));
    let error = soon("dial", dial(&info, &hasty(), &mut |_| {})).await.unwrap_err();
    assert!(matches!(error, DialError::TimedOut { attempts: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn a_host_key_that_changes_is_refused_until_it_is_forgotten() {
    let mut sshd = Sshd::start("");
    let options = DialOptions { host_keys: HostKeys::default(), ..hasty() };
    let first = sshd.fingerprint();
    soon("dial", dial(&sshd.info(), &options, &mut |_| {})).await.unwrap();
    assert_eq!(options.host_keys.fingerprint("i-1"), Some(first.clone()));

    sshd.change_host_key();
    let error = soon("dial", dial(&sshd.info(), &options, &mut |_| {})).await.unwrap_err();
    let second = sshd.fingerprint();
    assert_eq!(
        error.to_string(),
        format!("host key of instance `i-1` is {second}, but {first} is known from earlier")
    );

    options.host_keys.forget("i-1");
    soon("dial", dial(&sshd.info(), &options, &mut |_| {})).await.unwrap();
}

#[tokio::test]
async fn a_failed_login_does_not_fix_the_host_key() {
    let sshd = Sshd::start("");
    std::fs::write(sshd.path("authorized"), "").unwrap();
    let options = hasty();
    soon("dial", dial(&sshd.info(), &options, &mut |_| {})).await.unwrap_err();
    assert_eq!(options.host_keys.fingerprint("i-1"), None);
}

#[tokio::test]
async fn a_configured_host_key_is_the_only_one_accepted() {
    let sshd = Sshd::start("");
    let mut info = sshd.info();
    info.settings.host_key = Some(sshd.fingerprint());
    log_in(&info).await.unwrap();
    info.settings.host_key = Some(std::fs::read_to_string(sshd.path("host.pub")).unwrap());
    log_in(&info).await.unwrap();

    let other = Sshd::prepare("").fingerprint();
    info.settings.host_key = Some(other.clone());
    let error = log_in(&info).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("host key of instance `i-1` is {}, but {other} is configured", sshd.fingerprint())
    );
}

#[tokio::test]
async fn a_password_logs_in_and_so_does_one_that_is_asked_for() {
    let ways = [
        (MethodKind::Password, "password"),
        (MethodKind::KeyboardInteractive, "password, keyboard-interactive"),
    ];
    for (how, tried) in ways {
        let mut info = scripted::server(how).await;
        info.settings.password = Some(SecretString::from("right"));
        log_in(&info).await.unwrap_or_else(|error| panic!("{how:?}: {error}"));

        info.settings.password = Some(SecretString::from("wrong"));
        let error = log_in(&info).await.unwrap_err().to_string();
        assert_eq!(error, format!("authentication refused for user `ci` (tried {tried})"));
    }
}
