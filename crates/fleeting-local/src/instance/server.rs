//! The SSH server of an instance.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Preferred, Pty, cipher, compression,
};
use tokio::net::TcpListener;

use super::tunnel::{self, Destination};
use super::{Machine, command, session};

/// One client.
struct Connection {
    machine: Arc<Machine>,
    /// Session channels on which nothing runs yet.
    open: BTreeMap<ChannelId, Channel<Msg>>,
}

/// Takes connections for ever.
pub(super) async fn accept(
    listener: &TcpListener,
    host_key: PrivateKey,
    machine: &Arc<Machine>,
) -> Infallible {
    let config = Arc::new(Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(200),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        preferred: Preferred {
            // The fastest that both sides have in hardware; without them a log costs several times the work.
            cipher: Cow::Borrowed(&[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::default()
        },
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the connection stays queued, others end meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = Connection { machine: Arc::clone(machine), open: BTreeMap::new() };
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            if let Ok(session) = russh::server::run_stream(config, stream, connection).await {
                // How a client leaves makes no difference here: its channels close, and its commands end.
                let _ = session.await;
            }
        });
    }
}

// === impl Connection ===

impl Connection {
    fn check(&self, user: &str, key: &russh::keys::PublicKey) -> Auth {
        let machine = &self.machine;
        if user == machine.username && key.key_data() == machine.authorized_key.key_data() {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    fn tunnel(&self, channel: Channel<Msg>, reply: ChannelOpenHandle, to: Destination) {
        tokio::spawn(tunnel::run(Arc::clone(&self.machine), channel, reply, to));
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.check(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.check(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.open.remove(&channel);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        text: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(open) = self.open.remove(&channel) else {
            return session.channel_failure(channel);
        };
        let Ok(child) = command::spawn(&self.machine, text) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let run = session::run(Arc::clone(&self.machine), open, session.handle(), child);
        self.machine.sessions.spawn(run);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match u16::try_from(port) {
            Ok(port) => self.tunnel(channel, reply, Destination::Tcp(host.to_owned(), port)),
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.tunnel(channel, reply, Destination::Unix(path.to_owned()));
        Ok(())
    }

    // What an instance does not offer is refused, so that clients do not wait for an answer.

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
