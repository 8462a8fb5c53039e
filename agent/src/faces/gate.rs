//! Who decides whether this rig does AI work.
//!
//! Under a controller the rig machine decides and the Network Node's `up` and `stop` can only say yes to it or pause;
//! without one (`roadbed-agent serve`) the Network Node itself loads and unloads the model.

use roadbed_protocol::WorkloadKind;
use tokio::sync::watch;

/// What the rig is for, as far as the faces care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Nobody decides: `up` and `stop` load and unload.
    Open,
    /// The rig serves or proves this model; its driver loads it.
    Ai {
        /// The name it is served under.
        model: String,
    },
    /// The rig does something else.
    Other(WorkloadKind),
}

/// A gate and how often it was set, so that the same setting twice is still two settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GateTurn {
    pub(super) turn: u64,
    pub(super) gate: Gate,
}

/// Sets the gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GateControl {
    sender: watch::Sender<GateTurn>,
}

impl GateControl {
    /// A gate in its first setting.
    #[must_use]
    pub fn new(gate: Gate) -> Self {
        Self { sender: watch::Sender::new(GateTurn { turn: 0, gate }) }
    }

    /// Sets it. A pause that a Network Node asked for ends with it.
    pub fn set(&self, gate: Gate) {
        self.sender.send_modify(|now| *now = GateTurn { turn: now.turn + 1, gate });
    }

    /// How it is set.
    #[must_use]
    pub fn get(&self) -> Gate {
        self.sender.borrow().gate.clone()
    }

    pub(super) fn turn(&self) -> GateTurn {
        self.sender.borrow().clone()
    }
}
