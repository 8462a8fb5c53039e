//! Ledger entries as JSON. The core derives no serialisation, so that its types stay free; these are the store's own
//! words and are part of the file format.

use farm_core::ledger::Part;
use roadbed_protocol::{
    FeederId, MicrosPerMwh, Millis, Money, PowerSource, RigId, UnixMillis, WattMillis, Watts,
    Workload, WorkloadKind,
};
use serde::{Deserialize, Serialize};

/// See [`Part`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub(super) enum PartRow {
    Energy {
        rig: RigId,
        at: UnixMillis,
        span: Millis,
        /// Watt-milliseconds. One sample never fills 64 bits: that would be 580 TWh.
        energy: u64,
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

impl From<&Part> for PartRow {
    fn from(part: &Part) -> Self {
        match part.clone() {
            Part::Energy { rig, at, span, energy, source, price, cost } => {
                let energy = u64::try_from(energy.0).unwrap_or(u64::MAX);
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

impl From<PartRow> for Part {
    fn from(row: PartRow) -> Self {
        match row {
            PartRow::Energy { rig, at, span, energy, source, price, cost } => {
                let energy = WattMillis(u128::from(energy));
                Self::Energy { rig, at, span, energy, source, price, cost }
            }
            PartRow::Income { rig, at, kind, money, assumed } => {
                Self::Income { rig, at, kind, money, assumed }
            }
            PartRow::Switch { rig, at, from, to, reason } => {
                Self::Switch { rig, at, from, to, reason }
            }
            PartRow::Artifacts { rig, block_hash, nonces } => {
                Self::Artifacts { rig, block_hash, nonces }
            }
            PartRow::Breach { feeder, at, power, limit } => {
                Self::Breach { feeder, at, power, limit }
            }
        }
    }
}
