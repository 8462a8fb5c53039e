//! The handle of an external server: the counterpart of [`EngineService`](super::super::EngineService), with the same
//! states, bounds and counts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::super::backend::ModelInfo;
use super::super::fault::EngineFault;
use super::super::queue::{JOBS_QUEUED_MAX, RETRY_SECONDS_MAX};
use super::super::replica::Counters;
use super::super::service::{EngineState, EngineStats, Occupancy};
use super::fault::{PassFault, UpstreamFault};
use super::keeper::{Order, keep};
use super::passage::{Asked, Passed, pass};
use super::probe::{self, ProofPaths, Reading, Served};
use super::wire::Wire;
use crate::config::{UpstreamConfig, UpstreamUrl};

/// Loads and unloads that may wait; more is a caller that repeats itself.
const ORDERS_MAX: usize = 16;
/// Requests in a row that the server failed before it is asked whether it still can.
const STRIKES_MAX: u32 = 3;
/// To begin or end a proof takes the server a moment; what takes longer is broken.
const PROOF_STOP_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long things may take, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A whole answer, or the beginning of a stream; that of the network's own proxy.
    pub answer: Duration,
    /// Between two pieces of a stream. A server that stalls so long in the middle of an answer is stuck.
    pub silence: Duration,
    /// A customer who reads nothing of his stream.
    pub unread: Duration,
    /// Between two looks at a server that answers, as often as the network's own nodes look.
    pub health_every: Duration,
    /// Between two looks at one that does not answer yet.
    pub start_poll: Duration,
    /// Before the first restart; four times as long before the next.
    pub restart: Duration,
    /// Between two looks for a server of somebody else's that was given up.
    pub look_every: Duration,
    /// Largest whole answer.
    pub answer_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(900),
            silence: Duration::from_secs(120),
            unread: Duration::from_secs(60),
            health_every: Duration::from_secs(2),
            start_poll: Duration::from_millis(250),
            restart: Duration::from_secs(1),
            look_every: Duration::from_secs(5),
            // An answer of 100 000 tokens with twenty alternatives each is below it.
            answer_bytes: 128 << 20,
        }
    }
}

/// What the handles, the keeper and the passages share.
pub(super) struct Shared {
    pub(super) config: UpstreamConfig,
    pub(super) served_as: String,
    pub(super) bounds: Bounds,
    pub(super) wire: Wire,
    pub(super) state: watch::Sender<EngineState>,
    pub(super) counters: Counters,
    pub(super) restarts: AtomicU64,
    pub(super) open: watch::Sender<usize>,
    /// Requests at the server.
    pub(super) places: Arc<Semaphore>,
    /// Requests before it.
    pub(super) line: Arc<Semaphore>,
    /// Told when the server should be looked at.
    pub(super) suspect: Notify,
    pub(super) ended: watch::Sender<bool>,
    accepting: AtomicBool,
    strikes: AtomicU32,
    served: Mutex<Option<Served>>,
    /// Replaced at every stop; requests live under the one of their time.
    work: Mutex<CancellationToken>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn served(&self) -> Option<Served> {
        lock(&self.served).clone()
    }

    pub(super) fn set_served(&self, served: Option<Served>) {
        *lock(&self.served) = served;
    }

    pub(super) fn work(&self) -> CancellationToken {
        lock(&self.work).clone()
    }

    pub(super) fn stop_work(&self) {
        std::mem::take(&mut *lock(&self.work)).cancel();
    }

    pub(super) fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire)
    }

    /// Notes how a request went at the server.
    pub(super) fn judge(&self, outcome: Result<(), &UpstreamFault>) {
        match outcome {
            Ok(()) => self.strikes.store(0, Ordering::Relaxed),
            Err(fault) if fault.is_servers() => {
                let strikes = self.strikes.fetch_add(1, Ordering::Relaxed) + 1;
                let gone = matches!(fault, UpstreamFault::Unreachable { .. });
                if gone || strikes >= STRIKES_MAX {
                    self.suspect.notify_one();
                }
            }
            Err(_) => {}
        }
    }

    pub(super) fn forgive(&self) {
        self.strikes.store(0, Ordering::Relaxed);
    }

    /// When a place is likely to be free, by the time answers took so far.
    pub(super) fn retry_seconds(&self) -> u64 {
        let done = self.counters.completions.load(Ordering::Relaxed).max(1);
        let busy = self.counters.busy_millis.load(Ordering::Relaxed);
        let mean_millis = (busy / done).max(1_000);
        let turns = (JOBS_QUEUED_MAX / self.config.concurrent.max(1)).max(1) as u64;
        (mean_millis * turns).div_ceil(1_000).clamp(1, RETRY_SECONDS_MAX)
    }

    /// Ends a proof the server may be busy with; a server that is gone proves nothing either.
    pub(super) async fn stop_proofs(&self) {
        let Some(base) = self.served().and_then(|served| served.proofs.base()) else { return };
        let body = Some(Bytes::from_static(b"{}"));
        let path = format!("{base}/stop");
        let stopped = self.wire.ask_whole(Method::POST, &path, body, PROOF_STOP_WAIT_MAX).await;
        if let Err(fault) = stopped {
            tracing::warn!(%fault, "the server was told to prove no more and did not answer");
        }
    }
}

/// An external server. Cheap to clone; the server, if it is ours, ends with the last clone.
#[derive(Clone)]
pub struct UpstreamService {
    pub(super) shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

impl UpstreamService {
    /// Begins to keep a server, on the current tokio runtime; nothing is started or asked yet.
    ///
    /// # Errors
    /// A key or an address that cannot be used; the text says which.
    pub fn start(config: UpstreamConfig, served_as: &str, bounds: Bounds) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            wire: Wire::new(&config, bounds.answer_bytes)?,
            places: Arc::new(Semaphore::new(config.concurrent)),
            line: Arc::new(Semaphore::new(JOBS_QUEUED_MAX)),
            config,
            served_as: served_as.to_owned(),
            bounds,
            state: watch::Sender::new(EngineState::Empty),
            counters: Counters::default(),
            restarts: AtomicU64::new(0),
            open: watch::Sender::new(0),
            suspect: Notify::new(),
            ended: watch::Sender::new(false),
            accepting: AtomicBool::new(true),
            strikes: AtomicU32::new(0),
            served: Mutex::default(),
            work: Mutex::default(),
        });
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        tokio::spawn(keep(Arc::clone(&shared), received));
        Ok(Self { shared, orders })
    }

    /// Starts the server if it is ours, and returns when it answers. One that answers already is left alone.
    ///
    /// # Errors
    /// [`EngineFault::Load`] with what was seen of it last.
    pub async fn load(&self) -> Result<Arc<ModelInfo>, EngineFault> {
        let (done, answer) = oneshot::channel();
        self.order(Order::Load { done })?;
        answer.await.unwrap_or(Err(EngineFault::ShutDown))
    }

    /// Cancels all work and lets the server go. One of ours is ended: when this returns, its GPU memory is free.
    ///
    /// # Errors
    /// [`EngineFault::ShutDown`] if the keeper has ended, and the server with it.
    pub async fn unload(&self) -> Result<(), EngineFault> {
        self.stop_work();
        let (done, answer) = oneshot::channel();
        self.order(Order::Unload { done })?;
        answer.await.map_err(|_gone| EngineFault::ShutDown)
    }

    /// Cancels everything that runs or waits; the server stays up.
    pub fn stop_work(&self) {
        self.shared.stop_work();
    }

    /// Passes a request on.
    ///
    /// # Errors
    /// [`PassFault`]; nothing was answered yet then.
    pub async fn pass(&self, asked: Asked) -> Result<Passed, PassFault> {
        pass(&self.shared, asked).await
    }

    /// Where the server takes orders to prove.
    #[must_use]
    pub fn proofs(&self) -> ProofPaths {
        self.shared.served().map_or(ProofPaths::Absent, |served| served.proofs)
    }

    /// Passes an order to prove on. `step` is what follows the server's base path.
    ///
    /// # Errors
    /// [`EngineFault::NoModel`] if it offers none; what went wrong on the way.
    pub async fn pass_proof(
        &self,
        method: Method,
        step: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Vec<u8>), PassFault> {
        let base = self.proofs().base().ok_or(EngineFault::NoModel)?;
        let (wire, wait) = (&self.shared.wire, self.shared.bounds.answer);
        Ok(wire.ask_whole(method, &format!("{base}/{step}"), body, wait).await?)
    }

    /// Ends a proof the server is busy with.
    pub async fn stop_proofs(&self) {
        self.shared.stop_proofs().await;
    }

    /// What the server calls the model.
    #[must_use]
    pub fn server_model(&self) -> Option<String> {
        self.shared.served().map(|served| served.model)
    }

    /// Whether the server answers, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.shared.state.subscribe()
    }

    /// What answers.
    #[must_use]
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        self.shared.state.borrow().model().cloned()
    }

    /// Whether new requests are taken. A draining rig takes none.
    pub fn set_accepting(&self, accepting: bool) {
        self.shared.accepting.store(accepting, Ordering::Release);
    }

    /// Requests that wait or run.
    #[must_use]
    pub fn open_jobs(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Returns when no request waits or runs.
    pub async fn drained(&self) {
        // The sender lives as long as self.
        drop(self.shared.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// How full it is. Pages are the server's own matter.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let shared = &self.shared;
        Occupancy {
            running: shared.config.concurrent.saturating_sub(shared.places.available_permits()),
            waiting: JOBS_QUEUED_MAX.saturating_sub(shared.line.available_permits()),
            pages_free: 0,
            pages: 0,
        }
    }

    /// Work done so far.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.shared.counters.stats()
    }

    /// Times the server was started again, or found again, by itself.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Where the server listens.
    #[must_use]
    pub fn url(&self) -> &UpstreamUrl {
        &self.shared.config.url
    }

    /// True if the server is started and stopped here.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.shared.config.command.is_some()
    }

    /// Ends the server if it is ours and waits until it is gone, so that the process may exit.
    pub async fn shut_down(self) {
        let mut ended = self.shared.ended.subscribe();
        self.stop_work();
        if self.orders.send(Order::End).await.is_ok() {
            drop(ended.wait_for(|ended| *ended).await);
        }
    }

    fn order(&self, order: Order) -> Result<(), EngineFault> {
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineFault::Failed { reason: "too many loads are waiting already".into() }
            }
            mpsc::error::TrySendError::Closed(_) => EngineFault::ShutDown,
        })
    }
}

/// Asks a server that somebody else runs what it calls its model.
///
/// # Errors
/// It cannot be asked, or lists no such model; the text says what to do.
pub async fn model_of(config: &UpstreamConfig) -> Result<String, String> {
    match probe::models(
        &Wire::new(config, Bounds::default().answer_bytes)?,
        config.model.as_deref(),
    )
    .await
    {
        Ok((model, _context)) => Ok(model),
        Err(Reading::Never(why)) => Err(why),
        Err(Reading::Silent(fault)) => Err(format!("{}: {fault}", config.url)),
        Err(Reading::Answers(served)) => Ok(served.model),
    }
}
