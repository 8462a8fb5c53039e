//! One-shot orders beside the assignment. Everything that must survive a restart is an assignment, not a command.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::ids::{AgentId, RigId};

/// What a controller may ask of a rig, or of an agent as the host of rigs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Command {
    /// Send the full state of the rig now; retained messages are only a cache.
    Sync {
        /// The rig asked.
        rig: RigId,
    },
    /// Every journal row of this agent up to `seq` is stored by the controller and may be forgotten.
    JournalAck {
        /// The agent whose journal it is.
        agent: AgentId,
        /// Which journal of that agent: an answer to a lost journal must not empty its successor.
        journal: String,
        /// Highest sequence number stored, without gaps.
        seq: u64,
    },
    /// Leave the safety latch. Only after an operator asked for it, and only if the readings are safe.
    ResetTrip {
        /// The tripped rig.
        rig: RigId,
        /// Who asked, for the log.
        operator: String,
    },
    /// The controller lives, at this farm time: keeps clocks comparable and links watched.
    Beacon {
        /// Farm time of the controller when it spoke.
        at: UnixMillis,
    },
}
