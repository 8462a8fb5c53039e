//! Why an agent cannot run.

use roadbed_protocol::RigId;

use crate::journal::JournalError;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The journal cannot be opened or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The driver of a rig cannot be built.
    #[error("rig {rig}: {reason}")]
    Driver {
        /// The rig.
        rig: RigId,
        /// What failed and what to do.
        reason: String,
    },
    /// A task of the agent ended unexpectedly.
    #[error("the {task} task died: {reason}; this is a bug, please report it with the log")]
    Task {
        /// Which task.
        task: String,
        /// What it left behind.
        reason: String,
    },
}
