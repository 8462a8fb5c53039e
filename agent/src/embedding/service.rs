//! The handle everybody holds: load, unload, hand in texts, watch the state.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::backend::{EmbedderInfo, EmbeddingLoader};
use super::worker;
use crate::engine::queue::{OpenJob, RETRY_SECONDS_MAX};
use crate::engine::{EngineFault, LoadRequest};

/// Requests that may wait, beside those under way; more would wait longer than anybody does.
pub const REQUESTS_QUEUED_MAX: usize = 64;
/// Bytes of text that may wait: eight of the largest bodies that the faces let in.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Loads and unloads that may wait; more is a caller that repeats itself.
const CONTROLS_QUEUED_MAX: usize = 16;

/// One text to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingInput {
    /// The model's own tokens are put around it.
    Text(String),
    /// Taken as they are.
    Ids(Vec<u32>),
}

impl EmbeddingInput {
    const fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ids(ids) => ids.len() * size_of::<u32>(),
        }
    }
}

/// Texts to embed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingRequest {
    /// The texts.
    pub inputs: Vec<EmbeddingInput>,
    /// Longer texts are cut down to so many tokens, never more than the model takes; `None` refuses texts that are
    /// longer than the model takes.
    pub truncate_tokens: Option<usize>,
}

/// Their embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, those around the texts included.
    pub tokens: usize,
}

/// Work done since the service began; never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EmbeddingStats {
    /// Requests answered in full.
    pub requests: u64,
    /// Texts embedded.
    pub texts: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Requests refused because the queue was full.
    pub refused: u64,
    /// Passes run.
    pub passes: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) texts: AtomicU64,
    pub(super) tokens: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) passes: AtomicU64,
    pub(super) busy_millis: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Whether texts are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Empty,
    Ready(Arc<EmbedderInfo>),
}

pub(super) enum Control {
    Load {
        request: Box<LoadRequest>,
        done: oneshot::Sender<Result<Arc<EmbedderInfo>, EngineFault>>,
    },
    Unload {
        done: oneshot::Sender<()>,
    },
}

/// A request and who waits for it.
pub(super) struct Queued {
    pub(super) request: EmbeddingRequest,
    pub(super) done: oneshot::Sender<Result<Embedded, EngineFault>>,
    bytes: usize,
}

#[derive(Default)]
struct Waiting {
    controls: VecDeque<Control>,
    requests: VecDeque<Queued>,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    fn is_full_for(&self, bytes: usize) -> bool {
        let queued = self.requests.len();
        queued >= REQUESTS_QUEUED_MAX
            || (queued > 0 && self.bytes.saturating_add(bytes) > QUEUED_BYTES_MAX)
    }

    /// A caller that stopped waiting holds no place, even before the thread comes to it.
    fn forget_who_left(&mut self) {
        self.requests.retain(|queued| !queued.done.is_closed());
        self.bytes = self.requests.iter().map(|queued| queued.bytes).sum();
    }
}

/// What the embedding thread does next.
pub(super) enum Turn {
    Control(Control),
    /// Requests to take in, none if there is no room for them, and then a pass.
    Work(Vec<Queued>),
    Closed,
}

/// What the handles and the thread share.
#[derive(Default)]
pub(super) struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    pub(super) state: watch::Sender<State>,
    pub(super) counters: Counters,
    /// Requests that wait or are under way.
    open: watch::Sender<usize>,
    draining: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole between any two statements, whoever panicked while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; `under_way` requests have texts left, `room` more may be taken in.
    pub(super) fn next(&self, under_way: usize, room: usize) -> Turn {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return Turn::Closed;
            }
            if let Some(control) = waiting.controls.pop_front() {
                return Turn::Control(control);
            }
            let count = room.min(waiting.requests.len());
            if count > 0 || under_way > 0 {
                let taken: Vec<Queued> = waiting.requests.drain(..count).collect();
                waiting.bytes -= taken.iter().map(|queued| queued.bytes).sum::<usize>();
                return Turn::Work(taken);
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes everything out that waits.
    pub(super) fn clear(&self) -> Vec<Queued> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        waiting.requests.drain(..).collect()
    }
}

/// Closes the queue when the last handle is gone.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_all();
    }
}

/// The embeddings of a rig. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct EmbeddingService {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

impl EmbeddingService {
    /// Starts the thread, with no model loaded.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(loader: impl EmbeddingLoader) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("embedding".into())
            .spawn(move || worker::work(&for_thread, Box::new(loader)))?;
        Ok(Self { _owner: Arc::new(Owner(Arc::clone(&shared))), shared })
    }

    /// Loads a model, in place of the one that is loaded.
    ///
    /// # Errors
    /// [`EngineFault::Load`].
    pub async fn load(&self, request: LoadRequest) -> Result<Arc<EmbedderInfo>, EngineFault> {
        let (done, answer) = oneshot::channel();
        self.control(Control::Load { request: Box::new(request), done })?;
        answer.await.unwrap_or(Err(EngineFault::ShutDown))
    }

    /// Cancels all work and frees the model. Returns when the GPU memory is free.
    ///
    /// # Errors
    /// [`EngineFault::ShutDown`] if the thread has ended, which also means that nothing is loaded.
    pub async fn unload(&self) -> Result<(), EngineFault> {
        let (done, answer) = oneshot::channel();
        self.control(Control::Unload { done })?;
        answer.await.map_err(|_gone| EngineFault::ShutDown)
    }

    /// What is loaded and takes texts.
    #[must_use]
    pub fn model(&self) -> Option<Arc<EmbedderInfo>> {
        match &*self.shared.state.borrow() {
            State::Empty => None,
            State::Ready(info) => Some(Arc::clone(info)),
        }
    }

    /// Whether new texts are taken. A draining rig takes none.
    pub fn set_accepting(&self, accepting: bool) {
        self.shared.draining.store(!accepting, Ordering::Release);
    }

    /// Returns when no request waits or is under way.
    pub async fn drained(&self) {
        // The sender lives as long as self.
        drop(self.shared.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// Embeds texts. A caller that stops waiting takes his texts with him.
    ///
    /// # Errors
    /// [`EngineFault::NoModel`], [`EngineFault::Draining`], [`EngineFault::QueueFull`], [`EngineFault::BadRequest`] for
    /// a text the model cannot read, or what failed on the way.
    pub async fn embed(&self, request: EmbeddingRequest) -> Result<Embedded, EngineFault> {
        if self.model().is_none() {
            return Err(EngineFault::NoModel);
        }
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(EngineFault::Draining);
        }
        let _open = OpenJob::count_in(&self.shared.open);
        let bytes = request.inputs.iter().map(EmbeddingInput::bytes).sum();
        let (done, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.lock();
            if waiting.is_full_for(bytes) {
                waiting.forget_who_left();
            }
            let queued = waiting.requests.len();
            if waiting.is_full_for(bytes) {
                drop(waiting);
                Counters::add(&self.shared.counters.refused, 1);
                let retry_seconds = self.retry_seconds(queued);
                return Err(EngineFault::QueueFull { queued, retry_seconds });
            }
            waiting.bytes += bytes;
            waiting.requests.push_back(Queued { request, done, bytes });
        }
        self.shared.wake.notify_one();
        answer.await.unwrap_or(Err(EngineFault::ShutDown))
    }

    /// Requests that wait, those under way not among them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// Work done so far.
    #[must_use]
    pub fn stats(&self) -> EmbeddingStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EmbeddingStats {
            requests: read(&counters.requests),
            texts: read(&counters.texts),
            tokens: read(&counters.tokens),
            refused: read(&counters.refused),
            passes: read(&counters.passes),
        }
    }

    fn control(&self, control: Control) -> Result<(), EngineFault> {
        let mut waiting = self.shared.lock();
        if waiting.controls.len() >= CONTROLS_QUEUED_MAX {
            return Err(EngineFault::Failed {
                reason: "too many loads are waiting already".into(),
            });
        }
        waiting.controls.push_back(control);
        drop(waiting);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// When an eighth of the queue is likely to be done, by the rate so far.
    fn retry_seconds(&self, queued: usize) -> u64 {
        let done = self.shared.counters.requests.load(Ordering::Relaxed).max(1);
        let busy = self.shared.counters.busy_millis.load(Ordering::Relaxed);
        let wait = (busy / done).saturating_mul((queued as u64 / 8).max(1));
        Duration::from_millis(wait).as_secs().clamp(1, RETRY_SECONDS_MAX)
    }
}
