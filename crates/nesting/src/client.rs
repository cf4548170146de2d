//! The calls.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::connection::Connection;
use crate::error::{Call, Error};
use crate::wire::{CreateRequest, CreateResponse, DeleteRequest, Empty, InitRequest, ListResponse, SERVICE};

/// What a daemon that was not initialised says to every call that needs it to be.
const NOT_INITIALIZED: &str = "not initialized";
/// What it says when it is initialised a second time.
const ALREADY_INITIALIZED: &str = "already initialized";

/// How the daemon is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// The daemon's settings (`nesting_config`) as a JSON object, for a daemon that was not initialised yet; default `{}`.
    pub config: Bytes,
    /// How long the daemon may take for anything but making a machine; default 30 s.
    pub patience: Duration,
    /// How long it may take to make a machine, for which it may have to fetch the image; default 1 h.
    pub create_patience: Duration,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    /// The daemon's name for it; unique on its host.
    pub id: String,
    /// The image that it was made of, where the daemon says that.
    pub name: String,
    /// Host or `host:port` of its SSH server, as the host reaches it.
    pub addr: String,
}

/// A virtual machine that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The machine.
    pub machine: VirtualMachine,
    /// Id of the machine that had the slot before and was removed for this one.
    pub stomped: Option<String>,
}

/// A connected daemon. The connection ends with this value.
pub struct Client {
    connection: Connection,
    options: Options,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Bytes::from_static(b"{}"),
            patience: Duration::from_secs(30),
            create_patience: Duration::from_secs(3600),
        }
    }
}

// === impl Client ===

impl Client {
    /// Begins to talk over a stream that leads to the daemon, such as a tunnel to its socket.
    ///
    /// # Errors
    /// [`Error::Connect`]. That something else listens there may show only with the first call.
    pub async fn connect(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        let connection = Connection::open(stream).await.map_err(|error| Error::Connect(error.into()))?;
        Ok(Self { connection, options })
    }

    /// The machines that there are.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn list(&self) -> Result<Vec<crate::VirtualMachine>, Error> {
        let listed: ListResponse = self.initialized(Call::List, || Empty {}).await?;
        Ok(listed.vms.into_iter().map(Into::into).collect())
    }

    /// The same of a daemon that is left as it is.
    ///
    /// # Errors
    /// [`Error::NotInitialized`] from a daemon that no manager has used since it started, and every other [`Error`].
    pub async fn look(&self) -> Result<Vec<crate::VirtualMachine>, Error> {
        let listed: ListResponse = self.call(Call::List, Empty {}).await?;
        Ok(listed.vms.into_iter().map(Into::into).collect())
    }

    /// Makes a machine of an image and starts it. A machine that was made for the same slot before is removed first, by daemons that
    /// know slots.
    ///
    /// When the future is dropped, the daemon is told to stop; whether there is a machine then is not known.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn create(&self, image: &str, slot: Option<u32>) -> Result<Created, Error> {
        let call = Call::Create;
        let slot = match slot.map(i32::try_from) {
            None => None,
            Some(Ok(slot)) => Some(slot),
            Some(Err(_)) => {
                return Err(Error::Answer { call, why: "there are no slots of such numbers".to_owned() });
            }
        };
        let request = || CreateRequest { name: image.to_owned(), slot };
        let created: CreateResponse = self.initialized(call, request).await?;
        let (machine, stomped) = created.read().map_err(|why| Error::Answer { call, why })?;
        Ok(Created { machine, stomped })
    }

    /// Removes a machine.
    ///
    /// # Errors
    /// [`Error`], also when there is no such machine.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let request = || DeleteRequest { id: id.to_owned() };
        let Empty {} = self.initialized(Call::Delete, request).await?;
        Ok(())
    }

    /// Hands the daemon its settings. All other calls do that where it is needed.
    ///
    /// # Errors
    /// [`Error::AlreadyInitialized`], and every other [`Error`].
    pub async fn init(&self) -> Result<(), Error> {
        let config = self.options.config.clone();
        let Empty {} = self.call(Call::Init, InitRequest { config }).await?;
        Ok(())
    }

    /// Sees that the daemon is there and has its settings. Nothing is started on its host for this, and it does not matter what
    /// its machines do.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn prepare(&self) -> Result<(), Error> {
        match self.init().await {
            Ok(()) | Err(Error::AlreadyInitialized) => Ok(()),
            Err(error) if error.is_refusal() => Err(Error::Init(Box::new(error))),
            Err(error) => Err(error),
        }
    }

    /// Has the daemon stop its hypervisor and forget its settings.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn shutdown(&self) -> Result<(), Error> {
        let Empty {} = self.call(Call::Shutdown, Empty {}).await?;
        Ok(())
    }

    /// Makes a call, if need be a second time after the daemon was initialised. Another manager may be faster with that.
    async fn initialized<Q, A>(&self, call: Call, request: impl Fn() -> Q) -> Result<A, Error>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        match self.call(call, request()).await {
            Err(Error::NotInitialized) => {}
            answered => return answered,
        }
        match self.init().await {
            Ok(()) | Err(Error::AlreadyInitialized) => self.call(call, request()).await,
            Err(error) => Err(Error::Init(Box::new(error))),
        }
    }

    async fn call<Q, A>(&self, call: Call, request: Q) -> Result<A, Error>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let patience = match call {
            Call::Create => self.options.create_patience,
            Call::Init | Call::Delete | Call::List | Call::Shutdown => self.options.patience,
        };
        let mut request = Request::new(request);
        // The daemon gives up then, too.
        request.set_timeout(patience);
        let path = format!("/{SERVICE}/{}", call.method());
        let path =
            PathAndQuery::try_from(path).map_err(|error| Error::Answer { call, why: error.to_string() })?;
        let asking = async {
            let mut grpc =
                Grpc::with_origin(self.connection.requests(), Uri::from_static("http://localhost"));
            grpc.ready().await.map_err(|error| Error::Lost { call, source: error.into() })?;
            let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| failure(call, status, patience))
        };
        tokio::time::timeout(patience, asking).await.unwrap_or(Err(Error::TimedOut { call, after: patience }))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a call that did not succeed ended with.
fn failure(call: Call, status: Status, patience: Duration) -> Error {
    // What the daemon says itself has no source; what happened to the connection is one.
    if status.source().is_some() {
        return Error::Lost { call, source: status.into() };
    }
    match (status.code(), status.message()) {
        (Code::FailedPrecondition, NOT_INITIALIZED) => Error::NotInitialized,
        (Code::FailedPrecondition, ALREADY_INITIALIZED) => Error::AlreadyInitialized,
        (Code::DeadlineExceeded, _) => Error::TimedOut { call, after: patience },
        (code, message) => Error::Refused { call, code: format!("{code:?}"), message: one_line(message) },
    }
}

/// The daemon quotes what its programs say, with their line ends: `exit status 1 (no such image\n)`.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for part in message.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() && !part.starts_with(')') {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("no such image" => "no such image"; "one line")]
    #[test_case("clone a: exit status 1 (no such image\n)" => "clone a: exit status 1 (no such image)"; "a quoted line end")]
    #[test_case("failed:\n  first\n\n  second\n" => "failed: first second"; "several")]
    #[test_case("" => ""; "nothing")]
    fn messages_have_one_line(message: &str) -> String {
        one_line(message)
    }
}
