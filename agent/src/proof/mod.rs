//! Proof of Compute rounds of one rig: prove nonces, journal the artifacts, deliver them; recompute those of others.
//!
//! ```text
//! face -> ProofService -> EngineService (step by step) -> journal -> buffer -> callback of the Network Node
//!                     \-> validation job -> verdict ----------------------------^
//! ```
//! An artifact is journalled before it is sent, so a crash costs at most the nonce being computed: the same round goes
//! on at the next index, and what was not delivered is delivered then. The Network Node skips what it has already.

mod callback;
mod delivery;
mod journal;
mod request;
mod round;
mod service;
mod set_aside;
mod standing;
mod stream;
mod validation;
mod verdict;

pub use callback::{CallbackUrl, CallbackUrlError};
pub use delivery::{BUFFERED_MAX, sent_form};
pub use journal::{
    ArtifactJournal, JournalFault, MemoryJournal, Recovered, RoundKey, StoredArtifact,
};
pub use request::{JobRequest, ProofRefusal, Received, RoundRequest};
pub use round::RoundView;
pub use service::{ProofCounters, ProofEvent, ProofService, ProofSettings};
pub use stream::{CALLBACKS_MAX, Callback, CallbackStream, Feed};
pub use validation::{JobOutcome, JobState, JobView, NONCES_QUEUED_MAX};
