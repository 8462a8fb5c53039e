//! The ledger: what every rig used and earned, as a fold over entries that may come twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roadbed_protocol::{
    AgentId, FeederId, MicrosPerMwh, Millis, Money, PowerSource, RigId, UnixMillis, WattMillis,
    Watts, Workload, WorkloadKind,
};

use crate::journal::{Cursor, Verdict};

/// One journal row, priced. Entries are kept by the store and folded again at a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The agent whose journal holds the row; `None` for what the controller itself saw.
    pub agent: Option<AgentId>,
    /// Which journal.
    pub journal: String,
    /// Row number, from 1; for what the controller saw, the time in milliseconds.
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
    read: BTreeMap<(Option<AgentId>, String), Cursor>,
    rounds: BTreeMap<RigId, VecDeque<(String, BTreeSet<u32>)>>,
    switches: VecDeque<SwitchRecord>,
    breaches: Vec<BreachRecord>,
}

/// Rounds of proof whose nonces are kept in mind for each rig, so that an artifact reported again counts once. A round
/// lasts minutes and an agent reports it again within the hour, so eight are plenty.
const ROUNDS_KEPT: usize = 8;
/// Breaches kept with their figures.
const BREACHES_KEPT: usize = 1_000;

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
        let cursor = self.read.entry((entry.agent.clone(), entry.journal.clone())).or_default();
        // Entries of the controller have the time as their number, so its journal has gaps by nature; they are few.
        match cursor.take(entry.seq) {
            Verdict::Take => {}
            Verdict::Duplicate => return false,
            Verdict::TooFar => {
                cursor.skip_gap();
                if cursor.take(entry.seq) != Verdict::Take {
                    return false;
                }
            }
        }
        for part in &entry.parts {
            self.add(part);
        }
        true
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
        let mut total = Account::default();
        for account in self.accounts.values() {
            total.energy += account.energy;
            total.energy_unpriced += account.energy_unpriced;
            total.energy_unmeasured += account.energy_unmeasured;
            total.cost += account.cost;
            for (kind, money) in &account.income {
                *total.income.entry(*kind).or_default() += *money;
            }
            total.income_assumed += account.income_assumed;
            total.switches += account.switches;
            total.artifacts += account.artifacts;
        }
        total
    }

    /// The latest switches, oldest first, at most [`SWITCHES_KEPT`].
    pub fn switches(&self) -> impl Iterator<Item = &SwitchRecord> {
        self.switches.iter()
    }

    /// Breaches, oldest first.
    #[must_use]
    pub fn breaches(&self) -> &[BreachRecord] {
        &self.breaches
    }

    fn add(&mut self, part: &Part) {
        match part {
            Part::Energy { rig, energy, source, price, cost, .. } => {
                let account = self.accounts.entry(rig.clone()).or_default();
                account.energy += *energy;
                account.cost += *cost;
                if price.is_none() {
                    account.energy_unpriced += *energy;
                }
                match source {
                    PowerSource::Profile => account.energy_unmeasured += *energy,
                    PowerSource::Meter | PowerSource::Pdu | PowerSource::Firmware => {}
                }
            }
            Part::Income { rig, kind, money, assumed, .. } => {
                let account = self.accounts.entry(rig.clone()).or_default();
                *account.income.entry(*kind).or_default() += *money;
                if *assumed {
                    account.income_assumed += *money;
                }
            }
            Part::Switch { rig, at, from, to, reason } => {
                self.accounts.entry(rig.clone()).or_default().switches += 1;
                if self.switches.len() >= SWITCHES_KEPT {
                    self.switches.pop_front();
                }
                self.switches.push_back(SwitchRecord {
                    rig: rig.clone(),
                    at: *at,
                    from: from.clone(),
                    to: to.clone(),
                    reason: reason.clone(),
                });
            }
            Part::Artifacts { rig, block_hash, nonces } => {
                let fresh = self.fresh(rig, block_hash, nonces);
                self.accounts.entry(rig.clone()).or_default().artifacts += fresh;
            }
            Part::Breach { feeder, at, power, limit } => {
                if self.breaches.len() < BREACHES_KEPT {
                    let (feeder, at) = (feeder.clone(), *at);
                    self.breaches.push(BreachRecord { feeder, at, power: *power, limit: *limit });
                }
            }
        }
    }

    /// How many of these artifacts were not counted before.
    fn fresh(&mut self, rig: &RigId, block_hash: &str, nonces: &[u32]) -> u64 {
        let rounds = self.rounds.entry(rig.clone()).or_default();
        if !rounds.iter().any(|(hash, _)| hash == block_hash) {
            if rounds.len() >= ROUNDS_KEPT {
                rounds.pop_front();
            }
            rounds.push_back((block_hash.to_owned(), BTreeSet::new()));
        }
        let Some((_, seen)) = rounds.iter_mut().find(|(hash, _)| hash == block_hash) else {
            return 0;
        };
        nonces.iter().filter(|nonce| seen.insert(**nonce)).count() as u64
    }
}

/// One breach, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreachRecord {
    /// The feeder.
    pub feeder: FeederId,
    /// When the grace ended.
    pub at: UnixMillis,
    /// Power measured.
    pub power: Watts,
    /// Power allowed.
    pub limit: Watts,
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

#[cfg(test)]
mod tests {
    use roadbed_protocol::MicrosPerMwh;

    use super::*;

    fn rig() -> RigId {
        RigId::new("rig").unwrap()
    }

    fn entry(seq: u64, parts: Vec<Part>) -> Entry {
        Entry { agent: AgentId::new("agent").ok(), journal: "j".into(), seq, parts }
    }

    fn energy(watts: u64, price: Option<i64>, source: PowerSource) -> Part {
        let span = Millis::from_hours(1);
        let energy = Watts(watts).over(span);
        let price = price.map(|price| MicrosPerMwh(price * 1_000_000));
        let cost = price.map_or(Money::ZERO, |price| energy.cost(price));
        Part::Energy { rig: rig(), at: UnixMillis(0), span, energy, source, price, cost }
    }

    fn income(money: i64, assumed: bool) -> Part {
        let kind = WorkloadKind::Mine;
        Part::Income { rig: rig(), at: UnixMillis(0), kind, money: Money(money), assumed }
    }

    #[test]
    fn every_entry_counts_once_in_any_order() {
        let entries = [
            entry(1, vec![energy(3_000, Some(50), PowerSource::Meter), income(400_000, false)]),
            entry(2, vec![energy(1_000, Some(-10), PowerSource::Profile), income(7, true)]),
            entry(3, vec![energy(500, None, PowerSource::Pdu)]),
        ];
        let mut straight = Ledger::default();
        let mut crooked = Ledger::default();
        for entry in &entries {
            assert!(straight.apply(entry));
        }
        for index in [2, 0, 2, 1, 0, 1] {
            crooked.apply(&entries[index]);
        }
        assert_eq!(straight, crooked);
        let total = straight.total();
        assert_eq!(total.energy.watt_hours().0, 4_500);
        assert_eq!(total.energy_unpriced.watt_hours().0, 500);
        assert_eq!(total.energy_unmeasured.watt_hours().0, 1_000);
        assert_eq!(total.cost, Money(150_000 - 10_000));
        assert_eq!(total.margin(), Money(400_007 - 140_000));
        assert_eq!(total.income_assumed, Money(7));
    }

    #[test]
    fn an_artifact_counts_once_however_often_it_is_told() {
        let told = |seq, nonces: &[u32]| {
            let (rig, block_hash) = (rig(), "aa".into());
            entry(seq, vec![Part::Artifacts { rig, block_hash, nonces: nonces.to_vec() }])
        };
        let mut ledger = Ledger::default();
        ledger.apply(&told(1, &[1, 2]));
        ledger.apply(&told(2, &[2, 3, 3]));
        ledger.apply(&told(2, &[4]));
        assert_eq!(ledger.total().artifacts, 3);
    }

    #[test]
    fn what_the_controller_sees_is_numbered_by_time() {
        let breach = |at: u64| Entry {
            agent: None,
            journal: "controller".into(),
            seq: at,
            parts: vec![Part::Breach {
                feeder: FeederId::new("hall").unwrap(),
                at: UnixMillis(0),
                power: Watts(2),
                limit: Watts(1),
            }],
        };
        let mut ledger = Ledger::default();
        for at in [1_700_000_000_000, 1_700_000_060_000, 1_700_000_000_000] {
            ledger.apply(&breach(at));
        }
        assert_eq!(ledger.breaches().len(), 2);
    }
}
