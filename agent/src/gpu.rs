//! The driver of a GPU rig: this machine's engine, proof side, HTTP faces and miner behind one pair of hands.
//!
//! Orders go to one task, which does one thing at a time; a newer order ends the waiting for an older one. Serve and
//! prove share the loaded engine, so a hand-over between them touches nothing; everything else goes through a stop that
//! is said only when the model is unloaded and every hash thread is silent.
//!
//! ```text
//! runtime -> orders -> task -> gate (faces) | engine (load, drain, unload) | miner (start, silence)
//!    ^-- events <------- task <- engine state, proof deliveries
//! ```

mod hashing;
mod rates;
mod task;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadbed_compute::adapter::choose;
use roadbed_compute::poc::{Codebook, CodebookError};
use roadbed_compute::{AdapterChoice, AdapterSummary, list_adapters};
use roadbed_protocol::{
    JobCounters, Millis, ProofRate, ProofStatus, RigProfile, Workload, WorkloadKind,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::FarmClock;
use crate::config::{EngineConfig, GpuConfig, WgpuConfig};
use crate::driver::{DriverEvents, Observation, RigDriver};
use crate::embedding::{EmbeddingService, EncoderLoader};
use crate::engine::catalogue::ModelStore;
use crate::engine::pace::{MeasuredRate, adapter_label, of_rig};
use crate::engine::startup::{load_request, named_gpus};
use crate::engine::upstream::{Bounds, UpstreamService};
use crate::engine::{EngineService, LoadRequest, WgpuLoader};
use crate::faces::pocstream::serve_callbacks;
use crate::faces::{
    AnswerDefaults, Faces, FacesSettings, Gate, GateControl, Node, NodeParts, serve,
};
use crate::inference::Inference;
use crate::journal::Journal;
use crate::miner::external::notes_folder;
use crate::proof::{CallbackStream, ProofEvent, ProofService, ProofSettings};
use crate::sensors::Sensors;

use hashing::RigMiner;
use rates::RigRates;
use task::{Order, Parts, Task};

/// Orders under way to the task; the rig machine gives a handful and waits for what comes of them.
const ORDERS_MAX: usize = 64;
/// Deliveries of artifacts under way to the task.
const DELIVERIES_MAX: usize = 64;
/// Alarms of a miner under way to the task; there is one, and it says why.
const ALARMS_MAX: usize = 4;
/// Artifacts are sent this often in farm time, as the network's own nodes do.
const SEND_EVERY: Millis = Millis::from_secs(5);
/// But on an accelerated clock no more often than this on the wall.
const SEND_EVERY_MIN: Duration = Duration::from_millis(500);

/// Why a GPU rig cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum GpuRigError {
    /// The model is not here.
    #[error("{0}")]
    Model(String),
    /// The faces cannot listen.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The sensor asked for is not there.
    #[error("sensor {0}")]
    Sensor(#[from] crate::sensors::SensorAbsent),
    /// The external server cannot be asked as it is configured.
    #[error("engine: {0}")]
    Server(String),
    /// The codebook of the scheme DECODE is not the network's.
    #[error("gpu.codebook: {0}")]
    Codebook(#[from] CodebookError),
    /// The operating system gives no thread.
    #[error("cannot start the engine thread: {0}")]
    Thread(std::io::Error),
}

/// What the driver and its task both see.
#[derive(Default)]
struct Shared {
    /// What runs, starts or ends.
    running: Option<Workload>,
    miner: Option<Arc<RigMiner>>,
    /// Its start was confirmed.
    hashes: bool,
    /// Work of miners that have ended.
    mined: JobCounters,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hands of a GPU rig.
pub struct GpuDriver {
    orders: mpsc::Sender<Order>,
    shared: Arc<Mutex<Shared>>,
    inference: Inference,
    sensors: Sensors,
    clock: FarmClock,
    address: SocketAddr,
    faces: CancellationToken,
    /// The name of the rig's model.
    served_as: String,
    /// The GPUs it is configured for, as measured rates name them.
    gpus: Vec<String>,
    /// How fast it hashes.
    rates: RigRates,
}

impl GpuDriver {
    /// Starts engine thread, faces and task on the current tokio runtime; nothing is loaded yet.
    ///
    /// # Errors
    /// [`GpuRigError`].
    pub fn spawn(
        config: &GpuConfig,
        profile: &RigProfile,
        clock: FarmClock,
        journal: &Journal,
        events: DriverEvents,
    ) -> Result<Self, GpuRigError> {
        let configured = configured(config)?;
        let sensors = Sensors::open(config.sensor, profile)?;
        let (listener, address) = listen(config.listen)?;
        let (delivered, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let faces = CancellationToken::new();
        let stream = callbacks(config, &faces)?;
        let proofs = Proofs { journal, delivered, stream };
        let inference = inference(config, clock, proofs, configured.gpus.len())?;
        let encoder = encoder(config)?;
        let gate = GateControl::new(Gate::Other(WorkloadKind::Idle));
        let devices = list_adapters();
        let gpus = labels(&devices, &configured.gpus);
        let rates = config.mining.as_ref().map(|mining| RigRates::of(mining, &devices, clock));
        let served_as = configured.served_as.clone();
        let node = Node::new(NodeParts {
            inference: inference.clone(),
            gate: gate.clone(),
            configured: configured.clone(),
            store: ModelStore::from_environment().ok(),
            devices,
        });
        let node = node.with_answers(answers(config));
        let node = match &encoder {
            Some((service, _)) => node.with_embeddings(service.clone()),
            None => node,
        };
        let mut settings = FacesSettings::new(config.auth_token.clone());
        settings.metrics_off |= !config.metrics;
        let serving =
            tokio::spawn(serve(listener, Faces::new(Arc::new(node), settings), faces.clone()));
        tracing::info!(%address, sensor = sensors.name(), "MLNode and OpenAI faces listen");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (alarms, alarmed) = mpsc::channel(ALARMS_MAX);
        let parts = Parts {
            inference: inference.clone(),
            gate,
            configured,
            encoder,
            mining: config.mining.clone(),
            notes: notes_folder(),
            alarms,
            shared: Arc::clone(&shared),
            opening: Arc::default(),
        };
        let (orders, wanted) = mpsc::channel(ORDERS_MAX);
        tokio::spawn(Task::new(parts, events, serving).run(wanted, deliveries, alarmed));
        Ok(Self {
            orders,
            shared,
            inference,
            sensors,
            clock,
            address,
            faces,
            served_as,
            gpus,
            rates: rates.unwrap_or_default(),
        })
    }

    /// Where the faces listen; the port the system chose when the config names none.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A full queue means a stuck task; the rig machine finds out by its own deadline.
    fn order(&self, order: Order) {
        if let Err(error) = self.orders.try_send(order) {
            tracing::error!("an order to the GPU rig is lost: {error}");
        }
    }
}

/// What the proof side is given.
struct Proofs<'j> {
    journal: &'j Journal,
    delivered: mpsc::Sender<ProofEvent>,
    /// Callbacks that are fetched.
    stream: Option<CallbackStream>,
}

/// The line that a Network Node fetches callbacks from, served until `stop`.
fn callbacks(
    config: &GpuConfig,
    stop: &CancellationToken,
) -> Result<Option<CallbackStream>, GpuRigError> {
    let Some(address) = config.pocstream_listen else { return Ok(None) };
    let (listener, address) = listen(address)?;
    let stream = CallbackStream::start()
        .map_err(|error| GpuRigError::Listen { address, reason: error.to_string() })?;
    let serving = serve_callbacks(listener, stream.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "callbacks cannot be fetched any more");
        }
    });
    tracing::info!(%address, "the callback stream listens");
    Ok(Some(stream))
}

/// The engine of a rig, with nothing loaded.
fn inference(
    config: &GpuConfig,
    clock: FarmClock,
    proofs: Proofs<'_>,
    gpus: usize,
) -> Result<Inference, GpuRigError> {
    match &config.engine {
        EngineConfig::Wgpu(wgpu) => {
            let codebook = wgpu.codebook.as_deref().map(Codebook::read).transpose()?;
            let loader = WgpuLoader::of_this_machine().with_codebook(codebook);
            let engine = EngineService::start_over(loader, gpus).map_err(GpuRigError::Thread)?;
            let settings = ProofSettings {
                send_interval: clock.wall_duration(SEND_EVERY).max(SEND_EVERY_MIN),
                apply_p_value_threshold: config.apply_p_value_threshold,
                accuse_with_own_weights: config.accuse_with_own_weights,
                ..ProofSettings::default()
            };
            let Proofs { journal, delivered, stream } = proofs;
            let (artifacts, told) = (Arc::new(journal.clone()), Some(delivered));
            let proof = ProofService::delivering(engine.clone(), artifacts, settings, told, stream);
            Ok(Inference::Own { engine, proof })
        }
        EngineConfig::Upstream(upstream) => {
            if upstream.command.is_none() && config.mining.is_some() {
                tracing::warn!(
                    server = %upstream.url,
                    "the server is not started here, so its GPU memory stays taken while this rig mines; a `command` would free it"
                );
            }
            let bounds = Bounds::default();
            let server = UpstreamService::start((**upstream).clone(), &config.served_as, bounds);
            server.map(Inference::Upstream).map_err(GpuRigError::Server)
        }
    }
}

/// The configured GPUs as measured rates name them; none configured is the best there is.
fn labels(devices: &[AdapterSummary], configured: &[AdapterChoice]) -> Vec<String> {
    let best = [AdapterChoice::Best];
    let configured = if configured.is_empty() { &best[..] } else { configured };
    configured.iter().filter_map(|gpu| choose(devices, gpu).ok()).map(adapter_label).collect()
}

/// How requests are answered that do not say; a server knows it by itself.
fn answers(config: &GpuConfig) -> AnswerDefaults {
    match &config.engine {
        EngineConfig::Wgpu(own) => AnswerDefaults {
            logprobs_mode: own.logprobs.into(),
            by_contract: own.deterministic_sampling,
        },
        EngineConfig::Upstream(_) => AnswerDefaults::default(),
    }
}

/// What is loaded when the rig shall do AI work; a server knows it by itself.
fn configured(config: &GpuConfig) -> Result<LoadRequest, GpuRigError> {
    match &config.engine {
        EngineConfig::Wgpu(WgpuConfig {
            model,
            gpus,
            split,
            context_tokens,
            memory,
            kv,
            codebook: _,
            logprobs: _,
            deterministic_sampling: _,
        }) => {
            let failed = |error: anyhow::Error| GpuRigError::Model(format!("{error:#}"));
            let mut configured = load_request(model, None).map_err(failed)?;
            configured.gpus = named_gpus(gpus).map_err(failed)?;
            configured.split = *split;
            configured.context_tokens = *context_tokens;
            configured.memory_bytes = memory.map(|memory| memory.0);
            configured.kv = (*kv).into();
            configured.served_as.clone_from(&config.served_as);
            Ok(configured)
        }
        EngineConfig::Upstream(_) => Ok(LoadRequest::of_server(&config.served_as)),
    }
}

/// The encoder beside the model, with nothing loaded.
fn encoder(config: &GpuConfig) -> Result<Option<(EmbeddingService, LoadRequest)>, GpuRigError> {
    let (Some(model), EngineConfig::Wgpu(WgpuConfig { gpus, memory, .. })) =
        (&config.embeddings, &config.engine)
    else {
        return Ok(None);
    };
    // An encoder is small: it goes onto the first GPU.
    let first = gpus.first().filter(|word| *word != "all");
    let mut request = load_request(model, first.map(String::as_str))
        .map_err(|error| GpuRigError::Model(format!("{error:#}")))?;
    request.memory_bytes = memory.map(|memory| memory.0);
    let service =
        EmbeddingService::start(EncoderLoader::of_this_machine()).map_err(GpuRigError::Thread)?;
    Ok(Some((service, request)))
}

fn listen(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), GpuRigError> {
    let listener = StdListener::bind(wanted).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    listener.map_err(|error| GpuRigError::Listen { address: wanted, reason: error.to_string() })
}

impl RigDriver for GpuDriver {
    fn probe(&mut self) {
        self.order(Order::Probe);
    }

    fn start(&mut self, workload: Workload) {
        self.order(Order::Start(workload));
    }

    fn hand_over(&mut self, to: Workload) {
        self.order(Order::HandOver(to));
    }

    fn begin_drain(&mut self) {
        self.order(Order::BeginDrain);
    }

    fn cancel_drain(&mut self) {
        self.order(Order::CancelDrain);
    }

    fn stop(&mut self, force: bool) {
        // There is no gentler way that would be worth waiting for, but for an external miner: open chats were drained.
        if force && let Some(miner) = &lock(&self.shared).miner {
            miner.cut();
        }
        self.order(Order::Stop);
    }

    fn hold_floor(&mut self) {
        self.order(Order::HoldFloor);
    }

    fn cut_power(&mut self) {
        // At once, not when the task comes to it.
        if let Some(miner) = &lock(&self.shared).miner {
            miner.cut();
        }
        self.inference.stop_work();
        self.order(Order::HoldFloor);
    }

    fn observe(&mut self) -> Observation {
        let (running, shown, mined) = {
            let shared = lock(&self.shared);
            let shown = shared.miner.as_ref().map(|miner| miner.shown());
            let counters = shown.as_ref().map(|shown| shown.counters).unwrap_or_default();
            let mined = add_shares(&shared.mined, &counters);
            (shared.running.clone(), shown, mined)
        };
        let hashrate = shown.as_ref().map(|shown| shown.hashrate);
        let steady = shown.as_ref().filter(|shown| shown.hashing).map(|shown| shown.hashrate);
        self.rates.look(steady, self.clock);
        let reading = self.sensors.read(self.clock.now(), running.as_ref());
        let (engine, proofs) = (self.inference.stats(), self.inference.proof_counters());
        Observation {
            power: reading.power,
            hashrate: hashrate.filter(|_| is_mining(running.as_ref())),
            temperature: reading.temperature,
            jobs: JobCounters {
                completions: engine.completions,
                tokens: engine.tokens,
                artifacts_computed: engine.artifacts,
                artifacts_delivered: proofs.delivered,
                callbacks_refused: proofs.refused_payloads,
                artifacts_refused: proofs.refused,
                artifacts_dropped: proofs.dropped,
                artifacts_discarded: proofs.discarded,
                nonces_nan: engine.nonces_dropped,
                ..mined
            },
            engine: self.engine_name(running.as_ref()),
            proof_rates: self.proof_rates(),
            proof: self.proof_status(),
            pools: shown.map(|shown| shown.pools).unwrap_or_default(),
            hash_rates: self.rates.told(),
        }
    }
}

impl GpuDriver {
    /// The figures for this rig's model on its GPUs, the newest first; measured by the wall, told in farm time. At every
    /// length: which one the network asks for only the controller knows, and a benchmark measures several.
    fn proof_rates(&self) -> Vec<ProofRate> {
        let rates = self.inference.proof_rates();
        let tell = |rate: &MeasuredRate| {
            Some(ProofRate {
                model: rate.of.model.clone(),
                seq_len: u32::try_from(rate.of.seq_len).ok()?,
                millinonces_per_minute: rate.millinonces_per_minute,
                measured_at: self.clock.at_wall(rate.measured_at),
            })
        };
        of_rig(&rates, &self.served_as, &self.gpus).filter_map(tell).collect()
    }

    /// What the proof side does, in farm time.
    fn proof_status(&self) -> Option<ProofStatus> {
        let status = self.inference.proof_status()?;
        Some(ProofStatus { since: self.clock.at_wall(status.since), ..status })
    }

    fn engine_name(&self, running: Option<&Workload>) -> String {
        match running {
            Some(Workload::Mine { .. }) => {
                lock(&self.shared).miner.as_ref().map(|miner| miner.name()).unwrap_or_default()
            }
            Some(Workload::Serve { .. } | Workload::Prove { .. }) => self.inference.description(),
            Some(Workload::Idle | Workload::Curtailed) | None => String::new(),
        }
    }
}

impl Drop for GpuDriver {
    fn drop(&mut self) {
        self.faces.cancel();
    }
}

fn is_mining(running: Option<&Workload>) -> bool {
    running.is_some_and(|workload| workload.kind() == WorkloadKind::Mine)
}

fn add_shares(before: &JobCounters, now: &JobCounters) -> JobCounters {
    JobCounters {
        shares_submitted: before.shares_submitted + now.shares_submitted,
        shares_accepted: before.shares_accepted + now.shares_accepted,
        shares_rejected: before.shares_rejected + now.shares_rejected,
        shares_stale: before.shares_stale + now.shares_stale,
        ..JobCounters::default()
    }
}
