//! The task of a GPU rig: one order at a time, the newest one counts.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use roadbed_protocol::{Workload, WorkloadKind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::hashing::RigMiner;
use super::{Shared, add_shares, is_mining, lock};
use crate::config::{MiningConfig, RigMining};
use crate::driver::{DriverEvent, DriverEvents};
use crate::embedding::EmbeddingService;
use crate::engine::{EngineState, LoadRequest};
use crate::faces::{Gate, GateControl};
use crate::inference::Inference;
use crate::miner::Miner;
use crate::miner::external::supervisor::Limits;
use crate::miner::external::{self, GpuMemory, Launch, Surroundings, end_leftovers};
use crate::proof::ProofEvent;

/// Between two looks whether a miner hashes.
const MINER_POLL: Duration = Duration::from_millis(50);
/// A pool that lets nobody in for this long is a failed start, with its reason; the miner itself keeps trying.
const MINER_WAIT_MAX: Duration = Duration::from_secs(20);

/// What the runtime wants.
#[derive(Debug)]
pub(super) enum Order {
    Probe,
    Start(Workload),
    HandOver(Workload),
    BeginDrain,
    CancelDrain,
    Stop,
    /// Nothing may run; nobody waits for an answer.
    HoldFloor,
}

/// What the task works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) inference: Inference,
    pub(super) gate: GateControl,
    pub(super) configured: LoadRequest,
    /// The encoder beside the model, and what it loads.
    pub(super) encoder: Option<(EmbeddingService, LoadRequest)>,
    pub(super) mining: Option<RigMining>,
    /// Where external miners are written down, to be found by the next agent.
    pub(super) notes: Option<PathBuf>,
    /// Where an external miner says that it has given up.
    pub(super) alarms: mpsc::Sender<String>,
    pub(super) shared: Arc<Mutex<Shared>>,
    /// Held while GPUs are made ready to hash, which works them hard.
    pub(super) opening: Arc<tokio::sync::Mutex<()>>,
}

/// Raises its flag when the start that waits is given up.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Outcome = Pin<Box<dyn Future<Output = Option<DriverEvent>> + Send>>;

/// What is under way.
enum Doing {
    Nothing,
    /// A start or a drain: a newer order ends the waiting for it.
    Replaceable(Outcome),
    /// A stop, which is always carried to its end, and whether its end is awaited by the runtime.
    Stopping {
        outcome: Outcome,
        awaited: bool,
    },
}

pub(super) struct Task {
    parts: Parts,
    events: DriverEvents,
    engine_state: watch::Receiver<EngineState>,
    /// The faces; a rig without them cannot serve.
    serving: JoinHandle<std::io::Result<()>>,
    doing: Doing,
    /// A start ordered while a stop was under way.
    next: Option<Workload>,
}

impl Task {
    pub(super) fn new(
        parts: Parts,
        events: DriverEvents,
        serving: JoinHandle<std::io::Result<()>>,
    ) -> Self {
        let engine_state = parts.inference.state();
        Self { parts, events, engine_state, serving, doing: Doing::Nothing, next: None }
    }

    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut deliveries: mpsc::Receiver<ProofEvent>,
        mut alarms: mpsc::Receiver<String>,
    ) {
        loop {
            let event = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return,
                },
                outcome = self.doing.outcome() => {
                    self.doing = Doing::Nothing;
                    if matches!(outcome, Some(DriverEvent::Failed { .. })) {
                        // The engine's own word for the same failure is not told again.
                        self.engine_state.mark_unchanged();
                    }
                    if let Some(workload) = self.next.take() {
                        self.doing = Doing::Replaceable(Box::pin(self.parts.clone().start(workload)));
                    }
                    outcome
                }
                Some(delivered) = deliveries.recv() => match delivered {
                    ProofEvent::Delivered { block_hash, nonces } => {
                        Some(DriverEvent::ArtifactsDelivered { block_hash, nonces })
                    }
                    ProofEvent::CallbackRefused { block_hash, status, items, reason } => {
                        let items = items as u64;
                        Some(DriverEvent::CallbackRefused { block_hash, status, items, reason })
                    }
                },
                Some(reason) = alarms.recv() => self.miner_gave_up(reason),
                Ok(()) = self.engine_state.changed() => self.engine_changed(),
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    fn take(&mut self, order: Order) -> Option<DriverEvent> {
        match order {
            Order::Probe => {
                return Some(if self.serving.is_finished() {
                    DriverEvent::ProbeFailed { reason: "the HTTP faces have ended".into() }
                } else {
                    DriverEvent::Probed
                });
            }
            Order::Start(workload) => match self.doing {
                Doing::Stopping { .. } => self.next = Some(workload),
                Doing::Nothing | Doing::Replaceable(_) => {
                    self.doing = Doing::Replaceable(Box::pin(self.parts.clone().start(workload)));
                }
            },
            Order::HandOver(to) => return Some(self.parts.hand_over(to)),
            Order::BeginDrain => {
                self.parts.set_accepting(false);
                let Parts { inference, encoder, .. } = self.parts.clone();
                self.doing = Doing::Replaceable(Box::pin(async move {
                    inference.drained().await;
                    if let Some((service, _)) = encoder {
                        service.drained().await;
                    }
                    Some(DriverEvent::Drained)
                }));
            }
            Order::CancelDrain => {
                self.doing = Doing::Nothing;
                self.parts.set_accepting(true);
            }
            Order::Stop => self.stop(WorkloadKind::Idle, Some(DriverEvent::Stopped)),
            Order::HoldFloor => self.stop(WorkloadKind::Curtailed, None),
        }
        None
    }

    fn stop(&mut self, mode: WorkloadKind, answer: Option<DriverEvent>) {
        self.next = None;
        self.parts.gate.set(Gate::Other(mode));
        let awaits = answer.is_some();
        self.doing = match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Stopping { outcome, awaited } if awaited || !awaits => {
                Doing::Stopping { outcome, awaited }
            }
            // The one under way holds the miner; it is waited for, not begun again.
            Doing::Stopping { outcome, awaited: _ } => Doing::Stopping {
                outcome: Box::pin(async move { outcome.await.or(answer) }),
                awaited: true,
            },
            Doing::Replaceable(_) | Doing::Nothing => Doing::Stopping {
                outcome: Box::pin(self.parts.clone().stop(answer)),
                awaited: awaits,
            },
        };
    }

    /// A start or a stop that is under way says it by itself.
    fn miner_gave_up(&self, reason: String) -> Option<DriverEvent> {
        let shared = lock(&self.parts.shared);
        let hashed = is_mining(shared.running.as_ref()) && shared.hashes;
        let told = hashed && matches!(self.doing, Doing::Nothing);
        told.then_some(DriverEvent::Failed { reason })
    }

    /// A device lost under way, or a load that failed after its start was given up.
    fn engine_changed(&mut self) -> Option<DriverEvent> {
        let works = lock(&self.parts.shared)
            .running
            .as_ref()
            .is_some_and(|workload| workload.model().is_some());
        if !works || !matches!(self.doing, Doing::Nothing) {
            return None;
        }
        match &*self.engine_state.borrow_and_update() {
            EngineState::Failed { fault, .. } => {
                Some(DriverEvent::Failed { reason: fault.to_string() })
            }
            EngineState::Empty | EngineState::Loading { .. } | EngineState::Ready(_) => None,
        }
    }
}

impl Doing {
    async fn outcome(&mut self) -> Option<DriverEvent> {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Replaceable(outcome) | Self::Stopping { outcome, awaited: _ } => outcome.await,
        }
    }
}

impl Parts {
    async fn start(self, workload: Workload) -> Option<DriverEvent> {
        Some(match self.begin(&workload).await {
            Ok(()) => DriverEvent::Started { workload },
            Err(reason) => DriverEvent::Failed { reason },
        })
    }

    async fn begin(&self, workload: &Workload) -> Result<(), String> {
        self.free_gpus().await?;
        match workload {
            Workload::Idle | Workload::Curtailed => Err(format!("{workload} is nothing to start")),
            Workload::Mine { .. } => self.start_mining(workload).await,
            Workload::Serve { model } | Workload::Prove { model } => {
                self.start_engine(workload, model).await
            }
        }
    }

    async fn start_mining(&self, workload: &Workload) -> Result<(), String> {
        let mining = self.mining.as_ref().ok_or("no pool is configured for this rig")?;
        self.gate.set(Gate::Other(WorkloadKind::Mine));
        let word = workload.kind().word();
        let miner = match mining {
            RigMining::BuiltIn(mining) => self.built_in(mining, word).await?,
            RigMining::External(config) => {
                let surroundings = Surroundings {
                    notes: self.notes.clone(),
                    gauge: Box::new(GpuMemory::default()),
                    limits: Limits::default(),
                    alarms: Some(self.alarms.clone()),
                };
                let launch = Launch::new((**config).clone(), word);
                RigMiner::External(Box::new(external::start(launch, surroundings)))
            }
        };
        let miner = Arc::new(miner);
        {
            let mut shared = lock(&self.shared);
            shared.running = Some(workload.clone());
            shared.miner = Some(Arc::clone(&miner));
        }
        let began = Instant::now();
        loop {
            let shown = miner.shown();
            if shown.hashing {
                lock(&self.shared).hashes = true;
                return Ok(());
            }
            match mining {
                RigMining::BuiltIn(_) => {
                    if began.elapsed() > MINER_WAIT_MAX && !shown.trouble.is_empty() {
                        return Err(format!("no pool lets this rig mine: {}", shown.trouble));
                    }
                }
                // Its supervision tries again until it gives up; the rig machine has a deadline of its own.
                RigMining::External(_) => {
                    if shown.alarm {
                        return Err(shown.trouble);
                    }
                }
            }
            tokio::time::sleep(MINER_POLL).await;
        }
    }

    async fn built_in(&self, mining: &MiningConfig, word: &str) -> Result<RigMiner, String> {
        let opening = Arc::clone(&self.opening).lock_owned().await;
        let given_up = GivenUp::default();
        let (config, stop) = (mining.clone(), Arc::clone(&given_up.0));
        let opened = tokio::task::spawn_blocking(move || {
            let backends = Miner::open(&config, &stop);
            drop(opening);
            backends
        });
        let backends = opened.await.map_err(|error| format!("opening GPUs: {error}"))?;
        backends
            .and_then(|backends| Miner::start_on(mining, word, backends))
            .map(RigMiner::BuiltIn)
            .map_err(|error| error.to_string())
    }

    /// Frees the GPUs of what hashed before, by this agent or by one that died: nothing is started over it.
    async fn free_gpus(&self) -> Result<(), String> {
        self.end_miner().await?;
        let Some(folder) = self.notes.clone() else { return Ok(()) };
        let ended = tokio::task::spawn_blocking(move || end_leftovers(&folder)).await;
        let ended = ended.map_err(|error| format!("looking for miners left over: {error}"))?;
        ended.map(drop).map_err(|error| error.to_string())
    }

    /// Ends the miner, if there is one. One that does not end stays the rig's, and the next call tries again.
    async fn end_miner(&self) -> Result<(), String> {
        let miner = lock(&self.shared).miner.clone();
        let Some(miner) = miner else { return Ok(()) };
        miner.stop();
        miner.ended().await?;
        let mut shared = lock(&self.shared);
        (shared.miner, shared.hashes) = (None, false);
        shared.mined = add_shares(&shared.mined, &miner.shown().counters);
        Ok(())
    }

    async fn start_engine(&self, workload: &Workload, model: &str) -> Result<(), String> {
        if model != self.configured.served_as {
            return Err(format!(
                "model {model} is not configured here; this rig serves {}",
                self.configured.served_as
            ));
        }
        lock(&self.shared).running = Some(workload.clone());
        self.gate.set(Gate::Ai { model: model.to_owned() });
        let mut configured = self.configured.clone();
        // The small one first: what it takes of the memory is known then.
        if let Some((service, request)) = &self.encoder {
            let encoder = service.load(request.clone()).await.map_err(|fault| fault.to_string())?;
            configured.memory_bytes =
                configured.memory_bytes.map(|all| all.saturating_sub(encoder.memory_bytes));
        }
        self.inference.load(configured).await.map_err(|fault| fault.to_string())?;
        self.set_accepting(true);
        Ok(())
    }

    /// Whether chats and texts are taken.
    fn set_accepting(&self, accepting: bool) {
        self.inference.set_accepting(accepting);
        if let Some((service, _)) = &self.encoder {
            service.set_accepting(accepting);
        }
    }

    /// Serve and prove use the same loaded engine, and mining has no step here: nothing is touched.
    fn hand_over(&self, to: Workload) -> DriverEvent {
        let mut shared = lock(&self.shared);
        let possible = shared.running.as_ref().is_some_and(|running| running.hands_over_to(&to));
        if possible {
            shared.running = Some(to.clone());
            DriverEvent::HandedOver { workload: to }
        } else {
            DriverEvent::Failed { reason: format!("cannot become {to} without a stop") }
        }
    }

    /// Ends everything and says so when no hash thread runs and the model is unloaded.
    async fn stop(self, answer: Option<DriverEvent>) -> Option<DriverEvent> {
        self.inference.stop_proofs().await;
        self.inference.stop_work();
        // The start was given up; what it began ends within one form of the kernel.
        drop(self.opening.lock().await);
        lock(&self.shared).hashes = false;
        if let Err(reason) = self.end_miner().await {
            return Some(DriverEvent::Failed { reason });
        }
        if let Some((service, _)) = &self.encoder
            && let Err(fault) = service.unload().await
        {
            tracing::warn!(%fault, "the encoder has ended");
        }
        if let Err(fault) = self.inference.unload().await {
            // An engine that has ended holds nothing either.
            tracing::warn!(%fault, "the engine has ended");
        }
        lock(&self.shared).running = None;
        answer
    }
}
