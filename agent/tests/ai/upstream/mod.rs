//! A rig whose engine is an external server: what passes, what is refused, and every way such a server can fail.

mod lies;
mod passage;
pub mod process;
mod proofs;
pub mod stand_in;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response};
use roadbed_agent::config::UpstreamConfig;
use roadbed_agent::engine::EngineState;
use roadbed_agent::engine::LoadRequest;
use roadbed_agent::engine::upstream::{Bounds, UpstreamService};
use roadbed_agent::faces::{Faces, FacesSettings, Gate, GateControl, Node, NodeParts, serve};
use roadbed_agent::inference::Inference;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, MODEL, read, until};
use stand_in::StandIn;

/// Longer than any test on a busy machine, and quick to look.
fn bounds() -> Bounds {
    Bounds {
        answer: DEADLINE,
        silence: DEADLINE,
        unread: DEADLINE,
        health_every: Duration::from_millis(20),
        start_poll: Duration::from_millis(10),
        restart: Duration::from_millis(1),
        look_every: Duration::from_millis(20),
        answer_bytes: 1 << 20,
    }
}

/// For servers that say nothing: waits end at once.
fn impatient() -> Bounds {
    let soon = Duration::from_millis(300);
    Bounds { answer: soon, silence: soon, health_every: DEADLINE, ..bounds() }
}

fn attached(stand_in: &StandIn) -> UpstreamConfig {
    UpstreamConfig {
        start_wait: DEADLINE,
        ..UpstreamConfig::attached(stand_in.url().parse().unwrap())
    }
}

/// A rig with a server in its engine's place, listening.
struct Rig {
    address: SocketAddr,
    server: UpstreamService,
    http: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    async fn start(config: UpstreamConfig, bounds: Bounds) -> Self {
        let server = UpstreamService::start(config, MODEL, bounds).unwrap();
        let node = Arc::new(Node::new(NodeParts {
            inference: Inference::Upstream(server.clone()),
            gate: GateControl::new(Gate::Open),
            configured: LoadRequest::of_server(MODEL),
            store: None,
            devices: vec![],
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let faces = Faces::new(node, FacesSettings::default());
        tokio::spawn(serve(listener, faces, stop.clone()));
        Self { address, server, http: reqwest::Client::new(), stop }
    }

    /// A rig before a stand-in that answers.
    async fn before(stand_in: &StandIn, bounds: Bounds) -> Self {
        let rig = Self::start(attached(stand_in), bounds).await;
        rig.server.load().await.unwrap();
        rig
    }

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

    async fn chat(&self) -> (u16, Value) {
        self.post("/v1/chat/completions", chat(json!({}))).await
    }

    async fn metric(&self, name: &str) -> f64 {
        let page = self.send(Method::GET, "/metrics", None).await.text().await.unwrap();
        let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_default().split(' ').next_back().unwrap().parse().unwrap_or(f64::NAN)
    }

    async fn is_ready(&self) {
        let mut state = self.server.state();
        let ready = state.wait_for(|state| state.model().is_some());
        tokio::time::timeout(DEADLINE, ready).await.expect("ready in time").unwrap();
    }

    async fn failure(&self) -> String {
        let mut state = self.server.state();
        let failed = state.wait_for(|state| matches!(state, EngineState::Failed { .. }));
        let state = tokio::time::timeout(DEADLINE, failed).await.expect("a failure in time");
        match &*state.unwrap() {
            EngineState::Failed { fault, .. } => fault.to_string(),
            EngineState::Empty | EngineState::Loading { .. } | EngineState::Ready(_) => {
                String::new()
            }
        }
    }
}

fn chat(more: Value) -> Value {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name.as_str()] = value.clone();
    }
    body
}
