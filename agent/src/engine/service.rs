//! The handle everybody holds: hand in jobs, watch the state, count the work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use roadbed_compute::BatchLoad;
use tokio::sync::{mpsc, oneshot, watch};

use super::backend::{BackendLoader, LoadRequest, ModelInfo};
use super::fault::EngineFault;
use super::job::{
    Control, Job, Prompt, ProofEnd, ProofOrder, RunningGeneration, ScoreRequest, Scored,
    TOKENS_BUFFERED_MAX, TextRequest, Tokenized,
};
use super::pace::{MeasuredRate, ProofPace};
use super::proving::SharedProof;
use super::queue::{EngineQueue, OpenJob, PROOFS_QUEUED_MAX, QueuedJob, RETRY_SECONDS_MAX};
use super::replica::{Counters, ReplicaView, Replicas};
use super::worker;

/// Whether the engine can work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EngineState {
    /// No model.
    #[default]
    Empty,
    /// A model is being loaded.
    Loading {
        /// The name it will be served under.
        served_as: String,
    },
    /// A model answers.
    Ready(Arc<ModelInfo>),
    /// It was loaded and is lost: load again.
    Failed {
        /// The name it was served under.
        served_as: String,
        /// What happened.
        fault: EngineFault,
    },
}

impl EngineState {
    /// What is loaded and answers.
    #[must_use]
    pub const fn model(&self) -> Option<&Arc<ModelInfo>> {
        match self {
            Self::Ready(info) => Some(info),
            Self::Empty | Self::Loading { .. } | Self::Failed { .. } => None,
        }
    }
}

/// Work done since the service began; never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Generations and replays answered in full.
    pub completions: u64,
    /// Tokens generated, cancelled answers included.
    pub tokens: u64,
    /// Prompt tokens read.
    pub prompt_tokens: u64,
    /// Jobs refused because the queue was full.
    pub refused: u64,
    /// Jobs whose caller went away or that were stopped.
    pub cancelled: u64,
    /// Jobs that failed by our fault.
    pub failed: u64,
    /// Artifacts computed, those of validations included.
    pub artifacts: u64,
    /// Nonces that gave NaN.
    pub nonces_dropped: u64,
}

/// How full the engine is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    /// Answers under way.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Pages of the KV cache that no answer holds.
    pub pages_free: usize,
    /// Pages of the KV cache.
    pub pages: usize,
}

/// What the handles and the engine threads share.
pub(super) struct Shared {
    pub(super) queue: EngineQueue,
    pub(super) replicas: Replicas,
    pub(super) pace: ProofPace,
    /// One at a time: every load keeps all cores and the disk busy.
    loader: Mutex<Box<dyn BackendLoader>>,
    /// Rises with every order to stop; work handed in before it is cancelled.
    epoch: AtomicU64,
    /// Set, and replaced, when nobody wants what was ordered to be loaded so far.
    break_off: Mutex<Arc<AtomicBool>>,
    /// Engine threads that have not ended.
    pub(super) threads: watch::Sender<usize>,
    open: watch::Sender<usize>,
    accepting: AtomicBool,
}

impl Shared {
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
    }

    pub(super) fn loader(&self) -> MutexGuard<'_, Box<dyn BackendLoader>> {
        // A loader that panicked costs its replica; the next load is tried all the same.
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What breaks off a load that is ordered now.
    pub(super) fn break_off(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.break_off.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Breaks off every load that was ordered so far.
    fn want_no_load(&self) {
        let mut current = self.break_off.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *current).store(true, Ordering::Release);
    }

    /// Answers everything that waits.
    pub(super) fn refuse_all(&self, fault: &EngineFault) -> usize {
        let (jobs, orphans, proofs) = self.queue.clear();
        let count = jobs.len() + orphans.len();
        jobs.into_iter().for_each(|queued| queued.job.refuse(fault.clone()));
        orphans.into_iter().for_each(|answer| answer.recipient.send(Err(fault.clone())));
        proofs.into_iter().for_each(|proof| proof.end(Err(fault.clone())));
        count
    }
}

/// Closes the queue when the last handle is gone.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.epoch.fetch_add(1, Ordering::AcqRel);
        self.0.want_no_load();
        self.0.queue.close();
    }
}

/// The engine of a rig. Cheap to clone; the engine threads end with the last clone.
#[derive(Clone)]
pub struct EngineService {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

impl EngineService {
    /// Starts the engine thread, with no model loaded.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(loader: impl BackendLoader) -> std::io::Result<Self> {
        Self::start_over(loader, 1)
    }

    /// Starts engine threads for up to `replicas` of a model, with none loaded.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start_over(loader: impl BackendLoader, replicas: usize) -> std::io::Result<Self> {
        let replicas = replicas.max(1);
        let shared = Arc::new(Shared {
            queue: EngineQueue::new(replicas),
            replicas: Replicas::new(replicas),
            pace: ProofPace::open(loader.kept()),
            loader: Mutex::new(Box::new(loader)),
            epoch: AtomicU64::new(0),
            break_off: Mutex::default(),
            threads: watch::Sender::new(replicas),
            open: watch::Sender::new(0),
            accepting: AtomicBool::new(true),
        });
        // Before the threads, so that those already begun end if one cannot be had.
        let owner = Arc::new(Owner(Arc::clone(&shared)));
        for number in 0..replicas {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("engine {number}"))
                .spawn(move || worker::work(&shared, number))?;
        }
        Ok(Self { shared, _owner: owner })
    }

    /// Loads a model, in place of the one that is loaded. Jobs handed in before are finished first only if they run
    /// already; call [`EngineService::stop_work`] to end those too.
    ///
    /// # Errors
    /// [`EngineFault::Load`].
    pub async fn load(&self, request: LoadRequest) -> Result<Arc<ModelInfo>, EngineFault> {
        let (done, answer) = oneshot::channel();
        let break_off = self.shared.break_off();
        self.control(Control::Load { request: Box::new(request), break_off, done })?;
        answer.await.unwrap_or(Err(EngineFault::ShutDown))?;
        // It may have been lost in this moment.
        self.model().ok_or(EngineFault::NoModel)
    }

    /// Cancels all work and frees the model; a load under way is broken off. Returns when the GPU memory is free.
    ///
    /// # Errors
    /// [`EngineFault::ShutDown`] if the engine has ended, which also means that nothing is loaded.
    pub async fn unload(&self) -> Result<(), EngineFault> {
        self.stop_work();
        self.shared.want_no_load();
        let (done, answer) = oneshot::channel();
        self.control(Control::Unload { done })?;
        answer.await.map_err(|_gone| EngineFault::ShutDown)
    }

    /// Cancels everything that runs or waits, chats and proofs; the model stays loaded.
    pub fn stop_work(&self) {
        self.shared.epoch.fetch_add(1, Ordering::AcqRel);
        let cancelled = self.shared.refuse_all(&EngineFault::Cancelled);
        Counters::add(&self.shared.replicas.counters(0).cancelled, cancelled);
    }

    /// Starts a generation.
    ///
    /// # Errors
    /// [`EngineFault::NoModel`], [`EngineFault::Draining`], [`EngineFault::QueueFull`] at once; what fails later is
    /// told by [`RunningGeneration::finish`].
    pub fn generate(&self, request: TextRequest) -> Result<RunningGeneration, EngineFault> {
        let (tokens, token_receiver) = mpsc::channel(TOKENS_BUFFERED_MAX);
        let (done, answer) = oneshot::channel();
        self.job(Job::Generate { request, tokens, done })?;
        Ok(RunningGeneration::new(token_receiver, answer))
    }

    /// Replays an answer and gives its log probabilities.
    ///
    /// # Errors
    /// As [`EngineService::generate`], or what failed on the way.
    pub async fn score(&self, request: ScoreRequest) -> Result<Scored, EngineFault> {
        let (done, answer) = oneshot::channel();
        self.job(Job::Score { request, done })?;
        answer.await.unwrap_or(Err(EngineFault::ShutDown))
    }

    /// A prompt as the model sees it; of [`Prompt::Ids`] also the text.
    ///
    /// # Errors
    /// As [`EngineService::generate`], or what failed on the way.
    pub async fn tokenize(&self, prompt: Prompt) -> Result<Tokenized, EngineFault> {
        let (done, answer) = oneshot::channel();
        self.job(Job::Tokenize { prompt, done })?;
        answer.await.unwrap_or(Err(EngineFault::ShutDown))
    }

    /// Begins to prove. The receiver is answered when the nonces end, the proof is broken off or stopped, or fails.
    ///
    /// # Errors
    /// [`EngineFault::NoModel`], [`EngineFault::QueueFull`].
    pub fn prove(&self, order: ProofOrder) -> Result<oneshot::Receiver<ProofEnd>, EngineFault> {
        if self.model().is_none() {
            return Err(EngineFault::NoModel);
        }
        let (done, answer) = oneshot::channel();
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        if self.shared.queue.push_proof(Arc::new(SharedProof::new(order, epoch, done))) {
            return Ok(answer);
        }
        Err(EngineFault::QueueFull { queued: PROOFS_QUEUED_MAX, retry_seconds: RETRY_SECONDS_MAX })
    }

    /// Whether the engine can work, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.shared.replicas.state().subscribe()
    }

    /// What is loaded and answers.
    #[must_use]
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        self.shared.replicas.state().borrow().model().cloned()
    }

    /// Whether new chats are taken; proofs are not affected. A draining rig takes none.
    pub fn set_accepting(&self, accepting: bool) {
        self.shared.accepting.store(accepting, Ordering::Release);
    }

    /// Whether new chats are taken.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.shared.accepting.load(Ordering::Acquire)
    }

    /// Chats that wait or run.
    #[must_use]
    pub fn open_jobs(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Returns when no chat waits or runs.
    pub async fn drained(&self) {
        // The sender lives as long as self.
        drop(self.shared.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// How full the engine is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let BatchLoad { running, waiting, pages_free, pages } = self.shared.replicas.load();
        Occupancy { running, waiting: waiting + self.shared.queue.jobs(), pages_free, pages }
    }

    /// Work done so far.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.shared.replicas.stats()
    }

    /// How fast this rig proves, as measured in rounds now and before; the newest figure first.
    #[must_use]
    pub fn proof_rates(&self) -> Vec<MeasuredRate> {
        self.shared.pace.rates()
    }

    /// The replicas of what is loaded, one by one.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaView> {
        self.shared.replicas.views()
    }

    /// Ends the engine threads and waits until the GPU is let go, so that the process may exit.
    pub async fn shut_down(self) {
        let mut threads = self.shared.threads.subscribe();
        self.stop_work();
        self.shared.want_no_load();
        self.shared.queue.close();
        drop(threads.wait_for(|threads| *threads == 0).await);
    }

    fn control(&self, control: Control) -> Result<(), EngineFault> {
        self.shared.queue.push_control(control).map_err(|_back| {
            if *self.shared.threads.borrow() == 0 {
                EngineFault::ShutDown
            } else {
                EngineFault::Failed { reason: "too many loads are waiting already".into() }
            }
        })
    }

    fn job(&self, job: Job) -> Result<(), EngineFault> {
        if !self.is_accepting() {
            return Err(EngineFault::Draining);
        }
        if self.model().is_none() {
            return Err(EngineFault::NoModel);
        }
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        let open = OpenJob::count_in(&self.shared.open);
        self.shared.queue.push_job(QueuedJob { job, epoch, open }).map_err(|queued| {
            Counters::add(&self.shared.replicas.counters(0).refused, 1);
            EngineFault::QueueFull { queued, retry_seconds: self.retry_seconds(queued) }
        })
    }

    /// When a place in the queue is likely to be free, by the rate at which answers have been completed so far: after
    /// as many of them as are an eighth of the queue. Before the first, a second an answer is assumed.
    fn retry_seconds(&self, queued: usize) -> u64 {
        let replicas = &self.shared.replicas;
        let together = replicas.ready().max(1) as u64;
        let mean_millis = replicas.busy_millis() / replicas.stats().completions.max(1) / together;
        let mean_millis = mean_millis.max(1_000);
        (mean_millis * (queued as u64 / 8).max(1)).div_ceil(1_000).clamp(1, RETRY_SECONDS_MAX)
    }
}
