//! What is known of a rig model: power, speed and timing, with the source of each set of figures.
//!
//! A profile is data in `profiles/*.yaml`, read by the binaries; here are only its fields and the rules it must obey.
//! The planner plans with it, the agent confirms against it, and where no sensor measures power it is the last resort
//! and is called [`crate::PowerSource::Profile`].

use serde::{Deserialize, Serialize};

use crate::units::{HashesPerSecond, MilliCelsius, Watts};

/// What kind of machine a rig is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RigKind {
    /// A Bitcoin miner behind a firmware API.
    Asic,
    /// A machine with one or more GPUs that runs the agent itself.
    Gpu,
}

/// A power step of a miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiningStep {
    /// Wall power.
    pub watts: Watts,
    /// Hashrate at that power.
    pub hashes_per_second: HashesPerSecond,
}

/// A rig model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RigProfile {
    /// Name for people, as the vendor writes it.
    pub model: String,
    /// ASIC or GPU.
    pub kind: RigKind,
    /// Firmware family and version the figures are for; "none" for a GPU rig.
    pub firmware: String,
    /// Where the figures come from.
    pub source: String,
    /// Which of them are measured, read or planning values.
    pub status: String,
    /// Power asleep or idle.
    pub floor_watts: Watts,
    /// Most it may draw in any state, as the breaker plan counts it.
    pub nameplate_watts: Watts,
    /// Mining steps, lowest power first; the last is normal operation.
    #[serde(default)]
    pub mining: Vec<MiningStep>,
    /// Power while serving or proving; GPU rigs only.
    #[serde(default)]
    pub ai_watts: Option<Watts>,
    /// From the order to full work: a miner's wake, an engine's load.
    pub start_seconds: u64,
    /// From the order to the power floor.
    pub stop_seconds: u64,
    /// The safety latch closes at this temperature.
    pub temperature_trip: MilliCelsius,
    /// The latch may open below this.
    pub temperature_safe: MilliCelsius,
}

/// A rule a profile breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ProfileError {
    /// Field of the profile.
    pub field: &'static str,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl RigProfile {
    /// Checks the rules that types cannot.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn validate(&self) -> Result<(), ProfileError> {
        let fail = |field, problem: String| Err(ProfileError { field, problem });
        if self.model.trim().is_empty() {
            return fail("model", "is empty; expected the vendor's name".into());
        }
        if self.source.trim().is_empty() {
            return fail("source", "is empty; say where the figures come from".into());
        }
        if self.floor_watts > self.nameplate_watts {
            return fail(
                "floor_watts",
                format!("{} is above nameplate_watts {}", self.floor_watts, self.nameplate_watts),
            );
        }
        for pair in self.mining.windows(2) {
            if pair[0].watts >= pair[1].watts {
                return fail("mining", "steps must rise in watts, lowest first".into());
            }
        }
        for step in &self.mining {
            if step.watts <= self.floor_watts || step.watts > self.nameplate_watts {
                return fail(
                    "mining",
                    format!("step {} is not between floor_watts and nameplate_watts", step.watts),
                );
            }
        }
        match (self.kind, self.ai_watts) {
            (RigKind::Asic, Some(_)) => {
                return fail("ai_watts", "an ASIC can only mine; remove the field".into());
            }
            (RigKind::Gpu, None) => {
                return fail(
                    "ai_watts",
                    "is missing; a GPU rig needs its power under AI work".into(),
                );
            }
            (RigKind::Gpu, Some(watts)) if watts > self.nameplate_watts => {
                return fail("ai_watts", format!("{watts} is above nameplate_watts"));
            }
            (RigKind::Gpu, Some(_)) => {}
            (RigKind::Asic, None) => {
                if self.mining.is_empty() {
                    return fail("mining", "is empty; an ASIC needs at least one step".into());
                }
            }
        }
        if self.temperature_safe >= self.temperature_trip {
            return fail("temperature_safe", "must be below temperature_trip".into());
        }
        Ok(())
    }

    /// Normal mining, when the rig can mine.
    #[must_use]
    pub fn normal_mining(&self) -> Option<&MiningStep> {
        self.mining.last()
    }
}
