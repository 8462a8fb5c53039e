//! MLNodes as the Network Node's admin API lists them: what it wants of each, and what it thinks each does.

use roadbed_protocol::UnixMillis;

/// A state word of the broker (`current_status`, `intended_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeStatus {
    /// Not asked yet, or not answered.
    Unknown,
    /// Serves its model; proofs run inside it.
    Inference,
    /// Proves, in the words of a chain before PoC v2.
    Poc,
    /// Trains.
    Training,
    /// Told to rest.
    Stopped,
    /// The broker could not bring it where it should be.
    Failed,
    /// A word that is not known here.
    Other,
}

impl NodeStatus {
    /// The broker's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Inference => "INFERENCE",
            Self::Poc => "POC",
            Self::Training => "TRAINING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Other => "other",
        }
    }
}

/// One MLNode of the Network Node (`GET /admin/v1/nodes`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredNode {
    /// The operator's name of it.
    pub id: String,
    /// Number in proofs; given by the Network Node, never by us.
    pub node_num: Option<u64>,
    /// Models it is registered for.
    pub models: Vec<String>,
    /// What the broker wants.
    pub intended: NodeStatus,
    /// What the broker last saw.
    pub current: NodeStatus,
    /// The proof it wants (`IDLE`, `GENERATING`, `VALIDATING`), as it writes it.
    pub poc_intended: Option<String>,
    /// The proof it last saw.
    pub poc_current: Option<String>,
    /// Why it is FAILED.
    pub failure: Option<String>,
    /// When the broker last asked, if it says so.
    pub status_at: Option<UnixMillis>,
    /// False after a disable; it stays active to the end of the epoch.
    pub enabled: bool,
    /// Models it works for in this epoch; empty outside one.
    pub epoch_models: Vec<String>,
}
