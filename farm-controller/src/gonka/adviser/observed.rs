//! What is seen of a rig in a generate stage and what the chain tells of it later, into the record of the epoch.

use std::collections::BTreeMap;

use farm_core::gonka::{Decimal, EpochStages, GonkaFacts, Span};
use roadbed_protocol::{Cause, RigId, RigState};

use super::Rates;
use super::trials::usual;
use crate::config::{GonkaSite, Site};
use crate::gonka::epoch_record::{EpochRecord, Hindrance, LostRecord, RigRecord};
use crate::gonka::figures::Part;
use crate::view::{FarmView, RigView};

/// What keeps a rig from proving, by its own report and its orders.
pub(super) fn hindrance(site: &Site, rig: &RigView) -> Option<(Hindrance, String)> {
    let gonka = site.gonka.as_ref()?;
    let model = &gonka.rigs.iter().find(|prover| prover.rig == rig.id)?.model;
    let has = |workload: Option<&roadbed_protocol::Workload>| {
        workload.and_then(|workload| workload.model()) == Some(model.as_str())
    };
    let is_up = rig.online && rig.state == Some(RigState::Running) && has(rig.workload.as_ref());
    if is_up {
        return None;
    }
    let is_told = has(rig.target.as_ref());
    match rig.cause {
        Some(Cause::Curtailment) if !is_told => {
            return Some((Hindrance::Curtailed, rig.reason.clone()));
        }
        Some(Cause::OperatorHold) if !is_told => {
            return Some((Hindrance::Held, rig.reason.clone()));
        }
        Some(Cause::Curtailment | Cause::OperatorHold | Cause::Plan | Cause::PocWindow) | None => {}
    }
    let state = match (rig.online, rig.state) {
        (false, _) => return Some((Hindrance::Offline, "its agent is away".into())),
        (true, None) => return Some((Hindrance::Offline, "it never reported".into())),
        (true, Some(state)) => state,
    };
    let line = format!("{state}: {}", rig.state_reason);
    match state {
        RigState::Booting | RigState::Faulted | RigState::Tripped => {
            Some((Hindrance::Offline, line))
        }
        RigState::Idle
        | RigState::Starting
        | RigState::Running
        | RigState::Draining
        | RigState::Stopping
        | RigState::Curtailed => Some((Hindrance::NotLoaded, line)),
    }
}

/// A record at its first look, with what is expected of each rig whose rate and coefficient are known.
pub(super) fn begun(
    site: &Site,
    facts: &GonkaFacts,
    view: &FarmView,
    stages: &EpochStages,
    stage: Span,
    rates: &Rates,
) -> EpochRecord {
    let blocks = stages.poc_generation_wind_down.0.saturating_sub(stages.poc_start.0).max(0);
    let pace = facts.block.map_or(0, |block| block.block_time.0);
    let taken = u128::from(pace) * u128::from(blocks.unsigned_abs());
    let provers = site.gonka.iter().flat_map(|gonka| &gonka.rigs);
    let expected = provers.filter_map(|prover| {
        let seen = view.rigs.iter().find(|rig| rig.id == prover.rig)?;
        let newest = seen.proof_rate.as_ref().filter(|rate| rate.model == prover.model)?;
        let rate = rates.get(&prover.rig).and_then(|rates| usual(rates));
        let rate = rate.unwrap_or(newest.millinonces_per_minute);
        let coefficient = facts.coefficient(&prover.model)?;
        let nonces = i128::try_from(u128::from(rate) * taken / 60_000_000).ok()?;
        let counters = (seen.jobs.artifacts_computed, seen.jobs.artifacts_delivered);
        let record = RigRecord {
            expected: u64::try_from(coefficient.of(nonces)).ok()?,
            proved: None,
            coefficient: (coefficient.value, coefficient.exponent),
            coefficient_counted: None,
            usual_rate: rate,
            stretches: Vec::new(),
            before: counters,
            after: counters,
            lost_before: LostRecord::of(&seen.jobs),
            lost_after: LostRecord::of(&seen.jobs),
        };
        Some((prover.rig.clone(), record))
    });
    EpochRecord {
        epoch_index: stages.epoch_index,
        from: stage.from.at,
        until: stage.until.at,
        rigs: expected.collect(),
        entered: None,
        confirmed_permille: None,
        rewarded: None,
        misses: None,
        told: false,
    }
}

/// Takes what the chain tells of the record's epoch.
pub(super) fn complete(record: &mut EpochRecord, facts: &GonkaFacts, site: &Site) {
    let epoch = record.epoch_index;
    let group = [&facts.group, &facts.former_group]
        .into_iter()
        .filter_map(|fact| fact.last().map(|(group, _)| group))
        .find(|group| group.epoch_index == epoch);
    if let Some(member) = group.and_then(|group| group.member(&facts.address)) {
        record.entered = Some(member.weight);
        let parts = parts(record, site);
        for (id, rig) in &mut record.rigs {
            let provers = site.gonka.iter().flat_map(|gonka| &gonka.rigs);
            let Some(prover) = provers.into_iter().find(|prover| prover.rig == *id) else {
                continue;
            };
            let of_model = facts.model_groups.get(&prover.model).and_then(|fact| fact.last());
            let nodes = of_model
                .filter(|(group, _)| group.epoch_index == epoch)
                .and_then(|(group, _)| group.member(&facts.address))
                .map_or(&member.nodes, |member| &member.nodes);
            let coefficient = facts.coefficient(&prover.model).filter(|_| {
                facts.group.last().is_some_and(|(group, _)| group.epoch_index == epoch)
            });
            let counted = coefficient
                .map(|coefficient| (coefficient.value, coefficient.exponent))
                .or(rig.coefficient_counted)
                .unwrap_or(rig.coefficient);
            if let Some(node) = nodes.iter().find(|node| node.node_id == prover.node_id) {
                let own = parts.get(id).map_or(node.poc_weight, |part| part.of(node.poc_weight));
                let weight = Decimal::new(counted.0, counted.1)
                    .map_or(0, |coefficient| coefficient.of(i128::from(own)));
                rig.proved = Some(u64::try_from(weight).unwrap_or(0));
                rig.coefficient_counted = Some(counted);
            }
        }
    }
    if facts.group.last().is_some_and(|(group, _)| group.epoch_index == epoch) {
        record.confirmed_permille = facts.confirmed_permille().or(record.confirmed_permille);
    }
    if let Some((result, _)) = facts.result.last().filter(|(result, _)| result.epoch_index == epoch)
    {
        record.rewarded = result.reward_weight.or(record.rewarded);
        if result.missed + result.invalidated > 0 {
            record.misses = Some(format!(
                "{} requests missed, {} answers invalid, of {} served",
                result.missed, result.invalidated, result.inferences
            ));
        }
    }
}

/// Each rig's part of its node: by artifacts delivered in the stage, and where none were by what was expected.
fn parts(record: &EpochRecord, site: &Site) -> BTreeMap<RigId, Part> {
    let Some(gonka) = &site.gonka else { return BTreeMap::new() };
    let rigs = record.rigs.keys();
    rigs.filter_map(|rig| Some((rig.clone(), part_of_node(record, gonka, rig)?))).collect()
}

fn part_of_node(record: &EpochRecord, gonka: &GonkaSite, rig: &RigId) -> Option<Part> {
    let node_id = &gonka.rigs.iter().find(|prover| prover.rig == *rig)?.node_id;
    let own = record.rigs.get(rig)?;
    let of_node = || gonka.of_node(node_id).filter_map(|prover| record.rigs.get(&prover.rig));
    let delivered: Vec<u64> = of_node().map(RigRecord::delivered).collect();
    if delivered.iter().any(|artifacts| *artifacts > 0) {
        return Some(Part::among(own.delivered(), &delivered));
    }
    let expected: Vec<u64> = of_node().map(|rig| rig.expected).collect();
    Some(Part::among(own.expected, &expected))
}
