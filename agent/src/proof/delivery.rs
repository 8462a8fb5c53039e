//! Artifacts on their way: a bounded buffer, and a task that posts it until the Network Node has taken it.
//!
//! Every few seconds everything buffered becomes one payload, and that very payload is repeated until it is taken or
//! the round is stopped: a Network Node outside its generate phase answers 503 and may be back in the next second. A
//! payload it refuses with a 4xx is told of and, after a few tries, set aside until another one is taken: then it is tried
//! once more. What is not wanted then either is left to the journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roadbed_compute::poc::{Artifact, Scheme};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::callback::{CallbackUrl, post};
use super::journal::{ArtifactJournal, StoredArtifact};
use super::request::RoundRequest;
use super::service::ProofEvent;
use super::set_aside::{Payload, SetAside};
use super::stream::CallbackStream;

/// Artifacts that may wait to be sent, as in the network's own nodes: hours of work of the fastest GPU. Beyond it the
/// oldest are dropped.
pub const BUFFERED_MAX: usize = 1_000_000;
/// Most bytes of one payload, about: a gRPC client takes 4 MiB unless told otherwise. What is over goes right after it.
const PAYLOAD_BYTES_MAX: usize = 3 << 20;
/// Longest wait between two tries of one payload; the waits double up to it.
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Times a payload may be refused as such (bad address, unknown node number) before it is set aside. More than one: a
/// Network Node that has just started does not know its nodes yet. Few: what waits behind it may be wanted.
const REFUSALS_MAX: u32 = 3;

/// Artifacts that wait to be sent.
pub(super) struct Buffer {
    waiting: Mutex<Waiting>,
    counters: Arc<DeliveryCounters>,
}

#[derive(Default)]
struct Waiting {
    artifacts: VecDeque<StoredArtifact>,
    /// Nothing is sent any more.
    closed: bool,
}

impl Buffer {
    pub(super) fn new(counters: Arc<DeliveryCounters>) -> Self {
        Self { waiting: Mutex::default(), counters }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, artifact: StoredArtifact) {
        self.push_within(artifact, BUFFERED_MAX);
    }

    fn push_within(&self, artifact: StoredArtifact, most: usize) {
        let mut waiting = self.lock();
        if waiting.closed {
            self.counters.discarded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.artifacts.push_back(artifact);
        while waiting.artifacts.len() > most {
            waiting.artifacts.pop_front();
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Discards what waits and what still comes; the journal has it.
    fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let count = std::mem::take(&mut waiting.artifacts).len() as u64;
        self.counters.discarded.fetch_add(count, Ordering::Relaxed);
    }

    /// The oldest, as many as one payload may have, and whether it could not hold all.
    fn take(&self) -> (Vec<StoredArtifact>, bool) {
        self.take_within(PAYLOAD_BYTES_MAX)
    }

    fn take_within(&self, most: usize) -> (Vec<StoredArtifact>, bool) {
        let mut waiting = self.lock();
        let mut bytes = 0;
        let fits = |artifact: &&StoredArtifact| {
            bytes += bytes_in_json(artifact);
            bytes <= most
        };
        // One goes in any case, or nothing ever would.
        let artifacts = &mut waiting.artifacts;
        let count = artifacts.iter().take_while(fits).count().max(1).min(artifacts.len());
        (artifacts.drain(..count).collect(), !artifacts.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.lock().artifacts.len()
    }
}

/// At most: the numbers of a trajectory are written out beside its packed form.
fn bytes_in_json(artifact: &StoredArtifact) -> usize {
    64 + 4 * artifact.vector_b64.len()
}

/// How numbers are packed; the Network Node ignores it, other tools read it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Encoding {
    dtype: &'static str,
    k_dim: usize,
    endian: &'static str,
}

impl Encoding {
    pub(super) const fn f16(k_dim: usize) -> Self {
        Self { dtype: "f16", k_dim, endian: "le" }
    }
}

#[derive(Serialize)]
struct SentArtifact<'a> {
    nonce: u32,
    vector_b64: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    k_points_steps: Option<Vec<u8>>,
}

/// How an artifact is journalled and sent. A trajectory is packed, one byte for each step: what a newer Network Node makes
/// of the list by itself, and what an older one, which wants a vector that is not empty, stores as it is.
#[must_use]
pub fn sent_form(artifact: &Artifact) -> String {
    if artifact.points.is_empty() {
        artifact.vector_b64.clone()
    } else {
        STANDARD.encode(&artifact.points)
    }
}

#[derive(Serialize)]
struct Generated<'a> {
    public_key: &'a str,
    block_hash: &'a str,
    block_height: i64,
    node_id: u32,
    artifacts: Vec<SentArtifact<'a>>,
    encoding: Encoding,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// The body of `{url}/generated`.
pub(super) fn generated_body(
    request: &RoundRequest,
    artifacts: &[StoredArtifact],
    request_id: Option<&str>,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Generated {
        public_key: &request.round.identity.public_key,
        block_hash: &request.round.identity.block_hash,
        block_height: request.block_height,
        node_id: request.share.node_id,
        artifacts: artifacts
            .iter()
            .map(|a| SentArtifact {
                nonce: a.nonce,
                vector_b64: &a.vector_b64,
                k_points_steps: match request.round.scheme {
                    Scheme::Prefill => None,
                    Scheme::Decode(_) => STANDARD.decode(&a.vector_b64).ok(),
                },
            })
            .collect(),
        encoding: Encoding::f16(request.round.k_dim),
        request_id,
    })
}

/// How deliveries went.
#[derive(Default)]
pub(super) struct DeliveryCounters {
    pub(super) delivered: AtomicU64,
    pub(super) failed_posts: AtomicU64,
    pub(super) refused_payloads: AtomicU64,
    /// Artifacts of rounds in payloads that were set aside, and not taken later either.
    pub(super) refused: AtomicU64,
    /// Artifacts of rounds that a full buffer or line had no place for.
    pub(super) dropped: AtomicU64,
    /// Artifacts of rounds that waited when the round was stopped.
    pub(super) discarded: AtomicU64,
}

/// What became of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The Network Node has it.
    Taken,
    /// It does not want it: not now, and not where it was tried before.
    Refused,
    /// Nobody fetched it before the line was full.
    Unfetched,
    /// The round or the job was stopped first.
    Cancelled,
}

/// One payload and where it goes.
pub(super) struct Parcel<'p> {
    pub(super) url: &'p CallbackUrl,
    /// `generated` or `validated`.
    pub(super) end: &'static str,
    /// Shared, not copied, by the tries.
    pub(super) body: Bytes,
    pub(super) block_hash: &'p str,
    /// Artifacts or verdicts in it.
    pub(super) items: usize,
    /// It was refused before, and that was told: one more refusal is enough.
    pub(super) again: bool,
}

/// Brings payloads to the Network Node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Courier {
    pub(super) http: reqwest::Client,
    pub(super) counters: Arc<DeliveryCounters>,
    pub(super) events: Option<mpsc::Sender<ProofEvent>>,
    /// Wait between the first two tries of a payload.
    pub(super) retry_first: Duration,
    /// Payloads wait here to be fetched instead of being posted.
    pub(super) stream: Option<CallbackStream>,
}

impl Courier {
    /// Brings one payload until it is taken, is plainly not wanted, or nobody wants it to be sent any more.
    pub(super) async fn bring(&self, parcel: Parcel<'_>, cancel: &CancellationToken) -> Fate {
        match &self.stream {
            Some(stream) => lay_out(stream, parcel, cancel).await,
            None => self.post(parcel, cancel).await,
        }
    }

    async fn post(&self, parcel: Parcel<'_>, cancel: &CancellationToken) -> Fate {
        let Parcel { url, end, body, block_hash, items, again } = parcel;
        let url = url.at(end);
        let mut wait = self.retry_first;
        let mut refusals = 0;
        let refusals_max = if again { 1 } else { REFUSALS_MAX };
        loop {
            let posted = tokio::select! {
                () = cancel.cancelled() => return Fate::Cancelled,
                posted = post(&self.http, &url, body.clone()) => posted,
            };
            let Err(fault) = posted else { return Fate::Taken };
            let (reason, wait_seconds) = (&fault.reason, wait.as_secs());
            self.counters.failed_posts.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(url, reason, wait_seconds, "callback not taken");
            if let Some(status) = fault.refusal() {
                refusals += 1;
                if refusals == 1 && !again {
                    self.tell_refusal(block_hash, status, items, reason).await;
                }
                if refusals == refusals_max {
                    let until = if again { "for good" } else { "until another payload is taken" };
                    tracing::error!(url, items, "set aside {until}: it is not wanted");
                    return Fate::Refused;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Fate::Cancelled,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    async fn tell_refusal(&self, block_hash: &str, status: u16, items: usize, reason: &str) {
        self.counters.refused_payloads.fetch_add(1, Ordering::Relaxed);
        let event = ProofEvent::CallbackRefused {
            block_hash: block_hash.to_owned(),
            status,
            items,
            reason: reason.to_owned(),
        };
        self.tell(event).await;
    }

    async fn tell(&self, event: ProofEvent) {
        if let Some(events) = &self.events {
            // Nobody listening is how a shutdown looks from here.
            drop(events.send(event).await);
        }
    }
}

/// Puts one payload where it is fetched, and waits until it was.
async fn lay_out(stream: &CallbackStream, parcel: Parcel<'_>, cancel: &CancellationToken) -> Fate {
    let Parcel { url, end, body, block_hash: _, items: _, again: _ } = parcel;
    let mut ticket = stream.add(url.path_at(end), body);
    tokio::select! {
        () = cancel.cancelled() => {
            stream.withdraw(&ticket);
            Fate::Cancelled
        }
        taken = &mut ticket.taken => match taken {
            Ok(()) => Fate::Taken,
            Err(_dropped) => Fate::Unfetched,
        },
    }
}

/// What the delivery of one round needs.
pub(super) struct RoundDelivery {
    pub(super) request: RoundRequest,
    pub(super) buffer: Arc<Buffer>,
    pub(super) journal: Arc<dyn ArtifactJournal>,
    pub(super) courier: Courier,
    pub(super) interval: Duration,
    pub(super) cancel: CancellationToken,
}

impl RoundDelivery {
    /// Runs until the round is stopped, and counts what was left.
    pub(super) async fn run(self) {
        if let Some(url) = &self.request.url {
            let mut aside = SetAside::default();
            self.deliver(url, &mut aside).await;
            Self::count(&self.courier.counters.refused, aside.artifacts());
        }
        self.buffer.close();
    }

    async fn deliver(&self, url: &CallbackUrl, aside: &mut SetAside) {
        let counters = &self.courier.counters;
        // What one payload did not hold goes right after it.
        let mut more = false;
        loop {
            if !more {
                tokio::select! {
                    () = self.cancel.cancelled() => return,
                    () = tokio::time::sleep(self.interval) => {}
                }
            }
            let (batch, left) = self.buffer.take();
            more = left;
            if batch.is_empty() {
                continue;
            }
            let count = batch.len() as u64;
            let body = match generated_body(&self.request, &batch, None) {
                Ok(body) => Bytes::from(body),
                Err(error) => {
                    tracing::error!(%error, "cannot write artifacts as JSON");
                    Self::count(&counters.dropped, count);
                    continue;
                }
            };
            let nonces = batch.iter().map(|artifact| artifact.nonce).collect();
            let payload = Payload { body, nonces };
            match self.bring(url, &payload, false).await {
                Fate::Taken => {
                    self.delivered(payload.nonces).await;
                    self.send_again(url, aside).await;
                }
                Fate::Refused => Self::count(&counters.refused, aside.put(payload)),
                Fate::Unfetched => Self::count(&counters.dropped, count),
                Fate::Cancelled => return Self::count(&counters.discarded, count),
            }
        }
    }

    /// Tries what was set aside once more, the oldest first. The first that is refused again ends it, for good: a Network
    /// Node that forgot its nodes once more costs one payload, and one that never wants them a single try for each that it
    /// takes. Whatever is not taken stays in the journal, and goes out if the round is asked for again.
    async fn send_again(&self, url: &CallbackUrl, aside: &mut SetAside) {
        let counters = &self.courier.counters;
        while let Some(payload) = aside.take() {
            let count = payload.nonces.len() as u64;
            match self.bring(url, &payload, true).await {
                Fate::Taken => self.delivered(payload.nonces).await,
                Fate::Refused => return Self::count(&counters.refused, count),
                Fate::Unfetched => Self::count(&counters.dropped, count),
                Fate::Cancelled => return aside.put_back(payload),
            }
        }
    }

    async fn bring(&self, url: &CallbackUrl, payload: &Payload, again: bool) -> Fate {
        let parcel = Parcel {
            url,
            end: "generated",
            body: payload.body.clone(),
            block_hash: &self.request.round.identity.block_hash,
            items: payload.nonces.len(),
            again,
        };
        self.courier.bring(parcel, &self.cancel).await
    }

    fn count(counter: &AtomicU64, artifacts: u64) {
        counter.fetch_add(artifacts, Ordering::Relaxed);
    }

    async fn delivered(&self, nonces: Vec<u32>) {
        let (journal, key, marked) =
            (Arc::clone(&self.journal), self.request.key(), nonces.clone());
        let noted =
            tokio::task::spawn_blocking(move || journal.mark_delivered(&key, &marked)).await;
        let nonces = match noted {
            Ok(Ok(newly)) => newly,
            // They may be sent once more after a restart, which the Network Node allows.
            Ok(Err(fault)) => {
                tracing::error!(%fault, "delivery was not noted");
                nonces
            }
            Err(error) => {
                tracing::error!(%error, "delivery was not noted");
                nonces
            }
        };
        if nonces.is_empty() {
            return;
        }
        self.courier.counters.delivered.fetch_add(nonces.len() as u64, Ordering::Relaxed);
        let block_hash = self.request.round.identity.block_hash.clone();
        self.courier.tell(ProofEvent::Delivered { block_hash, nonces }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_drops_the_oldest() {
        let counters = Arc::<DeliveryCounters>::default();
        let buffer = Buffer::new(Arc::clone(&counters));
        for nonce in 0..5 {
            buffer.push_within(StoredArtifact { nonce, vector_b64: String::new() }, 3);
        }
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 2);
        let (taken, left) = buffer.take();
        assert_eq!(taken.iter().map(|a| a.nonce).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((left, buffer.len()), (false, 0));
        let artifact = |nonce| StoredArtifact { nonce, vector_b64: String::new() };
        buffer.push(artifact(5));
        buffer.close();
        buffer.push(artifact(6));
        assert_eq!((buffer.len(), counters.discarded.load(Ordering::Relaxed)), (0, 2));
    }

    #[test]
    fn a_payload_is_bounded_and_nothing_is_left_out() {
        let buffer = Buffer::new(Arc::default());
        let vector_b64 = "A".repeat(32);
        for nonce in 0..5 {
            buffer.push(StoredArtifact { nonce, vector_b64: vector_b64.clone() });
        }
        let nonces = |most| {
            let (taken, left) = buffer.take_within(most);
            (taken.iter().map(|a| a.nonce).collect::<Vec<_>>(), left)
        };
        assert_eq!(nonces(2 * (64 + 4 * 32)), (vec![0, 1], true));
        assert_eq!(nonces(1), (vec![2], true));
        assert_eq!(nonces(usize::MAX), (vec![3, 4], false));
        assert_eq!(nonces(usize::MAX), (vec![], false));
    }
}
