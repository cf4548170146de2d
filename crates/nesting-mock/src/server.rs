//! The calls, from the socket to their answers.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::Shared;
use crate::state::{Fault, MachineView};
use crate::wire::{
    CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, InitRequest, InitResponse, ListRequest,
    ListResponse, ShutdownRequest, ShutdownResponse, VirtualMachine,
};

/// What a method makes of a request.
struct Unary<F>(Option<F>);

type Answering<A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

/// Where the daemon listens.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection, of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) async fn serve(listener: Listener, shared: Arc<Shared>) {
    // Ends the connections with the daemon.
    let mut connections = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        connections.spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: Box<dyn Stream>, shared: Arc<Shared>) {
    let cut = Arc::new(Notify::new());
    let service = {
        let cut = Arc::clone(&cut);
        service_fn(move |request| answer(request, Arc::clone(&shared), Arc::clone(&cut)))
    };
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // How a client ends is its own business.
        _ = serving => {}
        () = cut.notified() => {}
    }
}

async fn answer(
    request: http::Request<Incoming>,
    shared: Arc<Shared>,
    cut: Arc<Notify>,
) -> Result<http::Response<Body>, Infallible> {
    let method = request.uri().path().strip_prefix("/nesting.Nesting/").unwrap_or_default().to_owned();
    let fault = shared.lock().called(&method);
    match fault.clone() {
        // What a daemon's hypervisor says has no code of its own.
        Some(Fault::Fail(message)) => return Ok(Status::unknown(message).into_http()),
        Some(Fault::Cut) => {
            cut.notify_one();
            return std::future::pending().await;
        }
        // A machine that is held is there already, and boots.
        Some(Fault::Hold) if method == "Create" => {}
        Some(Fault::Hold) => shared.release().await,
        None => {}
    }
    let held = fault == Some(Fault::Hold);
    Ok(match method.as_str() {
        "Init" => unary(request, |asked| async move { shared.init(asked) }).await,
        "Create" if shared.options.without_slots => {
            let create =
                move |asked| async move { shared.create(asked, held).await.map(|(machine, _)| machine) };
            unary(request, create).await
        }
        "Create" => {
            let create = move |asked| async move {
                let (machine, stomped_vm_id) = created(shared, asked, held).await?;
                Ok(CreateResponse { vm: Some(machine), stomped_vm_id })
            };
            unary(request, create).await
        }
        "Delete" => unary(request, |asked| async move { shared.delete(&asked) }).await,
        "List" => unary(request, |ListRequest {}| async move { shared.list() }).await,
        "Shutdown" => unary(request, |ShutdownRequest {}| async move { shared.shutdown() }).await,
        _ => Status::unimplemented("unknown method").into_http(),
    })
}

/// Makes a machine, also when the client does not wait for it any longer.
async fn created(
    shared: Arc<Shared>,
    asked: CreateRequest,
    held: bool,
) -> Result<(VirtualMachine, Option<String>), Status> {
    let making = tokio::spawn(async move { shared.create(asked, held).await });
    making.await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

async fn unary<Q, A, R>(
    request: http::Request<Incoming>,
    method: impl FnOnce(Q) -> R + Send + 'static,
) -> http::Response<Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    R: Future<Output = Result<A, Status>> + Send + 'static,
{
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<A, Q>::default());
    grpc.unary(Unary(Some(method)), request).await
}

// === impl Listener ===

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

// === impl Unary ===

impl<Q, A, R, F> Service<Request<Q>> for Unary<F>
where
    A: Send + 'static,
    F: FnOnce(Q) -> R + Send + 'static,
    R: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = Response<A>;
    type Error = Status;
    type Future = Answering<A>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        match self.0.take() {
            Some(method) => {
                let answering = method(request.into_inner());
                Box::pin(async move { answering.await.map(Response::new) })
            }
            None => Box::pin(std::future::ready(Err(Status::internal("called twice")))),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn init(&self, InitRequest { config }: InitRequest) -> Result<InitResponse, Status> {
        let config = String::from_utf8(config).map_err(|_| Status::invalid_argument("config is no text"))?;
        if !(config.starts_with('{') && config.ends_with('}')) {
            return Err(Status::invalid_argument(format!("config is no JSON object: {config}")));
        }
        let mut state = self.lock();
        if state.initialized {
            return Err(Status::failed_precondition("already initialized"));
        }
        state.initialized = true;
        state.settings.push(config);
        Ok(InitResponse {})
    }

    async fn create(
        &self,
        asked: CreateRequest,
        held: bool,
    ) -> Result<(VirtualMachine, Option<String>), Status> {
        self.needs_settings()?;
        let CreateRequest { name: image, slot } = asked;
        let slot = slot.filter(|_| !self.options.without_slots);
        let (id, stomped) = {
            let mut state = self.lock();
            state.images.push(image.clone());
            let stomped = slot.and_then(|slot| state.slots.get(&slot).cloned());
            if let Some(stomped) = &stomped {
                if !state.remove(stomped) {
                    return Err(Status::unknown(format!("clearing slot: no vm ({stomped}) found")));
                }
                self.hypervisor.end(stomped);
            }
            if state.count() >= self.options.most {
                let most = self.options.most;
                return Err(Status::unknown(format!("the host runs {most} virtual machines already")));
            }
            state.made += 1;
            let id = format!("vm{}", state.made);
            state.without_address.insert(id.clone());
            (id, stomped)
        };
        if held {
            self.release().await;
        }
        let started = self.hypervisor.start(&id, &image).await;
        let mut state = self.lock();
        state.without_address.remove(&id);
        let addr = started.map_err(Status::unknown)?;
        let machine = MachineView { id: id.clone(), image: image.clone(), addr: addr.clone(), slot };
        state.machines.insert(id.clone(), machine);
        if let Some(slot) = slot {
            state.slots.insert(slot, id.clone());
        }
        Ok((VirtualMachine { id, name: image, addr }, stomped))
    }

    /// Waits until what is held may go on.
    async fn release(&self) {
        // The sender lives as long as what is shared.
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }

    fn delete(&self, asked: &DeleteRequest) -> Result<DeleteResponse, Status> {
        self.needs_settings()?;
        if !self.lock().remove(&asked.id) {
            return Err(Status::unknown(format!("no vm ({}) found", asked.id)));
        }
        self.hypervisor.end(&asked.id);
        Ok(DeleteResponse {})
    }

    fn list(&self) -> Result<ListResponse, Status> {
        self.needs_settings()?;
        let state = self.lock();
        // The daemon asks Tart for each address.
        if let Some(id) = state.without_address.first() {
            return Err(Status::unknown(format!(
                "getting \"{id}\" addr: fetching address: ip {id} --wait 1: exit status 1 (no IP address found, is your \
                 virtual machine running?\n)"
            )));
        }
        let vms = state.machines.values().cloned();
        let vms = vms.map(|MachineView { id, image, addr, .. }| VirtualMachine { id, name: image, addr });
        Ok(ListResponse { vms: vms.collect() })
    }

    fn shutdown(&self) -> Result<ShutdownResponse, Status> {
        let mut state = self.lock();
        if !state.initialized {
            // In these words.
            return Err(Status::failed_precondition("already initialized"));
        }
        state.initialized = false;
        for id in std::mem::take(&mut state.machines).into_keys() {
            self.hypervisor.end(&id);
        }
        Ok(ShutdownResponse {})
    }

    fn needs_settings(&self) -> Result<(), Status> {
        if self.lock().initialized { Ok(()) } else { Err(Status::failed_precondition("not initialized")) }
    }
}
