//! Several rigs as one MLNode: the controller in the place of the network's own fan-out, rigs in that of its engines.
//!
//! ```text
//! Network Node ──► node: state, up, stop ──► every rig
//!              ──► proof: init ──► rig g of G: nonces i + g*N + x*(G*N)        keeper: a rig that comes back
//!              ──► proof: generate ──► the next rig in turn                            gets its own group again
//!              ──► /v1/.. ──► the least loaded rig
//! ```
//! Rigs deliver artifacts themselves; they pass by the gateway.

mod ask;
mod keeper;
mod node;
mod pages;
mod proof;
mod round;

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use roadbed_protocol::mlnode::is_openai;

use super::door::whole;
use super::openai;
use super::reply::detail;
use super::rig::Rig;
use super::wire::Wire;
use round::RoundBook;

/// The label of the first rig: the port of the first engine process in the network's own fan-out.
const LABEL_FIRST: u16 = 5_001;

/// A rig of the single MLNode.
pub(super) struct Backend {
    pub(super) rig: Arc<Rig>,
    /// The `port` of the network's answers: the place of the rig in the site file.
    pub(super) label: u16,
}

/// The last order that made rigs load or unload.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    Up(Bytes),
    Stop,
}

/// See the module head.
pub(super) struct FanOut {
    backends: Vec<Backend>,
    rigs: Vec<Arc<Rig>>,
    wire: Wire,
    book: Mutex<RoundBook>,
    /// Orders that begin or end rounds come one after the other.
    orders: tokio::sync::Mutex<()>,
    last: Mutex<Option<Order>>,
    turn: AtomicUsize,
}

impl FanOut {
    /// Over these rigs, each in its place; `file` keeps the last round.
    pub(super) fn new(rigs: Vec<Arc<Rig>>, wire: Wire, file: PathBuf) -> Self {
        let labels = LABEL_FIRST..;
        let backends = rigs.iter().zip(labels);
        Self {
            backends: backends
                .map(|(rig, label)| Backend { rig: Arc::clone(rig), label })
                .collect(),
            rigs,
            wire,
            book: Mutex::new(RoundBook::open(file)),
            orders: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    fn book(&self) -> MutexGuard<'_, RoundBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<Order>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request; `path` is plain.
    pub(super) async fn answer(self: &Arc<Self>, path: &str, parts: Parts, body: Body) -> Response {
        if is_openai(path) {
            return openai::answer(&self.wire, &self.rigs, path, parts, body).await;
        }
        let body = match whole(body).await {
            Ok(body) => body,
            Err((status, message)) => return detail(status, message),
        };
        let Some((methods, route)) = route(path) else {
            return detail(StatusCode::NOT_FOUND, "Not Found");
        };
        if !methods.contains(&parts.method) {
            return detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        match route {
            Route::State => self.state().await,
            Route::Up => self.up(body).await,
            Route::UpAsync => self.up_async(body).await,
            Route::UpStatus => self.up_status().await,
            // A client who gives up must not leave half of the rigs behind: these are carried out to the end.
            Route::Stop => self.to_the_end(|own| async move { own.stop().await }).await,
            Route::Init => self.to_the_end(|own| async move { own.init(body).await }).await,
            Route::ProofStop => self.to_the_end(|own| async move { own.proof_stop().await }).await,
            Route::Generate => self.generate(body).await,
            Route::Job(id) => self.job(id).await,
            Route::ProofStatus => self.proof_status().await,
            Route::Health => self.health().await,
            Route::Ready => self.ready().await,
            Route::Devices => self.devices().await,
            Route::Driver => self.driver().await,
            Route::ModelStatus => self.model_status(body).await,
            Route::ModelDownload => self.model_download(body).await,
            Route::Models => self.model_delete(body).await,
            Route::ModelList => self.model_list().await,
            Route::ModelSpace => self.model_space().await,
            Route::Clock => pages::clock(),
            Route::Embed => self.embed(body).await,
            Route::Metrics => self.metrics(),
        }
    }

    async fn to_the_end<F>(self: &Arc<Self>, carry_out: impl FnOnce(Arc<Self>) -> F) -> Response
    where
        F: Future<Output = Response> + Send + 'static,
    {
        match tokio::spawn(carry_out(Arc::clone(self))).await {
            Ok(response) => response,
            Err(error) => detail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

enum Route<'p> {
    State,
    Stop,
    Up,
    UpAsync,
    UpStatus,
    Init,
    Generate,
    Job(&'p str),
    ProofStatus,
    ProofStop,
    Health,
    Ready,
    Devices,
    Driver,
    ModelStatus,
    ModelDownload,
    Models,
    ModelList,
    ModelSpace,
    Clock,
    Embed,
    Metrics,
}

/// The route of a path, and the methods it has.
fn route(path: &str) -> Option<(&'static [Method], Route<'_>)> {
    const GET: &[Method] = &[Method::GET];
    const POST: &[Method] = &[Method::POST];
    const DELETE: &[Method] = &[Method::DELETE];
    let management = path.strip_prefix("/api/v1");
    Some(match (management, path) {
        (Some("/state"), _) => (GET, Route::State),
        (Some("/stop" | "/inference/down"), _) => (POST, Route::Stop),
        (Some("/inference/up"), _) => (POST, Route::Up),
        (Some("/inference/up/async"), _) => (POST, Route::UpAsync),
        (Some("/inference/up/status"), _) => (GET, Route::UpStatus),
        (Some("/inference/pow/init/generate"), _) => (POST, Route::Init),
        (Some("/inference/pow/generate"), _) => (POST, Route::Generate),
        (Some("/inference/pow/status"), _) => (GET, Route::ProofStatus),
        (Some("/inference/pow/stop"), _) => (POST, Route::ProofStop),
        (Some("/gpu/devices"), _) => (GET, Route::Devices),
        (Some("/gpu/driver"), _) => (GET, Route::Driver),
        (Some("/models/status"), _) => (POST, Route::ModelStatus),
        (Some("/models/download"), _) => (POST, Route::ModelDownload),
        (Some("/models"), _) => (DELETE, Route::Models),
        (Some("/models/list"), _) => (GET, Route::ModelList),
        (Some("/models/space"), _) => (GET, Route::ModelSpace),
        (Some("/clock"), _) => (GET, Route::Clock),
        (Some("/embed"), _) => (POST, Route::Embed),
        (None, "/health" | "/livez") => (GET, Route::Health),
        (None, "/readyz") => (GET, Route::Ready),
        (None, "/metrics") => (GET, Route::Metrics),
        (Some(path), _) => (GET, Route::Job(path.strip_prefix("/inference/pow/generate/")?)),
        (None, _) => return None,
    })
}
