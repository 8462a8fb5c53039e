//! The faults of a seed, each kind and each rig with dice of its own.

use roadbed_protocol::Millis;

use super::dice::Dice;

/// How often and what goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Everything there is.
    All,
}

/// What can happen to an agent or a rig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The agent dies and starts again.
    AgentCrash,
    /// The wire between agent and controller is cut.
    Partition,
    /// The controller dies and starts again from its store.
    ControllerCrash,
    /// The process or firmware hangs: it obeys no more until it is forced.
    Hang,
    /// The firmware says "stopped" without stopping, the next time.
    Lie,
    /// The workload dies.
    Death,
    /// The rig overheats.
    Heat,
}

/// Kinds that strike rigs.
pub const RIG_FAULTS: [(Fault, &str, u64); 4] = [
    (Fault::Hang, "hang", 90),
    (Fault::Lie, "lie", 60),
    (Fault::Death, "death", 60),
    (Fault::Heat, "heat", 400),
];
/// Kinds that strike agents.
pub const AGENT_FAULTS: [(Fault, &str, u64); 2] =
    [(Fault::AgentCrash, "crash", 70), (Fault::Partition, "partition", 60)];
/// Mean minutes between crashes of the controller.
pub const CONTROLLER_CRASH_MINUTES: u64 = 100;

/// When the next fault of a stream strikes: around its mean, never at once.
pub fn next_in(dice: &mut Dice, mean_minutes: u64) -> Millis {
    Millis::from_secs(dice.between(60, mean_minutes * 120))
}
