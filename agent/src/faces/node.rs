//! The MLNode's state machine: STOPPED or INFERENCE, driven by the Network Node as far as the gate lets it.
//!
//! The state is never stored, it is read off the engine: what this face says is true even when the engine lost its
//! device a moment ago. Only a Network Node's wish to pause under a controller is remembered, until the gate is set again.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roadbed_compute::{AdapterSummary, LogprobsMode};
use roadbed_protocol::WorkloadKind;

use super::gate::{Gate, GateControl};
use super::metrics::Metrics;
use super::mlnode::{Downloads, ModelHub};
use crate::config::LogprobsWord;
use crate::embedding::{EmbedderInfo, EmbeddingService};
use crate::engine::catalogue::{ModelStore, entry};
use crate::engine::pull::{HubSource, PullError};
use crate::engine::upstream::UpstreamService;
use crate::engine::{EngineFault, EngineService, EngineState, LoadRequest, ModelInfo};
use crate::inference::Inference;
use crate::proof::ProofService;
use crate::sensors::Boards;

/// How long the long orders of a Network Node may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePatience {
    /// `inference/up`, as in the network's own nodes: a driver that hangs keeps nobody waiting for ever.
    pub up: Duration,
    /// `stop`: a Network Node gives a call up after 15 minutes, and shall hear before that it was not stopped.
    pub stop: Duration,
}

impl Default for NodePatience {
    fn default() -> Self {
        Self { up: Duration::from_secs(1200), stop: Duration::from_secs(14 * 60) }
    }
}

/// What `GET /api/v1/state` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// Nothing is up.
    Stopped,
    /// A model is up.
    Inference(Arc<ModelInfo>),
    /// A model was up and is lost.
    Broken {
        /// The name it was served under.
        model: String,
    },
}

/// What `inference/up/status` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UpStatus {
    /// Nobody asked.
    #[default]
    NotStarted,
    /// Loading.
    Starting,
    /// Up.
    Running,
    /// It did not come up.
    Failed(String),
}

/// How far what was asked of `up` is.
#[derive(Debug, Clone, Default)]
struct UpProgress {
    /// Asked for and not at their end, those that wait for others included.
    open: usize,
    /// Stops so far; what was asked for before one does not come up after it.
    stops: u64,
    /// How the last one ended.
    status: UpStatus,
    /// When the newest was asked for.
    began: Option<Instant>,
    /// Set when the last one ended.
    took: Option<Duration>,
}

/// An `up` that was asked for: until it is dropped, the node is starting.
pub(super) struct UpTurn {
    node: Arc<Node>,
    /// Stops before it.
    stops: u64,
    ended: UpStatus,
}

impl UpTurn {
    /// Brings the model up and returns when it answers.
    ///
    /// # Errors
    /// [`UpFault`].
    pub(super) async fn run(
        mut self,
        model: &str,
        context_tokens: Option<usize>,
    ) -> Result<(), UpFault> {
        let node = Arc::clone(&self.node);
        let _changing = node.changing.lock().await;
        let came = if node.progress().stops == self.stops {
            node.up_now(model, context_tokens).await
        } else {
            Err(UpFault::Stopped)
        };
        self.ended = match &came {
            Ok(()) => UpStatus::Running,
            Err(fault) => UpStatus::Failed(fault.to_string()),
        };
        // Before a stop that waits for the change goes on and says that nothing was asked for.
        drop(self);
        came
    }
}

impl Drop for UpTurn {
    fn drop(&mut self) {
        let mut up = self.node.progress();
        up.open = up.open.saturating_sub(1);
        up.status = std::mem::take(&mut self.ended);
        up.took = up.began.map(|began| began.elapsed());
    }
}

/// Why `up` did not bring a model up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpFault {
    /// The rig does something else.
    #[error("Cannot run inference because MLNode is currently in {0} mode. Please stop {0} first.")]
    OtherMode(String),
    /// The controller has given this rig another model.
    #[error("model {requested} cannot be brought up: the controller has assigned {assigned}")]
    OtherModel {
        /// Asked for.
        requested: String,
        /// Assigned.
        assigned: String,
    },
    /// There is no such model here.
    #[error("model {0} is not on this node: neither configured nor downloaded")]
    Unknown(String),
    /// It could not be loaded.
    #[error("{0}")]
    Engine(#[from] EngineFault),
    /// A stop came first.
    #[error("stopped before the model was up")]
    Stopped,
    /// It was not loaded in time.
    #[error("the model did not come up within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// What was started here has not ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not stopped within {} s: the GPU's driver does not answer; restart the agent", .0.as_secs()
)]
pub struct StopFault(Duration);

/// How a node answers where a request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerDefaults {
    /// What log probabilities tell of.
    pub logprobs_mode: LogprobsMode,
    /// Requests that name an inference of the chain are drawn by the deterministic sampling contract.
    pub by_contract: bool,
}

impl From<LogprobsWord> for LogprobsMode {
    fn from(word: LogprobsWord) -> Self {
        match word {
            LogprobsWord::Raw => Self::Raw,
            LogprobsWord::Processed => Self::Processed,
        }
    }
}

/// What a node is made of.
pub struct NodeParts {
    /// What answers.
    pub inference: Inference,
    /// Who decides.
    pub gate: GateControl,
    /// The model this rig is configured for; loaded by `up` when the gate is open.
    pub configured: LoadRequest,
    /// Models that can be fetched and loaded by name.
    pub store: Option<ModelStore>,
    /// The GPUs of this machine.
    pub devices: Vec<AdapterSummary>,
}

/// A node with our own engine: what the paths that need it are given.
pub(super) struct OwnNode {
    node: Arc<Node>,
    pub(super) engine: EngineService,
    pub(super) proof: ProofService,
}

/// A node with a server in the engine's place.
pub(super) struct UpstreamNode {
    node: Arc<Node>,
    pub(super) server: UpstreamService,
}

impl OwnNode {
    pub(super) const fn new(node: Arc<Node>, engine: EngineService, proof: ProofService) -> Self {
        Self { node, engine, proof }
    }
}

impl UpstreamNode {
    pub(super) const fn new(node: Arc<Node>, server: UpstreamService) -> Self {
        Self { node, server }
    }
}

impl Deref for OwnNode {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Deref for UpstreamNode {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

/// See the module head.
pub struct Node {
    pub(super) inference: Inference,
    pub(super) store: Option<ModelStore>,
    pub(super) devices: Vec<AdapterSummary>,
    pub(super) downloads: Downloads,
    pub(super) boards: Boards,
    pub(super) metrics: Metrics,
    embeddings: Option<EmbeddingService>,
    answering: Mutex<AnswerDefaults>,
    /// That of the environment unless given.
    hub: Option<ModelHub>,
    gate: GateControl,
    configured: LoadRequest,
    /// The turn of the gate in which a Network Node asked to pause.
    paused: Mutex<Option<u64>>,
    up: Mutex<UpProgress>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    patience: NodePatience,
}

impl Node {
    /// A node in whatever state its engine is in.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let NodeParts { inference, gate, configured, store, devices } = parts;
        Self {
            inference,
            store,
            devices,
            downloads: Downloads::default(),
            boards: Boards::default(),
            metrics: Metrics::default(),
            embeddings: None,
            answering: Mutex::default(),
            hub: None,
            gate,
            configured,
            paused: Mutex::default(),
            up: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            patience: NodePatience::default(),
        }
    }

    /// The same node with other bounds to long orders.
    #[must_use]
    pub fn with_patience(self, patience: NodePatience) -> Self {
        Self { patience, ..self }
    }

    /// The same node with an encoder beside its model.
    #[must_use]
    pub fn with_embeddings(self, service: EmbeddingService) -> Self {
        Self { embeddings: Some(service), ..self }
    }

    /// The same node with other ways to answer where a request does not say.
    #[must_use]
    pub fn with_answers(self, answering: AnswerDefaults) -> Self {
        Self { answering: Mutex::new(answering), ..self }
    }

    /// How it answers where a request does not say.
    pub(super) fn answering(&self) -> AnswerDefaults {
        *self.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a mode from the engine arguments of an `up`.
    pub(super) fn set_logprobs_mode(&self, mode: LogprobsMode) {
        self.answering.lock().unwrap_or_else(PoisonError::into_inner).logprobs_mode = mode;
    }

    /// The same node with its models from somewhere else than the environment says.
    #[must_use]
    pub fn with_hub(self, hub: ModelHub) -> Self {
        Self { hub: Some(hub), ..self }
    }

    /// Where models are fetched from.
    pub(super) fn hub(&self) -> Result<ModelHub, PullError> {
        self.hub.clone().map_or_else(ModelHub::from_environment, Ok)
    }

    /// What embeds texts, if this rig may do so now.
    pub(super) fn embeddings(&self) -> Option<&EmbeddingService> {
        match self.gate.get() {
            Gate::Other(_) => None,
            Gate::Ai { .. } | Gate::Open => self.embeddings.as_ref(),
        }
    }

    /// The encoder that answers now.
    pub(super) fn encoder(&self) -> Option<Arc<EmbedderInfo>> {
        self.embeddings()?.model()
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> NodeState {
        let turn = self.gate.turn();
        match turn.gate {
            Gate::Other(_) => return NodeState::Stopped,
            Gate::Ai { .. } if self.is_paused(turn.turn) => return NodeState::Stopped,
            Gate::Ai { .. } | Gate::Open => {}
        }
        match &*self.inference.state().borrow() {
            EngineState::Empty | EngineState::Loading { .. } => NodeState::Stopped,
            EngineState::Ready(info) => NodeState::Inference(Arc::clone(info)),
            EngineState::Failed {
                served_as,
                fault: EngineFault::DeviceLost { .. } | EngineFault::ServerLost { .. },
            } => NodeState::Broken { model: served_as.clone() },
            // It never was up.
            EngineState::Failed { .. } => NodeState::Stopped,
        }
    }

    /// The model that answers now, if the node is up.
    #[must_use]
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        match self.state() {
            NodeState::Inference(info) => Some(info),
            NodeState::Stopped | NodeState::Broken { .. } => None,
        }
    }

    fn is_paused(&self, turn: u64) -> bool {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) == Some(turn)
    }

    fn set_paused(&self, turn: Option<u64>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }

    /// How the last `up` went, and how long it has taken or took.
    #[must_use]
    pub fn up_status(&self) -> (UpStatus, Option<Duration>) {
        let UpProgress { open, stops: _, status, began, took } = self.progress().clone();
        if open > 0 {
            return (UpStatus::Starting, began.map(|began| began.elapsed()));
        }
        let status = match (self.state(), status) {
            (NodeState::Inference(_), _) => UpStatus::Running,
            (NodeState::Stopped | NodeState::Broken { .. }, UpStatus::Running) => {
                UpStatus::NotStarted
            }
            (NodeState::Stopped | NodeState::Broken { .. }, status) => status,
        };
        (status, took)
    }

    fn progress(&self) -> MutexGuard<'_, UpProgress> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `up` may begin, without beginning it.
    ///
    /// # Errors
    /// [`UpFault::OtherMode`], [`UpFault::OtherModel`], [`UpFault::Unknown`].
    pub fn check_up(&self, model: &str) -> Result<(), UpFault> {
        match self.gate.get() {
            Gate::Other(kind) => Err(UpFault::OtherMode(mode(kind))),
            Gate::Ai { model: assigned } if assigned != model => {
                Err(UpFault::OtherModel { requested: model.to_owned(), assigned })
            }
            Gate::Ai { .. } => Ok(()),
            Gate::Open => self.load_request(model, None).map(drop),
        }
    }

    /// Brings a model up and returns when it answers.
    ///
    /// # Errors
    /// [`UpFault`].
    pub async fn up(
        self: &Arc<Self>,
        model: &str,
        context_tokens: Option<usize>,
    ) -> Result<(), UpFault> {
        self.begin_up(model)?.run(model, context_tokens).await
    }

    /// Takes an order to bring a model up in: from now on the node says that it is starting.
    ///
    /// # Errors
    /// As [`Node::check_up`].
    pub(super) fn begin_up(self: &Arc<Self>, model: &str) -> Result<UpTurn, UpFault> {
        self.check_up(model)?;
        let mut up = self.progress();
        up.open += 1;
        up.began = Some(Instant::now());
        let stops = up.stops;
        drop(up);
        Ok(UpTurn { node: Arc::clone(self), stops, ended: UpStatus::NotStarted })
    }

    async fn up_now(&self, model: &str, context_tokens: Option<usize>) -> Result<(), UpFault> {
        self.check_up(model)?;
        self.inference.stop_proofs().await;
        match self.gate.get() {
            Gate::Open => {
                let request = self.load_request(model, context_tokens)?;
                let up_already = self.inference.model().is_some_and(|info| {
                    info.served_as == request.served_as
                        && request.context_tokens.is_none_or(|wanted| wanted == info.context_tokens)
                });
                if up_already {
                    // The same model in a new process would be the same model.
                    self.inference.stop_work();
                } else {
                    let loaded = self.inference.load(request);
                    match tokio::time::timeout(self.patience.up, loaded).await {
                        Ok(Err(EngineFault::Cancelled)) => return Err(UpFault::Stopped),
                        Ok(loaded) => drop(loaded?),
                        Err(_elapsed) => {
                            // Whenever it comes up, nobody waits for it; nor may this wait for that.
                            let inference = self.inference.clone();
                            tokio::spawn(async move { drop(inference.unload().await) });
                            return Err(UpFault::Timeout(self.patience.up));
                        }
                    }
                }
                Ok(())
            }
            Gate::Ai { .. } | Gate::Other(_) => {
                self.set_paused(None);
                let mut state = self.inference.state();
                let settled = state.wait_for(|state| match state {
                    EngineState::Ready(_) | EngineState::Failed { .. } => true,
                    EngineState::Empty | EngineState::Loading { .. } => false,
                });
                match tokio::time::timeout(self.patience.up, settled).await {
                    Ok(Ok(state)) => match &*state {
                        EngineState::Failed { fault, .. } => Err(fault.clone().into()),
                        EngineState::Ready(_)
                        | EngineState::Empty
                        | EngineState::Loading { .. } => Ok(()),
                    },
                    Ok(Err(_closed)) => Err(EngineFault::ShutDown.into()),
                    Err(_elapsed) => Err(UpFault::Timeout(self.patience.up)),
                }
            }
        }
    }

    fn load_request(
        &self,
        model: &str,
        context_tokens: Option<usize>,
    ) -> Result<LoadRequest, UpFault> {
        let mut request = self.configured.clone();
        request.context_tokens = context_tokens.or(request.context_tokens);
        if model == request.served_as {
            return Ok(request);
        }
        if matches!(self.inference, Inference::Upstream(_)) {
            return Err(UpFault::Unknown(model.to_owned()));
        }
        // Only names: a path in a request would let the network read this machine's files.
        let hub_name = || {
            let source = model.parse::<HubSource>().ok()?;
            (source.file.is_none() && source.repo() == model).then(|| format!("hf:{model}"))
        };
        let name = entry(model).map(|entry| entry.name.to_owned()).or_else(hub_name);
        let found = name
            .zip(self.store.as_ref())
            .and_then(|(name, store)| store.find(&name).ok())
            .ok_or_else(|| UpFault::Unknown(model.to_owned()))?;
        request.path = found.path;
        request.served_as = model.to_owned();
        Ok(request)
    }

    /// Stops everything this face has started; returns when it has ended. Safe in any state.
    ///
    /// # Errors
    /// [`StopFault`] if it has not ended in time.
    pub async fn stop(&self) -> Result<(), StopFault> {
        let patience = self.patience.stop;
        let stopped = tokio::time::timeout(patience, self.stop_now()).await;
        stopped.map_err(|_elapsed| StopFault(patience))
    }

    async fn stop_now(&self) {
        self.progress().stops += 1;
        self.inference.stop_proofs().await;
        let turn = self.gate.turn();
        match turn.gate {
            Gate::Open => {
                // A load under way, or a server's start, is broken off by this.
                self.unload().await;
                let _changing = self.changing.lock().await;
                self.unload().await;
                let mut up = self.progress();
                (up.status, up.took) = (UpStatus::NotStarted, None);
            }
            Gate::Ai { .. } => {
                // The rig machine keeps the model loaded; this face just stops using it.
                self.set_paused(Some(turn.turn));
                self.inference.stop_work();
            }
            Gate::Other(_) => {}
        }
    }

    async fn unload(&self) {
        if let Err(fault) = self.inference.unload().await {
            tracing::warn!(%fault, "nothing left to unload");
        }
    }
}

fn mode(kind: WorkloadKind) -> String {
    kind.word().to_uppercase()
}
