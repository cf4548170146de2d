//! One SSH connection.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{DisconnectReason, Handle, Handler, Msg, Session};
use russh::keys::ssh_key::{Fingerprint, HashAlg};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, Sig, cipher, compression};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{ConnectionError, PROHIBITED};
use crate::inbox::Inbox;
use crate::sessions::{Counts, Slot};
use crate::table::Table;

/// Keepalive probes that may stay unanswered.
pub(crate) const KEEPALIVE_MISSES: u32 = 4;

/// What the remote may send on a channel before it hears from us. Nothing is allocated for it; it bounds the throughput to
/// `WINDOW / 2` per round trip, 80 MiB/s at 25 ms.
const WINDOW: u32 = 4 * 1024 * 1024;

/// The largest packet that every SSH implementation must take.
const PACKET: u32 = 32 * 1024;

/// Messages that russh queues per channel; they are moved on at once, see [`Inbox::fill`].
const QUEUE: usize = 16;

/// How long a tunnel that is dropped waits for the instance to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// One SSH connection to an instance, logged in.
pub(crate) struct Link {
    handle: Handle<Events>,
    pub(crate) table: Arc<Table>,
    pub(crate) counts: Arc<Counts>,
    /// Cuts the TCP stream when the link is dropped.
    _cut: DropGuard,
}

/// An open channel. Dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) writer: Arc<ChannelWriteHalf<Msg>>,
    pub(crate) table: Arc<Table>,
    /// Let the other side close first, see [`Drop`].
    linger: bool,
}

/// Why a channel was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The server said no.
    Refused(Arc<str>),
    /// The connection is over.
    Over(ConnectionError),
}

/// Receives what the server sends; lives in russh's event loop.
pub(crate) struct Events {
    table: Arc<Table>,
    host_key: Arc<HostKeyCheck>,
}

/// The check of the host key and what it found.
pub(crate) struct HostKeyCheck {
    pub(crate) expected: crate::host_key::Expected,
    pub(crate) presented: Mutex<Option<Fingerprint>>,
}

// === impl Link ===

impl Link {
    pub(crate) fn new(handle: Handle<Events>, table: Arc<Table>, cut: DropGuard) -> Self {
        Self { handle, table, counts: Arc::default(), _cut: cut }
    }

    /// Takes one of `limit` places for sessions if one is free.
    pub(crate) fn reserve(&self, limit: usize, freed: &Arc<Notify>) -> Option<Slot> {
        if self.table.is_gone() { None } else { Slot::take(&self.counts, limit, freed) }
    }

    /// Opens a session channel in the place `slot`. Not to be dropped half-way: the server would keep the channel.
    pub(crate) async fn open_session(&self, slot: Slot) -> Result<Lane, OpenError> {
        let _opening = self.table.opening();
        let opened = self.handle.channel_open_session().await;
        self.lane(opened, Some(slot), false).await
    }

    /// Opens a tunnel to `host:port` as the instance sees it. Not to be dropped half-way.
    pub(crate) async fn open_tcp(&self, host: String, port: u16) -> Result<Lane, OpenError> {
        let _opening = self.table.opening();
        let opened = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await;
        self.lane(opened, None, true).await
    }

    /// Opens a tunnel to a unix socket on the instance. Not to be dropped half-way.
    pub(crate) async fn open_unix(&self, path: String) -> Result<Lane, OpenError> {
        let _opening = self.table.opening();
        let opened = self.handle.channel_open_direct_streamlocal(path).await;
        self.lane(opened, None, true).await
    }

    /// Says goodbye; everything pending fails with [`ConnectionError::Closed`].
    pub(crate) async fn close(&self) {
        self.table.fail(ConnectionError::Closed { instance: self.table.instance.clone() });
        let farewell = self.handle.disconnect(Disconnect::ByApplication, "", "en");
        // The event loop may be stuck in a write to a frozen peer; dropping the link cuts it off.
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }

    async fn lane(
        &self,
        opened: Result<Channel<Msg>, russh::Error>,
        mut slot: Option<Slot>,
        linger: bool,
    ) -> Result<Lane, OpenError> {
        match opened {
            Ok(channel) => {
                if let Some(slot) = &mut slot {
                    slot.confirm();
                }
                let (reader, writer) = channel.split();
                let inbox = Arc::new(Inbox::new(self.table.instance.clone(), reader, slot));
                self.table.register(writer.id(), inbox.clone());
                Ok(Lane { inbox, writer: Arc::new(writer), table: self.table.clone(), linger })
            }
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(OpenError::Refused(refusal(&reason).into())),
            // All other errors mean that the event loop has ended or is about to; it tells why.
            Err(_) => Err(OpenError::Over(self.table.gone().await)),
        }
    }
}

// === impl Lane ===

impl Lane {
    /// Hands the lane to a user.
    pub(crate) fn occupy(&self) {
        self.table.occupy(&self.inbox);
    }

    /// Why nothing can be sent: a send fails only when the event loop has ended.
    pub(crate) async fn over(&self) -> ConnectionError {
        self.table.gone().await
    }
}

impl Drop for Lane {
    /// Closes the channel; of a tunnel only after giving the other side some time to do so. A channel that the server closes
    /// first costs nothing afterwards; for one that we close first russh keeps some 3 KiB until the connection ends.
    fn drop(&mut self) {
        if self.inbox.is_closed() {
            self.table.remove(self.writer.id(), &self.inbox);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The runtime is gone, and with it the connection.
            return;
        };
        let (inbox, writer, table, linger) =
            (self.inbox.clone(), self.writer.clone(), self.table.clone(), self.linger);
        runtime.spawn(async move {
            table.urge();
            if linger && writer.eof().await.is_ok() {
                let _ = tokio::time::timeout(LINGER, inbox.ended().cancelled()).await;
            }
            if !inbox.is_closed() {
                let _ = writer.close().await;
                inbox.close();
            }
            table.remove(writer.id(), &inbox);
        });
    }
}

// === impl Events ===

impl Events {
    pub(crate) fn new(table: Arc<Table>, host_key: Arc<HostKeyCheck>) -> Self {
        Self { table, host_key }
    }

    /// Takes in what russh has queued for the channel, and holds the event loop up if its reader lags.
    async fn arrived(&self, id: ChannelId) {
        if let Some(inbox) = self.table.inbox(id) {
            inbox.fill();
            inbox.settle(&self.table).await;
        }
    }
}

impl Handler for Events {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
        let accepted = self.host_key.expected.check("", fingerprint).is_ok();
        *self.host_key.presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
        Ok(accepted)
    }

    async fn data(&mut self, id: ChannelId, _: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        _: u32,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(inbox) = self.table.inbox(id) {
            inbox.fill();
            inbox.settle(&self.table).await;
            self.table.remove(id, &inbox);
        }
        Ok(())
    }

    async fn channel_success(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn channel_failure(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn window_adjusted(&mut self, id: ChannelId, _: u32, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn xon_xoff(&mut self, id: ChannelId, _: bool, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn exit_status(&mut self, id: ChannelId, _: u32, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        id: ChannelId,
        _: Sig,
        _: bool,
        _: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(id).await;
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(farewell) => {
                self.table.lose(&format!("the instance said goodbye: {}", farewell.message));
            }
            DisconnectReason::Error(error) => self.table.lose(&loss(&error)),
        }
        Ok(())
    }
}

impl Drop for Events {
    /// The event loop has ended, however it did: nothing may wait for it any longer.
    fn drop(&mut self) {
        self.table.lose("the connection was closed");
    }
}

/// The configuration of russh for one connection.
pub(crate) fn config(keepalive: Duration, host_keys: Option<Vec<Algorithm>>) -> Arc<russh::client::Config> {
    let mut config = russh::client::Config {
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: QUEUE,
        keepalive_interval: Some(keepalive),
        keepalive_max: KEEPALIVE_MISSES as usize,
        nodelay: true,
        ..russh::client::Config::default()
    };
    // AES-GCM runs in hardware nearly everywhere and needs no separate MAC. Job logs are not worth compressing: time on
    // the manager is dearer than bytes on its network.
    config.preferred.cipher = Cow::Borrowed(&[
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ]);
    config.preferred.compression = Cow::Borrowed(&[compression::NONE]);
    if let Some(algorithms) = host_keys {
        config.preferred.key = Cow::Owned(algorithms);
    }
    Arc::new(config)
}

/// A token whose guard cuts a connection.
pub(crate) fn cutter() -> (CancellationToken, DropGuard) {
    let token = CancellationToken::new();
    (token.clone(), token.drop_guard())
}

/// Why the connection ended, for the reader of a job log.
fn loss(error: &russh::Error) -> String {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "russh has some forty errors, and most say it well themselves"
    )]
    match error {
        russh::Error::KeepaliveTimeout => format!("no answer to {KEEPALIVE_MISSES} keepalives"),
        russh::Error::Disconnect | russh::Error::HUP => "closed by the instance".to_owned(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "closed by the instance".to_owned()
        }
        other => other.to_string(),
    }
}

/// The reason in the words of Go's SSH library, which users find in GitLab's documentation.
fn refusal(reason: &ChannelOpenFailure) -> String {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => PROHIBITED.to_owned(),
        ChannelOpenFailure::ConnectFailed => "connect failed".to_owned(),
        ChannelOpenFailure::UnknownChannelType => "unknown channel type".to_owned(),
        ChannelOpenFailure::ResourceShortage => "resource shortage".to_owned(),
        ChannelOpenFailure::Other { code, reason } => format!("{reason} ({code})"),
    }
}
