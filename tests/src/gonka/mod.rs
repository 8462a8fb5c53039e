//! Stand-in of a Gonka Network Node with its chain: blocks, epochs, admin API, public API, callbacks, and a driver of MLNodes.
//!
//! Time is the chain's. A test steps blocks itself ([`GonkaNode::step`] returns when every call of that block is answered), a
//! running stand-in steps them by the farm's clock; the original's timers (30 s between reconciliations, 60 s between status
//! queries) count the chain's time either way. The sequences are the original's, see [`broker`] and [`validation`]; what
//! comes back is judged and every breach of the contract is kept in words.
//!
//! Departures: nothing is signed and nothing is stored on disk; the other participants are made up; a restart keeps node
//! numbers. Misbehaves on purpose: no Content-Type, a callback address encoded twice, refused deliveries, restarts, a skewed
//! clock, and the whole of [`faults`].

pub mod admin;
pub mod broker;
pub mod chain;
pub mod faults;
pub mod public;
pub mod registry;
pub mod replay;
mod serving;
pub mod stage;
pub mod validation;
pub mod weights;
pub mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use broker::Caller;
use chain::{Chain, ConfirmationPhase, EpochParams, Phase};
use faults::Faults;
use registry::{Doing, NodeConfig, Registry};
use serving::Servers;
use stage::StageKind;
use validation::ArtifactSource;
use world::{GonkaStatus, Shared, World, lock};

use crate::clock::FarmClock;

/// The original's pauses, in the chain's time.
const RECONCILE_MS: i64 = 30_000;
const STATUS_MS: i64 = 60_000;

/// The Network Node and its chain as the config file gives them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GonkaConfig {
    /// Public API: `/v1`, `/chain-api`, `/chain-rpc` (8000 in the original).
    pub public_listen: SocketAddr,
    /// Callbacks of MLNodes (9100).
    pub callback_listen: SocketAddr,
    /// Admin API (9200).
    pub admin_listen: SocketAddr,
    /// Address MLNodes are given for callbacks; by default that of `callback_listen`.
    pub callback_url: String,
    /// Lengths of the stages.
    pub params: EpochParams,
    /// What hashes, confirmation PoCs and preserved nodes are drawn from.
    pub seed: u64,
    /// Height at which it starts.
    pub start_height: i64,
    /// Chain time of that block, Unix milliseconds.
    pub start_ms: i64,
    /// Height of the first PoC start.
    pub first_poc_start: i64,
    /// Number of the epoch that begins there.
    pub first_epoch: u64,
    /// Chain time between two blocks.
    pub block_ms: i64,
    /// Steps blocks by the farm's clock; otherwise somebody else does.
    pub runs: bool,
    /// Models the chain has approved.
    pub models: Vec<Model>,
    /// The Host's address.
    pub address: String,
    /// The Host's public key, verbatim in every seed.
    pub public_key: String,
    /// Nodes registered from the start, as in `node-config.json`.
    pub nodes: Vec<NodeConfig>,
    /// The other participants.
    pub strangers: Vec<Stranger>,
    /// Artifacts checked of each.
    pub validation_sample: usize,
    /// Distance above which an artifact mismatches.
    pub dist_threshold: Decimal,
    /// Whether the chain asks for the stronger generator.
    pub stronger_rng: bool,
    /// Nodes that serve on during a PoC.
    pub preserved_nodes: usize,
    /// Rewards of an epoch, all participants together.
    pub epoch_mint_ngonka: u64,
    /// Put before every path, as in a rolling upgrade (`/v3.0.16`); empty for none.
    pub version_prefix: String,
    /// How far our clock is ahead of the real one.
    pub clock_skew_ms: i64,
    /// How the public API misbehaves.
    pub faults: Faults,
}

/// A whole number and a power of ten, as the chain writes decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decimal {
    /// The digits.
    pub value: i64,
    /// The power of ten.
    pub exponent: i32,
}

impl Decimal {
    /// Nearest float; requests to MLNodes carry floats.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "thresholds have a few digits")]
    pub fn as_f64(self) -> f64 {
        self.value as f64 * 10_f64.powi(self.exponent)
    }
}

/// A model of the chain.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Exactly as governance wrote it.
    pub id: String,
    /// Tokens of a nonce.
    pub seq_len: u32,
    /// Weight of a nonce.
    pub coefficient: Decimal,
    /// VRAM an instance needs, GB.
    #[serde(default)]
    pub v_ram: u64,
    /// Ngonka per token.
    #[serde(default)]
    pub price_per_token: u64,
}

/// Another participant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stranger {
    /// `gonka1…`.
    pub address: String,
    /// Hex, verbatim in its seeds.
    pub public_key: String,
    /// Its weight in every epoch.
    pub weight: u64,
    /// Number of its node.
    #[serde(default)]
    pub node_num: u32,
    /// Of so many; at least 1.
    pub node_count: u32,
    /// Whether its artifacts are what they should be.
    pub honest: bool,
}

impl Default for GonkaConfig {
    fn default() -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            public_listen: anywhere,
            callback_listen: anywhere,
            admin_listen: anywhere,
            callback_url: String::new(),
            params: EpochParams::default(),
            seed: 1,
            start_height: 995,
            start_ms: 1_790_000_000_000,
            first_poc_start: 1_000,
            first_epoch: 410,
            block_ms: 5_300,
            runs: false,
            models: Vec::new(),
            address: "gonka1standinhost".to_owned(),
            public_key: "02ab".to_owned(),
            nodes: Vec::new(),
            strangers: Vec::new(),
            validation_sample: 8,
            dist_threshold: Decimal { value: 4, exponent: -1 },
            stronger_rng: false,
            preserved_nodes: 0,
            epoch_mint_ngonka: 266_000_000_000_000,
            version_prefix: String::new(),
            clock_skew_ms: 0,
            faults: Faults::default(),
        }
    }
}

impl GonkaConfig {
    /// The first value that makes no sense: its field, and what was expected there.
    #[must_use]
    pub fn first_fault(&self) -> Option<(String, &'static str)> {
        if let Some((field, expected)) = self.params.first_fault() {
            return Some((format!("params.{field}"), expected));
        }
        if self.models.is_empty() {
            return Some(("models".to_owned(), "at least one model expected"));
        }
        if self.block_ms <= 0 {
            return Some(("block_ms".to_owned(), "milliseconds above zero expected"));
        }
        let approved: Vec<String> = self.models.iter().map(|model| model.id.clone()).collect();
        for (place, node) in self.nodes.iter().enumerate() {
            if !node.faults(&approved).is_empty() {
                return Some((
                    format!("nodes[{place}]"),
                    "a node that the admin API would take expected",
                ));
            }
        }
        let alone = |stranger: &Stranger| stranger.node_count == 0;
        if let Some(place) = self.strangers.iter().position(alone) {
            return Some((format!("strangers[{place}].node_count"), "at least 1 expected"));
        }
        None
    }

    /// The model a node serves: the first approved one it is registered with.
    #[must_use]
    pub fn model_for(&self, node: &NodeConfig) -> Option<&Model> {
        self.models.iter().find(|model| node.models.contains_key(&model.id))
    }

    fn approved(&self) -> Vec<String> {
        self.models.iter().map(|model| model.id.clone()).collect()
    }
}

/// A running Network Node with its chain.
#[derive(Debug)]
pub struct GonkaNode {
    world: Shared,
    caller: Caller,
    source: Option<ArtifactSource>,
    servers: Servers,
    tasks: TaskTracker,
}

impl GonkaNode {
    /// Binds the three servers; blocks come when somebody steps them.
    ///
    /// # Errors
    /// What binding said, or that no HTTP client could be made, or what is wrong with the config.
    pub async fn start(
        config: GonkaConfig,
        source: Option<ArtifactSource>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> std::io::Result<Self> {
        if let Some((field, expected)) = config.first_fault() {
            return Err(std::io::Error::other(format!("{field}: {expected}")));
        }
        let chain = Chain {
            params: config.params,
            seed: config.seed,
            first_poc_start: config.first_poc_start,
            first_epoch: config.first_epoch,
            height: config.start_height,
        };
        let mut registry = Registry::default();
        let epoch = chain.stages().epoch_index;
        for node in &config.nodes {
            let put = registry.upsert(node.clone(), &config.approved(), epoch);
            put.map_err(|faults| std::io::Error::other(faults.join("; ")))?;
        }
        let listeners = [
            TcpListener::bind(config.public_listen).await?,
            TcpListener::bind(config.callback_listen).await?,
            TcpListener::bind(config.admin_listen).await?,
        ];
        let mut config = config;
        if config.callback_url.is_empty() {
            config.callback_url = format!("http://{}", listeners[1].local_addr()?);
        }
        let faults = config.faults.clone();
        let world: Shared = Arc::new(Mutex::new(World {
            config,
            chain,
            registry,
            stages: Vec::new(),
            books: std::collections::BTreeMap::new(),
            faults,
            refuse: None,
            refuse_next: 0,
            forgetful_until: 0,
            callback_down: false,
            down: false,
            counters: GonkaStatus::default(),
        }));
        let caller = Caller::new(Arc::clone(&world)).map_err(std::io::Error::other)?;
        let servers = Servers::start(listeners, &world, stop, tasks)?;
        Ok(Self { world, caller, source, servers, tasks: tasks.clone() })
    }

    /// Base address of the public API.
    #[must_use]
    pub fn public_url(&self) -> String {
        format!("http://{}", self.servers.public)
    }

    /// Base address of the admin API.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.servers.admin)
    }

    /// Base address of the callbacks.
    #[must_use]
    pub fn callback_url(&self) -> String {
        format!("http://{}", self.servers.callback)
    }

    /// Its part of the status document.
    #[must_use]
    pub fn status(&self) -> GonkaStatus {
        lock(&self.world).status()
    }

    /// Looks at or changes the memory.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut lock(&self.world))
    }

    /// Sends one chat and lets a node score it again; the similarity of the two.
    ///
    /// # Errors
    /// What the answers lacked.
    pub async fn validate_inference(
        &self,
        executor: &str,
        validator: &str,
        prompt: &str,
    ) -> Result<f64, String> {
        self.caller.validate_inference(executor, validator, prompt).await
    }

    /// Closes the port of the callbacks alone; returns when nobody can connect to it.
    pub async fn close_callback(&self) {
        lock(&self.world).callback_down = true;
        self.servers.close_callback().await;
    }

    /// Opens it again, at the same address.
    ///
    /// # Errors
    /// What binding it said.
    pub async fn open_callback(&self) -> std::io::Result<()> {
        lock(&self.world).callback_down = false;
        self.servers.open(&self.world, &self.tasks).await
    }

    /// Stops the API process: nobody is answered, nobody is called. The chain and the artifact store stay.
    pub fn go_down(&self) {
        lock(&self.world).down = true;
        self.servers.close();
    }

    /// Starts the API process again: it remembers its nodes and its artifacts, and asks anew what each node does.
    ///
    /// # Errors
    /// What binding the old addresses said.
    pub async fn come_back(&self) -> std::io::Result<()> {
        {
            let mut world = lock(&self.world);
            world.down = false;
            world.registry.forget_states();
        }
        self.servers.open(&self.world, &self.tasks).await?;
        self.want();
        self.query_all().await;
        self.reconcile_all().await;
        Ok(())
    }

    /// Steps to a height.
    pub async fn step_to(&self, height: i64) {
        while lock(&self.world).chain.height < height {
            self.step().await;
        }
    }

    /// One block and everything it brings; returns when every call it made is answered. A halted chain makes no block, but
    /// the API process goes on.
    pub async fn step(&self) {
        let (height, down) = {
            let mut world = lock(&self.world);
            if !world.faults.halted {
                world.chain.height += 1;
                world.on_block();
            }
            (world.chain.height, world.down)
        };
        if down {
            return;
        }
        let changed = self.want();
        let (due_status, due_reconcile, validation) = {
            let world = lock(&self.world);
            (world.is_due(STATUS_MS), world.is_due(RECONCILE_MS), world.validation_begins(height))
        };
        if let Some(place) = validation {
            self.caller.stop_generation(place).await;
            self.caller.validate(place, self.source.as_ref()).await;
        }
        if due_status {
            self.query_all().await;
        }
        if changed || due_reconcile {
            self.reconcile_all().await;
        }
    }

    /// Steps blocks by the farm's clock until `stop`, however long the calls of a block take.
    pub async fn run(self: Arc<Self>, clock: FarmClock, stop: CancellationToken) {
        let (start_ms, block_ms) = {
            let mut world = lock(&self.world);
            world.config.start_ms = clock.now().0;
            (world.config.start_ms, world.config.block_ms)
        };
        let mut blocks = 0;
        loop {
            blocks += 1;
            let at = roadbed_protocol::UnixMillis(start_ms + blocks * block_ms);
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep_until(at) => {}
            }
            let node = Arc::clone(&self);
            self.tasks.spawn(async move { node.step().await });
        }
    }

    /// Decides anew what is wanted of every node; whether anything changed.
    fn want(&self) -> bool {
        let mut world = lock(&self.world);
        let (phase, epoch) = (world.chain.phase(), world.chain.stages().epoch_index);
        let event = world.chain.confirmation();
        let at = world.chain.height;
        let mut changed = false;
        for node in world.registry.iter_mut() {
            let wanted = if !node.is_operational(epoch, phase) {
                Doing::Stopped
            } else if node.preserved {
                Doing::Inference
            } else {
                match (phase, event.map(|event| event.phase_at(at))) {
                    (Phase::Generate | Phase::GenerateWindDown, _)
                    | (Phase::Inference, Some(ConfirmationPhase::Generation)) => Doing::Generating,
                    (Phase::Validate | Phase::ValidateWindDown, _)
                    | (Phase::Inference, Some(ConfirmationPhase::Validation)) => Doing::Validating,
                    (
                        Phase::Inference,
                        None | Some(ConfirmationPhase::Grace | ConfirmationPhase::Completed),
                    ) => Doing::Inference,
                }
            };
            changed |= node.wanted != wanted;
            node.wanted = wanted;
        }
        changed
    }

    async fn query_all(&self) {
        let ids: Vec<String> =
            lock(&self.world).registry.iter().map(|node| node.config.id.clone()).collect();
        futures_util::future::join_all(ids.iter().map(|id| self.caller.query(id))).await;
    }

    /// Every node that does not do what is wanted.
    async fn reconcile_all(&self) {
        let ids: Vec<String> = {
            let world = lock(&self.world);
            let astray = world.registry.iter().filter(|node| node.wanted != node.seen);
            astray.map(|node| node.config.id.clone()).collect()
        };
        futures_util::future::join_all(ids.iter().map(|id| self.caller.reconcile(id))).await;
    }
}

/// Binds and starts a Network Node that steps its blocks by the farm's clock, if the config says so.
///
/// # Errors
/// As [`GonkaNode::start`].
pub async fn start(
    config: &GonkaConfig,
    clock: FarmClock,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<Arc<GonkaNode>> {
    let node = Arc::new(GonkaNode::start(config.clone(), None, stop, tasks).await?);
    if config.runs {
        tasks.spawn(Arc::clone(&node).run(clock, stop.clone()));
    }
    Ok(node)
}

impl World {
    /// What a new block brings on the chain, whoever is up.
    fn on_block(&mut self) {
        let (at, stages) = (self.chain.height, self.chain.stages());
        if at == stages.poc_start {
            self.open_stage(StageKind::Poc, at, at);
        }
        if at >= self.chain.first_poc_start && at == stages.set_new_validators {
            self.set_new_validators();
        }
        if at >= self.chain.first_poc_start && at == stages.claim_money {
            self.claim();
        }
        for event in self.chain.confirmations(&stages) {
            if at == event.generation_start_height {
                let kind = StageKind::Confirmation(event.event_sequence);
                self.open_stage(kind, event.trigger_height, event.generation_start_height - 1);
            }
            if at == event.validation_end_height {
                self.confirm(event.trigger_height);
            }
        }
    }

    /// Whether a timer of so many milliseconds of the chain's time ran out with this block.
    fn is_due(&self, every_ms: i64) -> bool {
        let now = self.now_ms() - self.config.start_ms;
        now / every_ms != (now - self.config.block_ms) / every_ms
    }

    /// The stage whose validation begins with this block.
    fn validation_begins(&self, height: i64) -> Option<usize> {
        let stages = self.chain.stages();
        let event = self.chain.confirmation();
        let begins = height == stages.poc_validation_start && height > self.chain.first_poc_start
            || event.is_some_and(|event| event.validation_start_height == height);
        if begins { self.stage_now() } else { None }
    }

    /// Nodes that take part in the PoC of this moment.
    fn nodes_in_poc(&self) -> Vec<NodeConfig> {
        let (epoch, phase) = (self.chain.stages().epoch_index, self.chain.phase());
        let nodes = self.registry.iter();
        let nodes = nodes.filter(|node| node.is_operational(epoch, phase) && !node.preserved);
        nodes.map(|node| node.config.clone()).collect()
    }
}
