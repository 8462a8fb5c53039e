//! One generation round: from the first nonce to the stop.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use roadbed_compute::poc::NonceSequence;
use tokio_util::sync::CancellationToken;

use super::delivery::{Buffer, DeliveryCounters, sent_form};
use super::journal::{ArtifactJournal, Recovered, StoredArtifact};
use super::request::{ProofRefusal, RoundRequest};
use crate::engine::{EngineFault, ProofOrder, ProofStep};

/// What a status page shows of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundView {
    /// As it was asked for.
    pub request: RoundRequest,
    /// Still proving; false once it failed.
    pub generating: bool,
    /// Nonces worked on since it was (re)started.
    pub processed: u64,
    /// Of those, the rate since the start.
    pub nonces_per_second: f64,
    /// Waiting to be sent.
    pub buffered: usize,
}

/// A round under way.
pub(super) struct ActiveRound {
    pub(super) request: RoundRequest,
    pub(super) buffer: Arc<Buffer>,
    pub(super) cancel: CancellationToken,
    pub(super) processed: Arc<AtomicU64>,
    /// False once the engine has given up on it.
    pub(super) generating: AtomicBool,
    began: Instant,
}

impl ActiveRound {
    pub(super) fn new(request: RoundRequest, counters: Arc<DeliveryCounters>) -> Self {
        Self {
            request,
            buffer: Arc::new(Buffer::new(counters)),
            cancel: CancellationToken::new(),
            processed: Arc::default(),
            generating: AtomicBool::new(true),
            began: Instant::now(),
        }
    }

    pub(super) fn is_generating(&self) -> bool {
        self.generating.load(Ordering::Acquire) && !self.cancel.is_cancelled()
    }

    pub(super) fn view(&self) -> RoundView {
        let processed = self.processed.load(Ordering::Relaxed);
        let seconds = self.began.elapsed().as_secs_f64();
        RoundView {
            request: self.request.clone(),
            generating: self.is_generating(),
            processed,
            nonces_per_second: if seconds > 0.0 { processed as f64 / seconds } else { 0.0 },
            buffered: self.buffer.len(),
        }
    }

    /// The order that computes what the round has not computed yet.
    pub(super) fn order(
        &self,
        recovered: Recovered,
        journal: Arc<dyn ArtifactJournal>,
    ) -> Result<ProofOrder, ProofRefusal> {
        let nonces = NonceSequence::new(self.request.share).map_err(EngineFault::from)?;
        let skip = usize::try_from(recovered.next_index).unwrap_or(usize::MAX);
        if self.request.url.is_some() {
            recovered.undelivered.into_iter().for_each(|artifact| self.buffer.push(artifact));
        }
        let key = self.request.key();
        let sends = self.request.url.is_some();
        let (buffer, cancel) = (Arc::clone(&self.buffer), self.cancel.clone());
        let processed = Arc::clone(&self.processed);
        let mut index = recovered.next_index;
        let on_step = move |step: ProofStep| {
            if cancel.is_cancelled() {
                return ControlFlow::Break(());
            }
            let (nonce, vector) = match step {
                ProofStep::Artifact(artifact) => (artifact.nonce, Some(sent_form(&artifact))),
                ProofStep::Dropped { nonce } => (nonce, None),
            };
            if let Err(fault) = journal.record(&key, index, nonce, vector.as_deref()) {
                // Sent all the same: after a crash this nonce would be computed again and skipped as known, while
                // a round that ends here costs the whole epoch.
                tracing::error!(%fault, nonce, "an artifact is sent without being journalled");
            }
            index += 1;
            processed.fetch_add(1, Ordering::Relaxed);
            if sends && let Some(vector_b64) = vector {
                buffer.push(StoredArtifact { nonce, vector_b64 });
            }
            ControlFlow::Continue(())
        };
        Ok(ProofOrder {
            round: self.request.round.clone(),
            nonces: Box::new(nonces.skip(skip)),
            batch: self.request.batch,
            claims: None,
            cancel: self.cancel.clone(),
            on_step: Box::new(on_step),
        })
    }
}
