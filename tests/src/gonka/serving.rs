//! The three servers: public, callbacks, admin; closed and opened again at the same addresses when the process "restarts".

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Public,
    Callback,
    Admin,
}

impl Door {
    const ALL: [Self; 3] = [Self::Public, Self::Callback, Self::Admin];

    fn router(self, world: &Shared) -> Router {
        match self {
            Self::Public => public::router(world.clone()),
            Self::Callback => Router::new().fallback(callback).with_state(world.clone()),
            Self::Admin => admin::router(world.clone()),
        }
    }
}

/// A server that listens, or has been told to end.
#[derive(Debug)]
struct Serving {
    stop: CancellationToken,
    served: JoinHandle<()>,
}

/// What is served where.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) public: SocketAddr,
    pub(super) callback: SocketAddr,
    pub(super) admin: SocketAddr,
    stop: CancellationToken,
    /// In the order of [`Door::ALL`]; none where one was closed and has ended.
    serving: Mutex<[Option<Serving>; 3]>,
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
            serving: Mutex::default(),
        };
        for (door, listener) in Door::ALL.into_iter().zip(listeners) {
            servers.serve(door, listener, world, tasks);
        }
        Ok(servers)
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Serving>; 3]> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, door: Door, listener: TcpListener, world: &Shared, tasks: &TaskTracker) {
        let stop = self.stop.child_token();
        let (stopped, router) = (stop.clone(), door.router(world));
        let served = tasks.spawn(async move {
            // Dropped, not wound down: a process that dies finishes nothing.
            tokio::select! {
                () = stopped.cancelled() => {}
                ended = axum::serve(listener, router) => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "a server of the Network Node ended");
                    }
                }
            }
        });
        self.lock()[door as usize] = Some(Serving { stop, served });
    }

    pub(super) fn close(&self) {
        self.lock().iter().flatten().for_each(|serving| serving.stop.cancel());
    }

    /// Closes one port and returns when nobody listens there.
    pub(super) async fn close_callback(&self) {
        let serving = self.lock()[Door::Callback as usize].take();
        if let Some(Serving { stop, served }) = serving {
            stop.cancel();
            // A server that panicked listens no more either.
            drop(served.await);
        }
    }

    /// Opens every port that was closed.
    pub(super) async fn open(&self, world: &Shared, tasks: &TaskTracker) -> std::io::Result<()> {
        for door in Door::ALL {
            let closed = {
                let mut serving = self.lock();
                let place = &mut serving[door as usize];
                match place {
                    Some(serving) if !serving.stop.is_cancelled() => continue,
                    Some(_) | None => place.take(),
                }
            };
            if let Some(Serving { served, .. }) = closed {
                // Its socket must be gone before the same address can be bound.
                drop(served.await);
            }
            let address = match door {
                Door::Public => self.public,
                Door::Callback => self.callback,
                Door::Admin => self.admin,
            };
            self.serve(door, TcpListener::bind(address).await?, world, tasks);
        }
        Ok(())
    }
}

/// `POST /v2/poc-batches/{model}/generated` and `…/validated`; the body of a success is empty, as the original's.
async fn callback(State(world): State<Shared>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut world = lock(&world);
    if world.down || world.callback_down {
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
