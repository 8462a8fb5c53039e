//! The journal: what must not be lost, on disk before it is sent.
//!
//! SQLite in one file, owned by one thread; everybody else holds a [`Journal`] and awaits the commit of what was handed
//! in. A row of the outbox keeps its number for ever and leaves only when the controller has said that *it* stored the
//! row, because the broker's acknowledgement proves nothing. Calls that arrive together share one commit.
//!
//! ```text
//! rig tasks, proof, link -> requests (bounded) -> writer thread -> journal.sqlite (WAL)
//! ```

mod artifacts;
mod error;
mod outbox;
mod store;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roadbed_protocol::{AgentId, EventKind, RigId, TelemetrySample, UnixMillis};
use tokio::sync::{mpsc, oneshot, watch};

pub use artifacts::{Artifact, StoredRound};
pub use error::JournalError;
pub use outbox::{OutboxRow, RowClass};
pub use store::FILE_NAME;

use store::Store;
use writer::{Reply, Request, Work};

/// Requests that may wait for the writer. A caller beyond that waits, which is right: it was about to promise
/// something that the disk cannot hold yet.
const REQUESTS_MAX: usize = 1_024;

/// How long a thread waits before it tries a full queue again; the writer empties it in about that time.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// What the outbox carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Samples of a rig, at most [`SAMPLES_MAX`].
    Telemetry(Vec<TelemetrySample>),
    /// Something that happened on a rig.
    Event {
        /// When.
        at: UnixMillis,
        /// What.
        kind: EventKind,
        /// Why, in one line for people.
        reason: String,
    },
}

/// Most samples of one telemetry row, as the wire says.
pub const SAMPLES_MAX: usize = 60;

/// A handle of the journal. Cheap to clone; the file is closed when the last one is gone.
#[derive(Debug, Clone)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
    id: Arc<str>,
    newest: watch::Receiver<u64>,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one. A damaged file is set aside under another name and a journal with
    /// a new id begun. Blocks for the time the disk takes.
    ///
    /// # Errors
    /// [`JournalError`] when the folder cannot be written or another process holds the journal.
    pub fn open(folder: &Path, agent: &AgentId) -> Result<Self, JournalError> {
        Self::with_store(Store::open(folder, agent)?)
    }

    fn with_store(store: Store) -> Result<Self, JournalError> {
        let id = Arc::from(store.id());
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        let newest_sender = watch::Sender::new(store.newest());
        let newest = newest_sender.subscribe();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer::work(store, waiting, &newest_sender))
            .map_err(|error| JournalError::Write {
                what: "start the writer thread".into(),
                reason: error.to_string(),
            })?;
        Ok(Self { requests, id, newest })
    }

    /// Names this file; changes only when the file was lost.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of the newest outbox row, as it rises.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.clone()
    }

    /// Appends a row to the outbox and gives its number once it is on disk.
    ///
    /// # Errors
    /// [`JournalError`] when it could not be stored.
    pub async fn append(&self, rig: &RigId, entry: Entry) -> Result<u64, JournalError> {
        self.ask(|reply| Work::Append { rig: rig.clone(), entry, reply }).await
    }

    /// The oldest rows numbered above `after`, at most `limit`.
    ///
    /// # Errors
    /// [`JournalError`] when they cannot be read.
    pub async fn rows_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, JournalError> {
        self.ask(|reply| Work::RowsAfter { after, limit, reply }).await
    }

    /// Forgets every row up to and including `seq`: the controller has stored them.
    ///
    /// # Errors
    /// [`JournalError`] when they could not be deleted.
    pub async fn forget_up_to(&self, seq: u64) -> Result<(), JournalError> {
        self.ask(|reply| Work::ForgetUpTo { seq, reply }).await
    }

    /// Stores a value under a name.
    ///
    /// # Errors
    /// [`JournalError`] when it could not be stored.
    pub async fn put(&self, key: impl Into<String>, value: Vec<u8>) -> Result<(), JournalError> {
        self.ask(|reply| Work::Put { key: key.into(), value, reply }).await
    }

    /// The value stored under a name.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub async fn get(&self, key: impl Into<String>) -> Result<Option<Vec<u8>>, JournalError> {
        self.ask(|reply| Work::Get { key: key.into(), reply }).await
    }

    /// Keeps the outcome of the nonce at `index` of a round; without a body the nonce gave nothing and is passed over.
    /// True when it was not known before: an artifact counts once, however often it is computed. Blocks for the disk.
    ///
    /// # Errors
    /// [`JournalError`] when it could not be stored.
    pub fn record_artifact(
        &self,
        round: &str,
        index: u64,
        nonce: u32,
        body: Option<&str>,
    ) -> Result<bool, JournalError> {
        self.ask_blocking(|reply| Work::RecordArtifact {
            round: round.into(),
            index,
            nonce,
            body: body.map(Into::into),
            reply,
        })
    }

    /// What a round left behind; nothing if it is new. Blocks for the disk.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub fn recover_round(&self, round: &str) -> Result<StoredRound, JournalError> {
        self.ask_blocking(|reply| Work::RecoverRound { round: round.into(), reply })
    }

    /// Marks artifacts as taken by the Network Node. Gives those that were not marked before. Blocks for the disk.
    ///
    /// # Errors
    /// [`JournalError`] when it could not be stored.
    pub fn mark_delivered(&self, round: &str, nonces: &[u32]) -> Result<Vec<u32>, JournalError> {
        self.ask_blocking(|reply| Work::MarkDelivered {
            round: round.into(),
            nonces: nonces.to_vec(),
            reply,
        })
    }

    /// Commits what waits, closes the file and ends the writer; other handles get [`JournalError::Closed`].
    pub async fn shut_down(&self) {
        let (done, closed) = oneshot::channel();
        let reply = Box::new(move || {
            // Nobody waits any more, and nothing is lost by that.
            done.send(()).unwrap_or_default();
        });
        if self.requests.send(Request::Close { reply }).await.is_ok() {
            // Nothing more to do if the writer is gone already.
            drop(closed.await);
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<T, JournalError> {
        let (done, answer) = oneshot::channel();
        // Whoever asked may have gone; what was stored stays stored.
        let work = work(Box::new(move |result| drop(done.send(result))));
        self.requests.send(Request::Work(work)).await.map_err(|_gone| JournalError::Closed)?;
        answer.await.map_err(|_gone| JournalError::Closed)?
    }

    /// For threads outside the async runtime, and harmless inside it: waits on plain channels only.
    fn ask_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<T, JournalError> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        let mut request = Request::Work(work(Box::new(move |result| drop(done.send(result)))));
        loop {
            match self.requests.try_send(request) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(JournalError::Closed),
                Err(mpsc::error::TrySendError::Full(back)) => {
                    request = back;
                    std::thread::sleep(FULL_WAIT);
                }
            }
        }
        answer.recv().map_err(|_gone| JournalError::Closed)?
    }
}

#[cfg(test)]
mod tests;
