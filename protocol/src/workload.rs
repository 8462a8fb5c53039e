//! What a rig can be told to do.
//!
//! An ASIC can only mine, mine with less power, or sleep; a GPU rig can also serve and prove (DESIGN section 5).
//! `Idle` is powered and safe with no workload, `Curtailed` is held at the power floor on purpose: an ASIC sleeps in
//! both, but only `Curtailed` tells the operator that somebody wanted it so.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::Watts;

/// A workload with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Workload {
    /// Powered, safe, nothing running.
    Idle,
    /// Held at the power floor: tariff, grid event, feeder or operator.
    Curtailed,
    /// Hash for a pool. `power_target` steps the rig down; `None` is the profile's normal power.
    Mine {
        /// Wall power to aim at, when the rig can be stepped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        power_target: Option<Watts>,
    },
    /// Answer inference requests with this model.
    Serve {
        /// Model id as the network names it.
        model: String,
    },
    /// Hold this model ready and prove on it (Gonka PoC v2); inference goes on between the proofs.
    Prove {
        /// Model id as the network names it.
        model: String,
    },
}

/// A workload without its parameters, for tables and matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadKind {
    /// See [`Workload::Idle`].
    Idle,
    /// See [`Workload::Curtailed`].
    Curtailed,
    /// See [`Workload::Mine`].
    Mine,
    /// See [`Workload::Serve`].
    Serve,
    /// See [`Workload::Prove`].
    Prove,
}

impl WorkloadKind {
    /// Every kind, in the order tables show them.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Curtailed, Self::Mine, Self::Serve, Self::Prove];

    /// The word people read and files use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Curtailed => "curtailed",
            Self::Mine => "mine",
            Self::Serve => "serve",
            Self::Prove => "prove",
        }
    }
}

impl Workload {
    /// The kind alone.
    #[must_use]
    pub const fn kind(&self) -> WorkloadKind {
        match self {
            Self::Idle => WorkloadKind::Idle,
            Self::Curtailed => WorkloadKind::Curtailed,
            Self::Mine { .. } => WorkloadKind::Mine,
            Self::Serve { .. } => WorkloadKind::Serve,
            Self::Prove { .. } => WorkloadKind::Prove,
        }
    }

    /// True when something runs: mining, serving or proving.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        match self {
            Self::Idle | Self::Curtailed => false,
            Self::Mine { .. } | Self::Serve { .. } | Self::Prove { .. } => true,
        }
    }

    /// The loaded model, for serve and prove.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Serve { model } | Self::Prove { model } => Some(model),
            Self::Idle | Self::Curtailed | Self::Mine { .. } => None,
        }
    }

    /// True when `self` can become `next` without stopping: serve and prove of one model share the loaded engine, and
    /// mining can change its power target while it runs.
    #[must_use]
    pub fn hands_over_to(&self, next: &Self) -> bool {
        match (self.model(), next.model()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            (None, None) => self.kind() == WorkloadKind::Mine && next.kind() == WorkloadKind::Mine,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mine { power_target: Some(watts) } => f.pad(&format!("mine@{watts}")),
            other => f.pad(other.kind().word()),
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_stable() {
        let workload = Workload::Mine { power_target: Some(Watts(1_500)) };
        let text = serde_json::to_string(&workload).unwrap();
        assert_eq!(text, r#"{"kind":"mine","power_target":1500}"#);
        assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), workload);
    }

    #[test]
    fn hand_over_needs_the_same_model() {
        let serve = Workload::Serve { model: "m".into() };
        let prove = Workload::Prove { model: "m".into() };
        let other = Workload::Prove { model: "n".into() };
        assert!(serve.hands_over_to(&prove) && prove.hands_over_to(&serve));
        assert!(!serve.hands_over_to(&other));
        assert!(!serve.hands_over_to(&Workload::Mine { power_target: None }));
        assert!(!Workload::Idle.hands_over_to(&Workload::Curtailed));
    }
}
