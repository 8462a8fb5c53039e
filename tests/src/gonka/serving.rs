//! The three servers: public, callbacks, admin; closed and opened again at the same addresses when the process "restarts".

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::world::{Shared, lock};
use super::{admin, public};

/// What is served where.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) public: SocketAddr,
    pub(super) callback: SocketAddr,
    pub(super) admin: SocketAddr,
    stop: CancellationToken,
    /// Cancelled when the process "goes down"; renewed when it comes back.
    running: Mutex<(CancellationToken, Vec<JoinHandle<()>>)>,
}

impl Servers {
    pub(super) fn start(
        listeners: [TcpListener; 3],
        world: &Shared,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> std::io::Result<Self> {
        let servers = Self {
            public: listeners[0].local_addr()?,
            callback: listeners[1].local_addr()?,
            admin: listeners[2].local_addr()?,
            stop: stop.clone(),
            running: Mutex::new((stop.child_token(), Vec::new())),
        };
        servers.serve(listeners, world, tasks);
        Ok(servers)
    }

    fn serve(&self, listeners: [TcpListener; 3], world: &Shared, tasks: &TaskTracker) {
        let mut locked = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = locked.0.clone();
        let routers = [
            public::router(world.clone()),
            Router::new().fallback(callback).with_state(world.clone()),
            admin::router(world.clone()),
        ];
        for (listener, router) in listeners.into_iter().zip(routers) {
            let running = running.clone();
            let served = tasks.spawn(async move {
                // Dropped, not wound down: a process that dies finishes nothing.
                tokio::select! {
                    () = running.cancelled() => {}
                    ended = axum::serve(listener, router) => {
                        if let Err(error) = ended {
                            tracing::warn!(%error, "a server of the Network Node ended");
                        }
                    }
                }
            });
            locked.1.push(served);
        }
    }

    pub(super) fn close(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).0.cancel();
    }

    pub(super) async fn open(&self, world: &Shared, tasks: &TaskTracker) -> std::io::Result<()> {
        let ended = {
            let mut locked = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *locked, (self.stop.child_token(), Vec::new())).1
        };
        // Their sockets must be gone before the same addresses can be bound.
        futures_util::future::join_all(ended).await;
        let listeners = [
            TcpListener::bind(self.public).await?,
            TcpListener::bind(self.callback).await?,
            TcpListener::bind(self.admin).await?,
        ];
        self.serve(listeners, world, tasks);
        Ok(())
    }
}

/// `POST /v2/poc-batches/{model}/generated` and `…/validated`; the body of a success is empty, as the original's.
async fn callback(State(world): State<Shared>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut world = lock(&world);
    if world.down {
        // A connection kept alive from before.
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let parts: Vec<&str> = uri.path().split('/').collect();
    let ["", "v2", "poc-batches", segment, kind] = parts[..] else {
        world.complain(format!("a callback to {method} {}", uri.path()));
        return StatusCode::NOT_FOUND.into_response();
    };
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let taken = match kind {
        "generated" => world.take_artifacts(segment, &body),
        "validated" => world.take_verdict(segment, &body),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    match taken {
        Ok(()) => StatusCode::OK.into_response(),
        Err((status, why)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, why).into_response()
        }
    }
}
