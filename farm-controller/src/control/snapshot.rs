//! The farm machine and the ledger as one [`FarmView`]: everything a person sees comes from here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use farm_core::Farm;
use farm_core::farm::RigView as KnownRig;
use farm_core::forecast::PriceQuality;
use farm_core::ledger::{Account, Ledger};
use farm_core::plan::{Choice, Commitment, Plan};
use roadbed_protocol::{
    HASH_RATES_REPORTED_MAX, HashRate, MicrosPerMwh, POOLS_REPORTED_MAX, PoolReport, RigId,
    UnixMillis, Workload,
};

use crate::gonka::sketch::promise;
use crate::gonka::view::{GonkaView, PromiseView, risk};
use crate::view::{
    ChoiceView, FarmView, FeederView, LOG_LINES_MAX, LogLine, PlanRowView, PlanView, RigView,
    SWITCHES_MAX, SlotView, SwitchView, Totals,
};

/// What a view needs beside the machine's and the ledger's own knowledge.
#[derive(Debug, Clone, Default)]
pub struct Nameplates {
    /// Name of the farm for people.
    pub farm: String,
    /// Currency of its money.
    pub currency: String,
    /// Model of each rig by its profile.
    pub models: BTreeMap<RigId, String>,
}

/// The part of a view that is remembered between two views.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Latest log lines.
    pub log: VecDeque<LogLine>,
    /// Notes of the newest plan.
    pub notes: Vec<String>,
    /// What the guard took from it.
    pub sheds: Vec<String>,
    /// When the price feed last answered.
    pub prices_at: Option<UnixMillis>,
    /// All promises, with what they pay.
    pub promises: Arc<Vec<Commitment>>,
    /// The chain and our place in it.
    pub gonka: Option<Arc<GonkaView>>,
}

impl Memory {
    /// Adds a line, forgetting the oldest.
    pub fn write(&mut self, line: LogLine) {
        if self.log.len() >= LOG_LINES_MAX {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// What a hold of `rig` at `workload` would break, in one line with its cost; `None` when it breaks nothing soon.
    #[must_use]
    pub fn risk(&self, rig: &RigId, workload: &Workload, now: UnixMillis) -> Option<String> {
        let promised = self.promises.iter().filter(|promise| {
            promise.rig == *rig && promise.workload != *workload && promise.until > now
        });
        let views: Vec<PromiseView> = promised.map(promise).collect();
        risk(&views, now)
    }
}

/// Makes the view of this moment.
#[must_use]
pub fn snapshot(
    names: &Nameplates,
    farm: &Farm,
    ledger: &Ledger,
    memory: &Memory,
    now: UnixMillis,
) -> FarmView {
    let mut feeders: Vec<FeederView> = farm
        .feeder_loads(now)
        .into_iter()
        .map(|load| FeederView {
            id: load.feeder.to_string(),
            limit: load.limit_now,
            power: load.counted,
        })
        .collect();
    // The site's own connection is the one without a parent; people look there first.
    let roots: Vec<String> = farm
        .settings()
        .feeders
        .iter()
        .filter(|feeder| feeder.parent.is_none())
        .map(|feeder| feeder.id.to_string())
        .collect();
    feeders.sort_by_key(|feeder| (!roots.contains(&feeder.id), feeder.id.clone()));
    let mut rigs: Vec<RigView> =
        farm.rigs().map(|rig| rig_view((names, memory), farm, ledger, rig, now)).collect();
    rigs.sort_by(|a, b| a.id.cmp(&b.id));
    FarmView {
        farm: names.farm.clone(),
        currency: names.currency.clone(),
        at: now,
        price: price(farm, now),
        price_age: memory.prices_at.map(|at| now.since(at)),
        feeders,
        rigs,
        plan: farm.plan().map_or_else(PlanView::default, |plan| plan_view(plan, memory)),
        totals: totals(&ledger.total()),
        log: memory.log.iter().cloned().collect(),
        gonka: memory.gonka.as_ref().map(|view| Box::new(GonkaView::clone(view))),
    }
}

fn price(farm: &Farm, now: UnixMillis) -> Option<MicrosPerMwh> {
    let plan = farm.plan()?;
    let slot = plan.slots.get(plan.slot_at(now)?)?;
    known(slot.price, slot.quality)
}

fn known(price: MicrosPerMwh, quality: PriceQuality) -> Option<MicrosPerMwh> {
    match quality {
        PriceQuality::Known | PriceQuality::Held => Some(price),
        PriceQuality::Missing => None,
    }
}

fn rig_view(
    (names, memory): (&Nameplates, &Memory),
    farm: &Farm,
    ledger: &Ledger,
    rig: &KnownRig,
    now: UnixMillis,
) -> RigView {
    let spec = &rig.member.spec;
    let report = rig.report.as_ref().map(|(_, report)| report);
    let assigned = rig.assigned.as_ref();
    let choice = farm.plan().and_then(|plan| plan.choice_at(&spec.id, now));
    let waiting = rig.waiting.as_ref().map(|why| format!("waits: {why}"));
    let reason = waiting.or_else(|| assigned.map(|assigned| assigned.reason.clone()));
    let switches = ledger
        .switches()
        .filter(|switch| switch.rig == spec.id)
        .map(|switch| SwitchView {
            at: switch.at,
            from: switch.from.clone(),
            to: switch.to.clone(),
            reason: switch.reason.clone(),
        })
        .collect::<Vec<_>>();
    let newest = switches.len().saturating_sub(SWITCHES_MAX);
    RigView {
        id: spec.id.clone(),
        kind: spec.kind,
        model: names.models.get(&spec.id).cloned().unwrap_or_default(),
        engine: report.map_or_else(String::new, |report| report.engine.clone()),
        feeder: spec.feeder.to_string(),
        agent: rig.member.agent.to_string(),
        online: rig.online,
        state: report.map(|report| report.state),
        since: report.map(|report| report.since),
        workload: report.and_then(|report| report.workload.clone()),
        target: assigned.map(|assigned| assigned.workload.clone()),
        cause: assigned.map(|assigned| assigned.cause),
        held_by: farm
            .holds()
            .iter()
            .find(|hold| hold.rig == spec.id)
            .map(|hold| hold.operator.clone()),
        reason: reason.unwrap_or_default(),
        state_reason: report.map_or_else(String::new, |report| report.reason.clone()),
        generation: assigned.map_or(0, |assigned| assigned.generation),
        lease_until: assigned.map(|assigned| assigned.lease_until),
        power: report.and_then(|report| report.power),
        hashrate: report.and_then(|report| report.hashrate),
        temperature: report.and_then(|report| report.temperature),
        proof_rate: report.and_then(|report| report.proof_rate.as_deref().cloned()),
        proof_rates: report.map(|report| report.proof_rates.clone()).unwrap_or_default(),
        proof: report.and_then(|report| report.proof.as_deref().cloned()),
        pools: report.map(|report| pools(&report.pools)).unwrap_or_default(),
        hash_rates: report.map(|report| hash_rates(&report.hash_rates)).unwrap_or_default(),
        jobs: report.map(|report| report.jobs).unwrap_or_default(),
        reported_at: rig.report.as_ref().map(|(at, _)| *at),
        margin: choice.map(|choice| choice.margin),
        assumed: choice.is_some_and(|choice| choice.assumed),
        totals: ledger.account(&spec.id).map(totals).unwrap_or_default(),
        switches: switches.into_iter().skip(newest).collect(),
        promises: memory
            .promises
            .iter()
            .filter(|promise| promise.rig == spec.id && promise.until > now)
            .map(promise)
            .collect(),
    }
}

/// As many as a rig's list may have, with texts that fit a line, whatever the agent sent.
fn pools(reported: &[PoolReport]) -> Vec<PoolReport> {
    reported.iter().take(POOLS_REPORTED_MAX).map(|pool| pool.clone().bounded()).collect()
}

/// As many rates as are believed of one rig, each of a bounded length.
fn hash_rates(reported: &[HashRate]) -> Vec<HashRate> {
    reported.iter().take(HASH_RATES_REPORTED_MAX).map(|rate| rate.clone().bounded()).collect()
}

fn totals(account: &Account) -> Totals {
    Totals {
        energy: account.energy.watt_hours(),
        cost: account.cost,
        revenue: account.revenue(),
        assumed_revenue: account.income_assumed,
        switches: u32::try_from(account.switches).unwrap_or(u32::MAX),
    }
}

/// A plan for people.
#[must_use]
pub fn plan_view(plan: &Plan, memory: &Memory) -> PlanView {
    let slots = plan.slots.iter().enumerate().map(|(index, slot)| SlotView {
        start: slot.start,
        price: known(slot.price, slot.quality),
        power: plan.power_at(index),
    });
    let rows = plan.rows.iter().map(|row| PlanRowView {
        rig: row.rig.clone(),
        choices: row.choices.iter().map(choice_view).collect(),
    });
    PlanView {
        id: plan.id,
        made_at: plan.made_at,
        slots: slots.collect(),
        rows: rows.collect(),
        notes: memory.notes.clone(),
        sheds: memory.sheds.clone(),
    }
}

fn choice_view(choice: &Choice) -> ChoiceView {
    ChoiceView {
        workload: choice.workload.clone(),
        cause: choice.cause,
        power: choice.power,
        margin: choice.margin,
        assumed: choice.assumed,
        next_best: choice.next_best.as_ref().map(|next| (next.workload.clone(), next.margin)),
        reason: choice.reason.clone(),
    }
}
