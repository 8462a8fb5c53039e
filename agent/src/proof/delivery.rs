//! Artifacts on their way: a bounded buffer, and a task that posts it until the Network Node has taken it.
//!
//! Every few seconds everything buffered becomes one payload, and that very payload is repeated until it is taken or
//! the round is stopped: a Network Node outside its generate phase answers 503 and may be back in the next second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::callback::post;
use super::journal::{ArtifactJournal, StoredArtifact};
use super::request::RoundRequest;
use super::service::ProofEvent;

/// Artifacts that may wait to be sent, as in the network's own nodes: hours of work of the fastest GPU. Beyond it the
/// oldest are dropped.
pub const BUFFERED_MAX: usize = 1_000_000;
/// Waits between two tries of one payload: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Artifacts that wait to be sent.
#[derive(Default)]
pub(super) struct Buffer {
    waiting: Mutex<VecDeque<StoredArtifact>>,
    dropped: AtomicU64,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, VecDeque<StoredArtifact>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, artifact: StoredArtifact) {
        self.push_within(artifact, BUFFERED_MAX);
    }

    fn push_within(&self, artifact: StoredArtifact, most: usize) {
        let mut waiting = self.lock();
        waiting.push_back(artifact);
        while waiting.len() > most {
            waiting.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Vec<StoredArtifact> {
        self.lock().drain(..).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
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
pub(super) struct SentArtifact<'a> {
    pub(super) nonce: u32,
    pub(super) vector_b64: &'a str,
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
            .map(|a| SentArtifact { nonce: a.nonce, vector_b64: &a.vector_b64 })
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
}

/// Posts one payload until it is taken; false if it was cancelled first.
pub(super) async fn deliver(
    http: &reqwest::Client,
    url: &str,
    body: Vec<u8>,
    counters: &DeliveryCounters,
    cancel: &CancellationToken,
) -> bool {
    // Shared, not copied, by the tries.
    let body = Bytes::from(body);
    let mut wait = RETRY_FIRST;
    loop {
        let posted = tokio::select! {
            () = cancel.cancelled() => return false,
            posted = post(http, url, body.clone()) => posted,
        };
        let Err(reason) = posted else { return true };
        counters.failed_posts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(url, reason, wait_seconds = wait.as_secs(), "callback not taken");
        tokio::select! {
            () = cancel.cancelled() => return false,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(RETRY_LAST);
    }
}

/// What the delivery of one round needs.
pub(super) struct RoundDelivery {
    pub(super) request: RoundRequest,
    pub(super) buffer: Arc<Buffer>,
    pub(super) journal: Arc<dyn ArtifactJournal>,
    pub(super) http: reqwest::Client,
    pub(super) counters: Arc<DeliveryCounters>,
    pub(super) interval: Duration,
    pub(super) events: Option<tokio::sync::mpsc::Sender<ProofEvent>>,
    pub(super) cancel: CancellationToken,
}

impl RoundDelivery {
    /// Runs until the round is stopped.
    pub(super) async fn run(self) {
        let Some(url) = self.request.url.as_ref().map(|url| url.at("generated")) else { return };
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            let batch = self.buffer.take();
            if batch.is_empty() {
                continue;
            }
            let body = match generated_body(&self.request, &batch, None) {
                Ok(body) => body,
                Err(error) => {
                    tracing::error!(%error, "cannot write artifacts as JSON");
                    continue;
                }
            };
            if !deliver(&self.http, &url, body, &self.counters, &self.cancel).await {
                return;
            }
            self.delivered(batch.iter().map(|artifact| artifact.nonce).collect()).await;
        }
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
        self.counters.delivered.fetch_add(nonces.len() as u64, Ordering::Relaxed);
        if let Some(events) = &self.events {
            let block_hash = self.request.round.identity.block_hash.clone();
            // Nobody listening is how a shutdown looks from here.
            drop(events.send(ProofEvent::Delivered { block_hash, nonces }).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_drops_the_oldest() {
        let buffer = Buffer::default();
        for nonce in 0..5 {
            buffer.push_within(StoredArtifact { nonce, vector_b64: String::new() }, 3);
        }
        assert_eq!(buffer.dropped(), 2);
        assert_eq!(buffer.take().iter().map(|a| a.nonce).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(buffer.len(), 0);
    }
}
