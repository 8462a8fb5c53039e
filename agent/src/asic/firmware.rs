//! What the driver asks of a miner's firmware, in the driver's own words.
//!
//! One implementation a family ([`super::luxos`], [`super::vnish`]). None of the writes here means
//! anything by itself: firmwares answer "done" and do nothing, so [`super::order`] believes only
//! the watts and the hashrate of later [`Reading`]s.

use std::fmt;
use std::future::Future;

use roadbed_protocol::{HashesPerSecond, MilliCelsius, Watts};

/// Why a firmware did not do or say what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// No connection, or no answer in time. Nothing is known of what was done.
    #[error("{address} does not answer: {why}; check power, network and address")]
    Unreachable {
        /// Where we called.
        address: String,
        /// What the network said.
        why: String,
    },
    /// The password is wrong, or login is locked.
    #[error("{address} refused the login: {why}; check the password of this rig")]
    AuthFailed {
        /// Where we called.
        address: String,
        /// What it said; never the password.
        why: String,
    },
    /// Another tool holds the miner's write session. It is waited for, never killed.
    #[error("{address}: another tool holds the session: {why}; waiting for it to end")]
    SessionHeld {
        /// Where we called.
        address: String,
        /// What it said.
        why: String,
    },
    /// The firmware understood and said no.
    #[error("{what} was refused: {reason}")]
    Refused {
        /// The call.
        what: String,
        /// The firmware's own words.
        reason: String,
    },
    /// This firmware cannot do it.
    #[error("{what} is not possible here: {why}")]
    Unsupported {
        /// The call.
        what: String,
        /// What is missing.
        why: String,
    },
    /// The answer is cut, too long, or not what this family says.
    #[error("the answer to {what} cannot be read: {why}")]
    Garbled {
        /// The call.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FirmwareError {
    /// Whether asking again, unchanged, can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::SessionHeld { .. }
            | Self::Garbled { .. }
            | Self::Refused { .. } => true,
            Self::AuthFailed { .. } | Self::Unsupported { .. } => false,
        }
    }
}

/// Who answers at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Firmware family and version.
    pub firmware: String,
    /// Model as the firmware names it.
    pub model: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.firmware, self.model)
    }
}

/// What the firmware says it is doing: a hint, never evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    /// Hashing, or ramping or tuning on the way to it.
    Mining,
    /// Asleep, stopped or paused.
    Sleeping,
    /// It does not say, or in words we do not know.
    #[default]
    Unknown,
}

/// Share counters of the firmware since it last started; they fall to zero with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShareTotals {
    /// Taken by the pool.
    pub accepted: u64,
    /// Refused by the pool.
    pub rejected: u64,
    /// Of no use any more when found.
    pub stale: u64,
}

/// One look at a miner. What it did not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Power by the firmware's own account.
    pub watts: Option<Watts>,
    /// Hashrate now, not an average that outlives the hashing.
    pub hashrate: Option<HashesPerSecond>,
    /// Hottest sensor.
    pub temperature: Option<MilliCelsius>,
    /// What it says it does.
    pub activity: Activity,
    /// Shares sent to its pools.
    pub shares: Option<ShareTotals>,
}

/// A power step of the firmware: LuxOS calls it a profile, VNish a preset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The firmware's name for it.
    pub name: String,
    /// Power it is said to take.
    pub watts: Watts,
    /// Hashrate it is said to give.
    pub hashrate: Option<HashesPerSecond>,
    /// False for steps that would start hours of tuning.
    pub usable: bool,
}

/// The strongest usable step of at most `cap`.
#[must_use]
pub fn step_at_most(steps: &[Step], cap: Watts) -> Option<&Step> {
    steps.iter().filter(|step| step.usable && step.watts <= cap).max_by_key(|step| step.watts)
}

/// The error of a miner that has no usable step of at most `cap`.
#[must_use]
pub fn no_step(steps: &[Step], cap: Watts) -> FirmwareError {
    let lowest = steps.iter().filter(|step| step.usable).min_by_key(|step| step.watts);
    FirmwareError::Unsupported {
        what: format!("a power step of at most {cap}"),
        why: match lowest {
            Some(step) => format!("its lowest usable step {:?} takes {}", step.name, step.watts),
            None => format!("none of its {} steps is usable (tuned)", steps.len()),
        },
    }
}

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What changes in seconds: power, hashrate, heat.
    Narrow,
    /// What the firmware says it does, too.
    Full,
}

/// A firmware family at one address. Calls end by themselves: each implementation bounds its
/// connects and reads.
pub trait Firmware: Send + 'static {
    /// Who answers; an error when it is not this family.
    fn identify(&mut self) -> impl Future<Output = Result<Identity, FirmwareError>> + Send;

    /// One look at the miner.
    fn read(&mut self, depth: Depth)
    -> impl Future<Output = Result<Reading, FirmwareError>> + Send;

    /// All power steps, usable or not.
    fn steps(&mut self) -> impl Future<Output = Result<Vec<Step>, FirmwareError>> + Send;

    /// Stop hashing and go to the power floor.
    fn sleep(&mut self) -> impl Future<Output = Result<(), FirmwareError>> + Send;

    /// Start hashing, at the step set last.
    fn wake(&mut self) -> impl Future<Output = Result<(), FirmwareError>> + Send;

    /// Choose the strongest usable step of at most `cap`, unless it is chosen already; `asleep`
    /// tells that a later [`Self::wake`] will apply it. Returns the step.
    fn set_step(
        &mut self,
        cap: Watts,
        asleep: bool,
    ) -> impl Future<Output = Result<Step, FirmwareError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(watts: u64, usable: bool) -> Step {
        Step { name: watts.to_string(), watts: Watts(watts), hashrate: None, usable }
    }

    #[test]
    fn the_strongest_usable_step_below_the_cap_is_chosen() {
        let steps = [step(900, true), step(1500, true), step(1300, false), step(2000, true)];
        let name = |cap| step_at_most(&steps, Watts(cap)).map(|s| s.name.as_str());
        assert_eq!(name(1499), Some("900"));
        assert_eq!(name(1500), Some("1500"));
        assert_eq!(name(9999), Some("2000"));
        assert_eq!(name(899), None);
        assert!(no_step(&steps, Watts(899)).to_string().contains("900 W"));
        assert!(no_step(&[step(1, false)], Watts(5)).to_string().contains("tuned"));
    }
}
