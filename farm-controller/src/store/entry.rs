//! How ledger entries look on disk. The ledger's own types stay free to change; these names do not.

use farm_core::ledger::{Entry, Part};
use roadbed_protocol::{
    FeederId, MicrosPerMwh, Millis, Money, PowerSource, RigId, UnixMillis, WattMillis, Watts,
    Workload, WorkloadKind,
};
use serde::{Deserialize, Serialize};

/// One line of an entry as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredPart {
    Energy {
        rig: RigId,
        at: UnixMillis,
        span: Millis,
        energy: WattMillis,
        source: PowerSource,
        price: Option<MicrosPerMwh>,
        cost: Money,
    },
    Income {
        rig: RigId,
        at: UnixMillis,
        kind: WorkloadKind,
        money: Money,
        assumed: bool,
    },
    Switch {
        rig: RigId,
        at: UnixMillis,
        from: Option<Workload>,
        to: Option<Workload>,
        reason: String,
    },
    Artifacts {
        rig: RigId,
        block_hash: String,
        nonces: Vec<u32>,
    },
    Breach {
        feeder: FeederId,
        at: UnixMillis,
        power: Watts,
        limit: Watts,
    },
}

pub(super) fn stored(entry: &Entry) -> Vec<StoredPart> {
    entry.parts.iter().cloned().map(StoredPart::from).collect()
}

pub(super) fn parts(stored: Vec<StoredPart>) -> Vec<Part> {
    stored.into_iter().map(Part::from).collect()
}

impl From<Part> for StoredPart {
    fn from(part: Part) -> Self {
        match part {
            Part::Energy { rig, at, span, energy, source, price, cost } => {
                Self::Energy { rig, at, span, energy, source, price, cost }
            }
            Part::Income { rig, at, kind, money, assumed } => {
                Self::Income { rig, at, kind, money, assumed }
            }
            Part::Switch { rig, at, from, to, reason } => {
                Self::Switch { rig, at, from, to, reason }
            }
            Part::Artifacts { rig, block_hash, nonces } => {
                Self::Artifacts { rig, block_hash, nonces }
            }
            Part::Breach { feeder, at, power, limit } => Self::Breach { feeder, at, power, limit },
        }
    }
}

impl From<StoredPart> for Part {
    fn from(part: StoredPart) -> Self {
        match part {
            StoredPart::Energy { rig, at, span, energy, source, price, cost } => {
                Self::Energy { rig, at, span, energy, source, price, cost }
            }
            StoredPart::Income { rig, at, kind, money, assumed } => {
                Self::Income { rig, at, kind, money, assumed }
            }
            StoredPart::Switch { rig, at, from, to, reason } => {
                Self::Switch { rig, at, from, to, reason }
            }
            StoredPart::Artifacts { rig, block_hash, nonces } => {
                Self::Artifacts { rig, block_hash, nonces }
            }
            StoredPart::Breach { feeder, at, power, limit } => {
                Self::Breach { feeder, at, power, limit }
            }
        }
    }
}
