//! The AI side over real sockets: engine service, MLNode face, OpenAI face, proof rounds.
//!
//! Behind the queue stands a stand-in engine ([`stand_in`]) whose every answer is known; one module runs the real one.

mod answers;
mod callback;
mod contract;
mod embeddings;
mod engine;
mod gateway;
mod infval;
mod mlnode;
mod openai;
mod pocstream;
mod rendering;
mod replicas;
mod rounds;
mod smollm2;
pub mod stand_in;
pub mod upstream;
mod verify;
mod walks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use roadbed_agent::config::Split;
use roadbed_agent::embedding::EmbeddingService;
use roadbed_agent::engine::catalogue::ModelStore;
use roadbed_agent::engine::{EngineService, LoadRequest};
use roadbed_agent::faces::{
    Faces, FacesSettings, Gate, GateControl, ModelHub, Node, NodeParts, NodePatience, serve,
};
use roadbed_agent::inference::Inference;
use roadbed_agent::proof::{
    ArtifactJournal, CallbackStream, MemoryJournal, ProofEvent, ProofService, ProofSettings,
};
use roadbed_compute::AdapterSummary;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use stand_in::{Script, StandInLoader};

const MODEL: &str = "org/stand-in";
/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `seen` gives something.
pub async fn until<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn load_request() -> LoadRequest {
    LoadRequest {
        path: "/nowhere/stand-in.gguf".into(),
        served_as: MODEL.into(),
        gpus: vec![],
        split: Split::Auto,
        context_tokens: None,
        memory_bytes: None,
        kv: roadbed_compute::llm::KvFormat::F32,
    }
}

/// Quick deliveries, short waits.
fn quick() -> ProofSettings {
    ProofSettings {
        send_interval: Duration::from_millis(20),
        retry_first: Duration::from_millis(20),
        job_wait_max: Duration::from_millis(300),
        ..ProofSettings::default()
    }
}

/// One rig's AI side, listening.
struct Rig {
    address: SocketAddr,
    engine: EngineService,
    proof: ProofService,
    gate: GateControl,
    script: Arc<Script>,
    http: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct RigParts {
    gate: Gate,
    loaded: bool,
    auth_token: Option<String>,
    journal: Arc<dyn ArtifactJournal>,
    settings: ProofSettings,
    embeddings: Option<EmbeddingService>,
    metrics_off: bool,
    devices: Vec<AdapterSummary>,
    store: ModelStore,
    hub: ModelHub,
    stream: Option<CallbackStream>,
    patience: NodePatience,
}

impl Default for RigParts {
    fn default() -> Self {
        Self {
            gate: Gate::Open,
            loaded: true,
            auth_token: None,
            journal: Arc::new(MemoryJournal::default()),
            settings: quick(),
            embeddings: None,
            metrics_off: false,
            devices: vec![stand_in::adapter()],
            store: ModelStore::at("/nowhere/models"),
            hub: ModelHub::Offline,
            stream: None,
            patience: NodePatience::default(),
        }
    }
}

async fn rig() -> Rig {
    Rig::start(RigParts::default()).await
}

impl Rig {
    async fn start(parts: RigParts) -> Self {
        Self::start_telling(parts, None).await
    }

    /// A rig that tells what becomes of its artifacts.
    async fn start_telling(parts: RigParts, told: Option<mpsc::Sender<ProofEvent>>) -> Self {
        let script = Arc::new(Script::default());
        let engine = EngineService::start(StandInLoader(Arc::clone(&script))).unwrap();
        if parts.loaded {
            engine.load(load_request()).await.unwrap();
        }
        let RigParts { journal, settings, stream, .. } = parts;
        let proof = ProofService::delivering(engine.clone(), journal, settings, told, stream);
        let gate = GateControl::new(parts.gate);
        let node = Node::new(NodeParts {
            inference: Inference::Own { engine: engine.clone(), proof: proof.clone() },
            gate: gate.clone(),
            configured: load_request(),
            store: Some(parts.store),
            devices: parts.devices,
        })
        .with_hub(parts.hub)
        .with_patience(parts.patience);
        let node = Arc::new(match parts.embeddings {
            Some(service) => node.with_embeddings(service),
            None => node,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (auth_token, metrics_off) = (parts.auth_token, parts.metrics_off);
        let faces = Faces::new(node, FacesSettings { auth_token, metrics_off });
        tokio::spawn(serve(listener, faces, stop.clone()));
        Self { address, engine, proof, gate, script, http: reqwest::Client::new(), stop }
    }

    /// Sends a body without a Content-Type, as Go's client does.
    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Response {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        let request = match body {
            Some(body) => request.body(body),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        read(self.send(Method::GET, path, None).await).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.send(Method::POST, path, Some(body.to_string())).await).await
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
