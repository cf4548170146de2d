//! The calls, from the socket to their answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
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

pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    // Ends the connections with the daemon.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
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
    match fault {
        Some(Fault::Fail(message)) => return Ok(Status::internal(message).into_http()),
        Some(Fault::Cut) => {
            cut.notify_one();
            return std::future::pending().await;
        }
        Some(Fault::Hold) => {
            // The sender lives as long as what is shared.
            let _ = shared.released.subscribe().wait_for(|released| *released).await;
        }
        None => {}
    }
    Ok(match method.as_str() {
        "Init" => unary(request, |asked| async move { shared.init(asked) }).await,
        "Create" if shared.options.without_slots => {
            unary(request, |asked| async move { shared.create(asked).await.map(|(machine, _)| machine) })
                .await
        }
        "Create" => {
            let create = |asked| async move {
                let (machine, stomped_vm_id) = created(shared, asked).await?;
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
) -> Result<(VirtualMachine, Option<String>), Status> {
    let making = tokio::spawn(async move { shared.create(asked).await });
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

    async fn create(&self, asked: CreateRequest) -> Result<(VirtualMachine, Option<String>), Status> {
        self.needs_settings()?;
        let CreateRequest { name: image, slot } = asked;
        let slot = slot.filter(|_| !self.options.without_slots);
        let (id, stomped) = {
            let mut state = self.lock();
            state.images.push(image.clone());
            let stomped = slot.and_then(|slot| state.holder(slot));
            if let Some(stomped) = &stomped {
                state.machines.remove(stomped);
                self.hypervisor.end(stomped);
            }
            if state.machines.len() + state.coming >= self.options.most {
                let most = self.options.most;
                return Err(Status::internal(format!("the host runs {most} virtual machines already")));
            }
            state.coming += 1;
            state.made += 1;
            (format!("vm{}", state.made), stomped)
        };
        let started = self.hypervisor.start(&id, &image).await;
        let mut state = self.lock();
        state.coming -= 1;
        let addr = started.map_err(Status::internal)?;
        let machine = MachineView { id: id.clone(), image: image.clone(), addr: addr.clone(), slot };
        state.machines.insert(id.clone(), machine);
        Ok((VirtualMachine { id, name: image, addr }, stomped))
    }

    fn delete(&self, asked: &DeleteRequest) -> Result<DeleteResponse, Status> {
        self.needs_settings()?;
        if self.lock().machines.remove(&asked.id).is_none() {
            return Err(Status::internal(format!("no virtual machine {}", asked.id)));
        }
        self.hypervisor.end(&asked.id);
        Ok(DeleteResponse {})
    }

    fn list(&self) -> Result<ListResponse, Status> {
        self.needs_settings()?;
        let machines: Vec<MachineView> = self.lock().machines.values().cloned().collect();
        let vms = machines.into_iter();
        let vms = vms.map(|MachineView { id, image, addr, .. }| VirtualMachine { id, name: image, addr });
        Ok(ListResponse { vms: vms.collect() })
    }

    fn shutdown(&self) -> Result<ShutdownResponse, Status> {
        self.needs_settings()?;
        let mut state = self.lock();
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
