//! A server for what OpenSSH does not do when asked: passwords without PAM, signals for root, and misbehaviour.

use std::sync::Arc;

use connect_info::{ConnectInfo, ConnectorSettings, SecretString};
use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Response, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Sig};
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let client = connected().await;
    let mut process = client.exec("wait for a signal", Bytes::new()).await.unwrap();
    process.signal("SIGUSR1").await.unwrap();
    assert_eq!(soon("output", process.next()).await.unwrap(), Some(Output::Stdout("USR1".into())));
    assert_eq!(soon("end", process.next()).await.unwrap(), None);
    assert_eq!(soon("status", process.wait()).await.unwrap(), ExitStatus::Signal("USR1".into()));
}

#[tokio::test]
async fn a_refused_command_is_told_apart_from_one_that_fails() {
    let client = connected().await;
    let ended = soon("exec", run(&client, "refuse", "")).await.unwrap();
    assert!(matches!(ended.status, Err(ConnectionError::ExecRefused { .. })), "{:?}", ended.status);
}

#[tokio::test]
async fn a_command_that_vanishes_has_no_exit_status() {
    let client = connected().await;
    let ended = soon("exec", run(&client, "vanish", "")).await.unwrap();
    assert_eq!(ended.stdout, "gone");
    assert!(matches!(ended.status, Err(ConnectionError::NoExitStatus { .. })), "{:?}", ended.status);
}

#[tokio::test]
async fn an_exit_status_after_the_end_of_output_is_waited_for() {
    let client = connected().await;
    let ended = soon("exec", run(&client, "late", "")).await.unwrap();
    assert_eq!(ended.status.unwrap(), ExitStatus::Code(5));
}

async fn connected() -> Client {
    let mut info = server(MethodKind::Password).await;
    info.settings.password = Some(SecretString::from("right"));
    soon("dial", dial(&info, &DialOptions::default(), &mut |_| {})).await.unwrap()
}

/// A server that takes the password `right` of the user `ci` in one of two ways.
pub(crate) async fn server(how: MethodKind) -> ConnectInfo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    sshd::keygen(&folder.path().join("host"), &["-t", "ed25519"]);
    let key = PrivateKey::read_openssh_file(folder.path().join("host")).unwrap();
    let config = Arc::new(russh::server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        methods: MethodSet::from(&[how][..]),
        ..russh::server::Config::default()
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let session = run_stream(config.clone(), stream, Script(how)).await.unwrap();
            tokio::spawn(session);
        }
    });
    let settings = ConnectorSettings { username: Some("ci".into()), ..ConnectorSettings::default() };
    let mut info = ConnectInfo::new("i-1", settings);
    info.internal_addr = Some(address);
    info
}

struct Script(MethodKind);

impl Handler for Script {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let right = self.0 == MethodKind::Password && (user, password) == ("ci", "right");
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut answers) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        let right = answers.next().as_deref() == Some(b"right");
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if command == b"refuse" {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        match command {
            b"vanish" => {
                session.data(id, "gone")?;
                session.close(id)
            }
            b"late" => {
                session.eof(id)?;
                session.exit_status_request(id, 5)?;
                session.close(id)
            }
            _ => Ok(()),
        }
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, session: &mut Session) -> Result<(), Self::Error> {
        session.data(id, format!("{signal:?}"))?;
        session.exit_signal_request(id, signal, false, "", "")?;
        session.close(id)
    }
}
