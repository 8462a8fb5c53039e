//! What a Network Node may ask of the proof side, in types that need no further checks.

use roadbed_compute::poc::{DecodeRefusal, NonceShare, Round, StatTest};

use super::callback::CallbackUrl;
use super::journal::{JournalFault, RoundKey};
use crate::engine::EngineFault;

/// Begin to prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundRequest {
    /// Block, key, sequence length.
    pub round: Round,
    /// Height of the block; only handed back.
    pub block_height: i64,
    /// Which nonces are ours: the node's number comes from the Network Node and is never invented here; the group's
    /// from whoever shares the node out over several engines.
    pub share: NonceShare,
    /// The model that must be the served one.
    pub model: String,
    /// Most nonces per step.
    pub batch: usize,
    /// Where artifacts go; without it they are only journalled.
    pub url: Option<CallbackUrl>,
}

impl RoundRequest {
    pub(super) fn key(&self) -> RoundKey {
        RoundKey {
            block_hash: self.round.identity.block_hash.clone(),
            public_key: self.round.identity.public_key.clone(),
            node_id: self.share.node_id,
            node_count: self.share.node_count,
            group_id: self.share.group_id,
            n_groups: self.share.n_groups,
            model: self.model.clone(),
            seq_len: self.round.seq_len,
            k_dim: self.round.k_dim,
            stronger_rng: self.round.stronger_rng,
            scheme: self.round.scheme,
        }
    }
}

/// Compute given nonces, and judge the artifacts of another participant if there are any.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// Block and sequence length, and the key of the participant who is judged.
    pub request: RoundRequest,
    /// Nonces, each once.
    pub nonces: Vec<u32>,
    /// What the other side has for exactly the nonces above.
    pub received: Option<Received>,
    /// How they are judged.
    pub stat_test: StatTest,
    /// The cut that newer Network Nodes send; whether it counts is a setting.
    pub p_value_threshold: Option<f64>,
}

/// Artifacts of another participant, by nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// PREFILL: vectors, as they were sent.
    Vectors(Vec<(u32, String)>),
    /// DECODE: trajectories, as points of the codebook.
    Trajectories(Vec<(u32, Vec<u8>)>),
}

impl Received {
    /// Their nonces, in order.
    #[must_use]
    pub fn nonces(&self) -> Vec<u32> {
        match self {
            Self::Vectors(list) => list.iter().map(|(nonce, _)| *nonce).collect(),
            Self::Trajectories(list) => list.iter().map(|(nonce, _)| *nonce).collect(),
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// Nothing can prove now.
    #[error("no model is up")]
    NoModel,
    /// A round is under way.
    #[error("Already generating")]
    AlreadyGenerating,
    /// Another model, or a longer sequence than it takes.
    #[error(
        "the request is for {requested} at seq_len {seq_len}; deployed is {deployed} with room for {context}"
    )]
    Mismatch {
        /// The model asked for.
        requested: String,
        /// The served one.
        deployed: String,
        /// Length asked for.
        seq_len: usize,
        /// Longest length taken.
        context: usize,
    },
    /// The round is of a scheme that is not served here.
    #[error(transparent)]
    Unsupported(#[from] DecodeRefusal),
    /// Too many nonces wait.
    #[error("{queued} nonces are queued already, at most {}", super::NONCES_QUEUED_MAX)]
    QueueFull {
        /// How many.
        queued: usize,
    },
    /// The engine does not take it.
    #[error(transparent)]
    Engine(#[from] EngineFault),
    /// The journal cannot be read: to prove without it would repeat nonces.
    #[error(transparent)]
    Journal(#[from] JournalFault),
}
