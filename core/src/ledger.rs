//! The ledger: what every rig used and earned, as a fold over entries that may come twice.

use std::collections::BTreeMap;

use roadbed_protocol::{
    AgentId, FeederId, MicrosPerMwh, Millis, Money, PowerSource, RigId, UnixMillis, WattMillis,
    Watts, Workload, WorkloadKind,
};

/// One journal row, priced. Entries are kept by the store and folded again at a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The agent whose journal holds the row; `None` for what the controller itself saw.
    pub agent: Option<AgentId>,
    /// Which journal.
    pub journal: String,
    /// Row number.
    pub seq: u64,
    /// What it says.
    pub parts: Vec<Part>,
}

/// One line of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Energy used, with its cost.
    Energy {
        /// The rig.
        rig: RigId,
        /// End of the sample.
        at: UnixMillis,
        /// How long it covers.
        span: Millis,
        /// Energy over that span.
        energy: WattMillis,
        /// Who measured it.
        source: PowerSource,
        /// Price at that time; `None` when nobody knows, and then it costs nothing and is shown as unpriced.
        price: Option<MicrosPerMwh>,
        /// `energy` at `price`.
        cost: Money,
    },
    /// Something earned.
    Income {
        /// The rig.
        rig: RigId,
        /// When.
        at: UnixMillis,
        /// By what.
        kind: WorkloadKind,
        /// How much.
        money: Money,
        /// True when the rate is the operator's assumption, not data.
        assumed: bool,
    },
    /// A workload replaced another.
    Switch {
        /// The rig.
        rig: RigId,
        /// When.
        at: UnixMillis,
        /// Before.
        from: Option<Workload>,
        /// After.
        to: Option<Workload>,
        /// Why, for people.
        reason: String,
    },
    /// Artifacts a Network Node took.
    Artifacts {
        /// The rig.
        rig: RigId,
        /// Block hash of the round.
        block_hash: String,
        /// Nonces delivered.
        nonces: Vec<u32>,
    },
    /// A feeder was above its limit beyond the grace.
    Breach {
        /// The feeder.
        feeder: FeederId,
        /// When the grace ended.
        at: UnixMillis,
        /// Power measured.
        power: Watts,
        /// Power allowed.
        limit: Watts,
    },
}

/// What one rig used and earned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Energy used.
    pub energy: WattMillis,
    /// Of it, energy nobody had a price for.
    pub energy_unpriced: WattMillis,
    /// Of it, energy nobody measured: the profile's planning value.
    pub energy_unmeasured: WattMillis,
    /// What it cost.
    pub cost: Money,
    /// Earned, by kind of workload.
    pub income: BTreeMap<WorkloadKind, Money>,
    /// Of it, income by the operator's assumption.
    pub income_assumed: Money,
    /// Switches.
    pub switches: u64,
    /// Artifacts delivered, each counted once.
    pub artifacts: u64,
}

/// The fold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    accounts: BTreeMap<RigId, Account>,
}

impl Account {
    /// All income.
    #[must_use]
    pub fn revenue(&self) -> Money {
        self.income.values().copied().sum()
    }

    /// Revenue less energy.
    #[must_use]
    pub fn margin(&self) -> Money {
        self.revenue() - self.cost
    }
}

impl Ledger {
    /// Adds an entry. False when it was known already and nothing changed.
    pub fn apply(&mut self, entry: &Entry) -> bool {
        let _ = entry;
        false
    }

    /// One rig's account.
    #[must_use]
    pub fn account(&self, rig: &RigId) -> Option<&Account> {
        self.accounts.get(rig)
    }

    /// Every account, by rig.
    pub fn accounts(&self) -> impl Iterator<Item = (&RigId, &Account)> {
        self.accounts.iter()
    }

    /// The sum of all accounts.
    #[must_use]
    pub fn total(&self) -> Account {
        Account::default()
    }

    /// The latest switches, oldest first, at most [`SWITCHES_KEPT`].
    pub fn switches(&self) -> impl Iterator<Item = &SwitchRecord> {
        std::iter::empty()
    }

    /// Breaches, oldest first.
    #[must_use]
    pub fn breaches(&self) -> u64 {
        0
    }
}

/// Switches kept with their reasons; older ones are in the store.
pub const SWITCHES_KEPT: usize = 10_000;

/// One switch, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchRecord {
    /// The rig.
    pub rig: RigId,
    /// When.
    pub at: UnixMillis,
    /// Before.
    pub from: Option<Workload>,
    /// After.
    pub to: Option<Workload>,
    /// Why.
    pub reason: String,
}
