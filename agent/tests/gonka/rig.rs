//! A rig that can be killed and started again where it was, and a Network Node that knows it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farm_tests::gonka::registry::{ModelArgs, NodeConfig};
use farm_tests::gonka::stage::StageStatus;
use farm_tests::gonka::validation::{ArtifactSource, SourceOrder};
use farm_tests::gonka::{Decimal, GonkaConfig, GonkaNode, Model, Stranger};
use roadbed_agent::config::Split;
use roadbed_agent::engine::{BackendLoader, EngineService, LoadRequest};
use roadbed_agent::faces::{Faces, FacesSettings, Gate, GateControl, Node, NodeParts, serve};
use roadbed_agent::inference::Inference;
use roadbed_agent::proof::{ArtifactJournal, MemoryJournal, ProofService, ProofSettings};
use roadbed_compute::poc::{Identity, Round, Scheme, artifact::encode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ai::DEADLINE;
use crate::ai::stand_in::{Script, StandInLoader, vector};
pub use crate::ai::until;

pub const MODEL: &str = "Org/Stand-In-1B";

/// As `until`, for what has to be asked for.
pub async fn until_async<T>(what: &str, mut seen: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = seen().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn load_request(path: &str) -> LoadRequest {
    LoadRequest {
        path: path.into(),
        served_as: MODEL.into(),
        gpus: vec![],
        split: Split::Auto,
        context_tokens: None,
        memory_bytes: None,
        kv: roadbed_compute::llm::KvFormat::F32,
    }
}

/// What outlives a rig's process: its address and its journal.
#[derive(Clone)]
pub struct Home {
    pub address: SocketAddr,
    pub journal: Arc<dyn ArtifactJournal>,
}

impl Home {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, journal: Arc::new(MemoryJournal::default()) }
    }
}

/// A rig's process.
pub struct Rig {
    pub script: Arc<Script>,
    pub engine: EngineService,
    pub proof: ProofService,
    stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl Rig {
    /// A rig with the stand-in engine; as after a start of the agent, with its model loaded again or with none.
    pub async fn start(home: &Home, loaded: bool) -> Self {
        let script = Arc::new(Script::default());
        let loader = StandInLoader(Arc::clone(&script));
        Self::over(home, script, loader, load_request("/nowhere/stand-in.gguf"), loaded).await
    }

    pub async fn over(
        home: &Home,
        script: Arc<Script>,
        loader: impl BackendLoader + 'static,
        configured: LoadRequest,
        loaded: bool,
    ) -> Self {
        let engine = EngineService::start(loader).unwrap();
        if loaded {
            engine.load(configured.clone()).await.unwrap();
        }
        // The network's artifacts are of the rig's own file, whatever its weights.
        let settings = ProofSettings {
            send_interval: Duration::from_millis(20),
            retry_first: Duration::from_millis(20),
            accuse_with_own_weights: true,
            ..ProofSettings::default()
        };
        let journal = Arc::clone(&home.journal);
        let proof = ProofService::new(engine.clone(), journal, settings, None);
        let node = Arc::new(Node::new(NodeParts {
            inference: Inference::Own { engine: engine.clone(), proof: proof.clone() },
            gate: GateControl::new(Gate::Open),
            configured,
            store: None,
            devices: vec![crate::ai::stand_in::adapter()],
        }));
        let listener = TcpListener::bind(home.address).await.unwrap();
        let stop = CancellationToken::new();
        let faces = Faces::new(node, FacesSettings::default());
        let served = tokio::spawn(serve(listener, faces, stop.clone()));
        Self { script, engine, proof, stop, served }
    }

    /// The process dies: nothing is said to anybody, nothing more is computed or sent.
    pub async fn kill(self) -> Vec<u32> {
        self.stop.cancel();
        self.engine.clone().shut_down().await;
        self.proof.stop();
        self.served.await.unwrap().unwrap();
        self.script.proved.lock().unwrap().clone()
    }

    /// Nonces computed since the process began.
    pub fn proved(&self) -> usize {
        self.script.proved.lock().unwrap().len()
    }
}

/// A Network Node whose strangers' artifacts are those of the stand-in engine.
pub fn config() -> GonkaConfig {
    let stranger = |name: &str, key: &str, node_num: u32, honest: bool| Stranger {
        address: format!("gonka1{name}"),
        public_key: key.to_owned(),
        weight: 1_000,
        node_num,
        node_count: 3,
        honest,
    };
    GonkaConfig {
        models: vec![Model {
            id: MODEL.to_owned(),
            seq_len: 64,
            coefficient: Decimal { value: 1, exponent: 0 },
            v_ram: 1,
            price_per_token: 100,
        }],
        strangers: vec![
            stranger("honest", "02aa", 1, true),
            stranger("cheat", "02bb", 2, false),
            stranger("other", "02cc", 0, true),
        ],
        // Two blocks between reconciliations, four between status queries.
        block_ms: 15_000,
        ..GonkaConfig::default()
    }
}

/// Right artifacts of anybody.
pub fn source() -> ArtifactSource {
    ArtifactSource(Arc::new(|order: &SourceOrder| {
        let identity =
            Identity { block_hash: order.block_hash.clone(), public_key: order.public_key.clone() };
        let seq_len = usize::try_from(order.seq_len).unwrap();
        let (stronger_rng, scheme) = (order.stronger_rng, Scheme::Prefill);
        let round = Round { identity, seq_len, k_dim: 12, stronger_rng, scheme };
        order.nonces.iter().map(|&nonce| encode(&vector(&round, nonce)).unwrap()).collect()
    }))
}

pub fn registration(id: &str, address: SocketAddr) -> NodeConfig {
    NodeConfig {
        id: id.to_owned(),
        host: address.ip().to_string(),
        inference_segment: String::new(),
        inference_port: i64::from(address.port()),
        poc_segment: String::new(),
        poc_port: i64::from(address.port()),
        base_url: String::new(),
        auth_token: String::new(),
        models: [(MODEL.to_owned(), ModelArgs::default())].into(),
        max_concurrent: 8,
        hardware: Vec::new(),
    }
}

/// A Network Node five blocks before its first PoC that knows these rigs.
pub async fn node_of(config: GonkaConfig, rigs: &[&Home]) -> GonkaNode {
    let stop = CancellationToken::new();
    let node = GonkaNode::start(config, Some(source()), &stop, &TaskTracker::new()).await.unwrap();
    let http = reqwest::Client::new();
    for (place, home) in rigs.iter().enumerate() {
        let body =
            serde_json::to_string(&registration(&format!("rig-{place}"), home.address)).unwrap();
        let answer = http.post(format!("{}/admin/v1/nodes", node.admin_url())).body(body).send();
        assert_eq!(answer.await.unwrap().status().as_u16(), 200);
    }
    node
}

pub fn last_stage(node: &GonkaNode) -> StageStatus {
    node.status().stages.last().cloned().unwrap()
}

/// Waits until the last stage holds so many artifacts.
pub async fn artifacts(node: &GonkaNode, count: u64) -> u64 {
    until("artifacts", || {
        let held = last_stage(node).artifacts;
        (held >= count).then_some(held)
    })
    .await
}

/// The nonces that a stage holds of a node.
pub fn nonces(node: &GonkaNode, place: usize, id: &str) -> BTreeSet<u32> {
    node.with(|world| world.stages[place].nonces_of(id).into_iter().collect())
}

/// Nonces `number + x * count` from `x = 0` on without a gap.
pub fn is_whole(nonces: &BTreeSet<u32>, number: u32, count: u32) -> bool {
    nonces.iter().zip(0..).all(|(nonce, x)| *nonce == number + x * count)
}

/// Ends the stage under way: validation, all its verdicts, and the blocks until nobody asks anything.
pub async fn validated(node: &GonkaNode, start: i64, end: i64) {
    node.step_to(start).await;
    let jobs = last_stage(node).jobs;
    until("verdicts", || (last_stage(node).verdicts.len() as u64 == jobs).then_some(())).await;
    node.step_to(end).await;
}
