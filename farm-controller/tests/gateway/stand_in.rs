//! A stand-in of a rig's agent: it answers like one, keeps what it was asked, and misbehaves when told to.
//!
//! It computes nothing. Its misdeeds: it hangs, dies in the middle of a stream, answers 500, says it is well when it is
//! not, and is gone and comes back at the same address.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a stand-in answers its customers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Manner {
    /// As it should.
    #[default]
    Proper,
    /// It takes the request and never answers.
    Hangs,
    /// It streams one event and then the connection breaks.
    DiesMidStream,
    /// It streams one event and then nothing.
    Stalls,
    /// It refuses with this status.
    Refuses(u16),
}

/// How a stand-in takes orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mood {
    /// As it should.
    #[default]
    Sane,
    /// It takes its time.
    Slow,
    /// It carries out what it is told, and the line breaks before its answer is there.
    HangsUp,
    /// It does nothing and says this to everything.
    Garbled(u16, &'static str),
}

/// Longer than the other rigs take for an answer.
const SLOW: Duration = Duration::from_millis(4);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query, raw.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Default)]
pub(super) struct Inside {
    pub(super) seen: Vec<Seen>,
    pub(super) chats: Manner,
    pub(super) ill: bool,
    pub(super) loaded: bool,
    /// The round that is being mined, as the order was.
    pub(super) round: Option<Value>,
    /// Every (block hash, nonce) it has mined.
    pub(super) mined: Vec<(String, u64)>,
    pub(super) jobs: BTreeSet<String>,
    /// Answers to orders, by path, instead of its own.
    pub(super) orders: Vec<(&'static str, u16, Value)>,
    pub(super) mood: Mood,
}

struct Shared {
    name: &'static str,
    model: String,
    inside: Mutex<Inside>,
    /// Requests that hang now, and requests that hung and were dropped.
    hanging: watch::Sender<(usize, usize)>,
}

/// See the module head.
pub(super) struct StandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl StandIn {
    pub(super) async fn start(name: &'static str, model: &str) -> Self {
        let shared = Arc::new(Shared {
            name,
            model: model.to_owned(),
            inside: Mutex::new(Inside { loaded: true, ..Inside::default() }),
            hanging: watch::Sender::new((0, 0)),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Some(serve(listener, Arc::clone(&shared)));
        Self { shared, address, server }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn model(&self) -> String {
        self.shared.model.clone()
    }

    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.shared.inside.lock().unwrap()
    }

    /// Requests to this path, looks aside.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        let inside = self.inside();
        inside.seen.iter().filter(|seen| seen.target.starts_with(path)).cloned().collect()
    }

    pub(super) fn hanging(&self) -> watch::Receiver<(usize, usize)> {
        self.shared.hanging.subscribe()
    }

    /// Gone: connections are refused. What it was doing is lost.
    pub(super) async fn die(&mut self) {
        self.go_dark().await;
        self.inside().round = None;
    }

    /// Connections are refused, and it goes on with what it was doing.
    pub(super) async fn go_dark(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Back at the same address.
    pub(super) async fn come_back(&mut self) {
        if self.server.is_some() {
            return;
        }
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(serve(listener, Arc::clone(&self.shared)));
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    let router = Router::new().fallback(answer).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

/// Counts a hanging request, and its end.
struct Hanging(Arc<Shared>);

impl Hanging {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.hanging.send_modify(|(now, _)| *now += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.hanging.send_modify(|(now, dropped)| {
            *now -= 1;
            *dropped += 1;
        });
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let target = parts.uri.to_string();
    let path = parts.uri.path().to_owned();
    let (chats, mood) = {
        let mut inside = shared.inside.lock().unwrap();
        let seen = Seen {
            method: parts.method.to_string(),
            target,
            headers: parts.headers,
            body: body.clone(),
        };
        inside.seen.push(seen);
        (inside.chats, inside.mood)
    };
    match mood {
        Mood::Slow => tokio::time::sleep(SLOW).await,
        Mood::Garbled(status, said) => {
            return (StatusCode::from_u16(status).unwrap(), said).into_response();
        }
        Mood::Sane | Mood::HangsUp => {}
    }
    match path.as_str() {
        "/v1/chat/completions" => chat(&shared, chats, &body).await,
        "/echo" => body.into_response(),
        _ => {
            let mut inside = shared.inside.lock().unwrap();
            let answer = manage(&shared, &mut inside, &path, &body);
            if mood == Mood::HangsUp {
                let broken = std::io::Error::other("the cable is out");
                return Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(broken)]))
                    .into_response();
            }
            answer
        }
    }
}

fn event(text: &str) -> Bytes {
    Bytes::from(format!("data: {text}\n\n"))
}

async fn chat(shared: &Arc<Shared>, manner: Manner, body: &[u8]) -> Response {
    let wants: Value = serde_json::from_slice(body).unwrap_or_default();
    let events = [(header::CONTENT_TYPE, "text/event-stream")];
    match manner {
        Manner::Proper if wants["stream"] == true => {
            let parts = [event("{\"n\":1}"), event("{\"n\":2}"), event("[DONE]")];
            let parts = futures_util::stream::iter(parts.map(Ok::<_, std::io::Error>));
            (events, Body::from_stream(parts)).into_response()
        }
        Manner::Proper => Json(json!({"by": shared.name, "model": wants["model"]})).into_response(),
        Manner::Hangs => {
            let _hanging = Hanging::begin(shared);
            std::future::pending().await
        }
        Manner::DiesMidStream => {
            let parts = futures_util::stream::unfold(0, async |n| match n {
                0 => Some((Ok(event("{\"n\":1}")), 1)),
                _ => {
                    // Once nothing comes, what was written before goes out.
                    tokio::task::yield_now().await;
                    Some((Err(std::io::Error::other("the cable is out")), 2))
                }
            });
            (events, Body::from_stream(parts)).into_response()
        }
        Manner::Stalls => {
            let hanging = Hanging::begin(shared);
            let parts = futures_util::stream::unfold((0, hanging), async |(n, hanging)| {
                if n > 0 {
                    std::future::pending::<()>().await;
                }
                Some((Ok::<_, std::io::Error>(event("{\"n\":1}")), (n + 1, hanging)))
            });
            (events, Body::from_stream(parts)).into_response()
        }
        Manner::Refuses(status) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::RETRY_AFTER, "7")], "no").into_response()
        }
    }
}

fn manage(shared: &Shared, inside: &mut Inside, path: &str, body: &[u8]) -> Response {
    if let Some((_, status, body)) = inside.orders.iter().find(|(at, ..)| *at == path) {
        return (StatusCode::from_u16(*status).unwrap(), Json(body.clone())).into_response();
    }
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let state = if inside.loaded { "INFERENCE" } else { "STOPPED" };
    let word = if inside.round.is_some() { "GENERATING" } else { "IDLE" };
    let proving = path.starts_with("/api/v1/pow/");
    match path {
        "/health" if inside.ill => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unhealthy"}))).into_response()
        }
        "/health" => Json(json!({
            "status": "healthy", "service_state": state,
            "gpu": {"available": true, "count": 1, "devices": [device(shared.name)]},
        }))
        .into_response(),
        "/readyz" => Json(json!({"ready": true})).into_response(),
        "/v1/models" if inside.loaded => {
            Json(json!({"object": "list", "data": [{"id": shared.model, "object": "model"}]}))
                .into_response()
        }
        "/v1/models" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "/api/v1/state" => Json(json!({
            "state": state, "version": "3.0.16",
            "poc_status": if inside.loaded { json!(word) } else { Value::Null },
            "inference_healthy": if inside.loaded { json!(true) } else { Value::Null },
            "loaded_model": if inside.loaded { json!(shared.model) } else { Value::Null },
        }))
        .into_response(),
        "/api/v1/stop" | "/api/v1/inference/down" => {
            inside.loaded = false;
            inside.round = None;
            Json(json!({"status": "OK"})).into_response()
        }
        "/api/v1/inference/up" => {
            inside.loaded = true;
            Json(json!({"status": "OK"})).into_response()
        }
        "/api/v1/inference/up/async" | "/api/v1/inference/up/status" => {
            inside.loaded |= path.ends_with("async");
            let word = if inside.loaded { "running" } else { "not_started" };
            Json(json!({"status": word, "is_running": inside.loaded, "error": null}))
                .into_response()
        }
        "/api/v1/gpu/devices" => {
            Json(json!({"devices": [device(shared.name)], "count": 1})).into_response()
        }
        _ if proving && !inside.loaded => {
            let detail = json!({"detail": "Engine not available"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(detail)).into_response()
        }
        "/api/v1/pow/init/generate" if !is_order(&asked) => {
            let missing =
                json!({"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]});
            (StatusCode::UNPROCESSABLE_ENTITY, Json(missing)).into_response()
        }
        "/api/v1/pow/init/generate" if inside.round.is_some() => {
            let detail = json!({"detail": "Already generating"});
            (StatusCode::CONFLICT, Json(detail)).into_response()
        }
        "/api/v1/pow/init/generate" => {
            inside.round = Some(asked);
            Json(json!({"status": "OK", "pow_status": {"status": "GENERATING"}})).into_response()
        }
        "/api/v1/inference/pow/stop" if !inside.loaded => {
            Json(json!({"status": "OK", "message": "No backends to stop"})).into_response()
        }
        "/api/v1/inference/pow/stop" => {
            inside.round = None;
            Json(json!({
                "status": "OK", "results": [{"port": 5001, "status": "stopped"}], "errors": null,
            }))
            .into_response()
        }
        "/api/v1/inference/pow/status" if !inside.loaded => {
            Json(json!({"status": "NO_BACKENDS", "backends": []})).into_response()
        }
        "/api/v1/inference/pow/status" => Json(json!({
            "status": word,
            "backends": [{"port": 5001, "status": word, "config": inside.round, "stats": null}],
        }))
        .into_response(),
        "/api/v1/pow/generate" if asked["wait"] == true => {
            Json(json!({"status": "completed", "request_id": "w", "artifacts": [], "encoding": {}}))
                .into_response()
        }
        "/api/v1/pow/generate" => {
            let id = format!("{}-{}", shared.name, inside.jobs.len());
            inside.jobs.insert(id.clone());
            let count = asked["nonces"].as_array().map_or(0, Vec::len);
            Json(json!({"status": "queued", "request_id": id, "queued_count": count}))
                .into_response()
        }
        _ => match path.strip_prefix("/api/v1/pow/generate/") {
            Some(id) if inside.jobs.contains(id) => {
                Json(json!({"status": "completed", "request_id": id, "n_total": 1})).into_response()
            }
            Some(_) | None => {
                (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))).into_response()
            }
        },
    }
}

/// Whether it says what is to be proved.
fn is_order(asked: &Value) -> bool {
    ["node_id", "node_count", "group_id", "n_groups"].iter().all(|name| asked[name].is_u64())
        && asked["block_hash"].is_string()
}

fn device(name: &str) -> Value {
    json!({"index": 0, "name": name, "is_available": true})
}

impl StandIn {
    /// Mines the next nonces of its share, if it mines at all: `i + g*N + x*(G*N)`, x from what it has of this round.
    pub(super) fn mine(&self, count: u64) {
        let mut inside = self.inside();
        let Some(round) = inside.round.clone() else { return };
        let number = |name: &str| round[name].as_u64().unwrap();
        let (i, n) = (number("node_id"), number("node_count"));
        let (g, groups) = (number("group_id"), number("n_groups"));
        let hash = round["block_hash"].as_str().unwrap().to_owned();
        let done = inside.mined.iter().filter(|(of, _)| *of == hash).count() as u64;
        for x in done..done + count {
            inside.mined.push((hash.clone(), i + g * n + x * (groups * n)));
        }
    }
}

/// How long a stand-in that hangs is waited for.
pub(super) async fn hangs(
    stand_in: &StandIn,
    wanted: impl FnMut(&(usize, usize)) -> bool,
) -> (usize, usize) {
    let mut hanging = stand_in.hanging();
    let wait = hanging.wait_for(wanted);
    *tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap()
}
