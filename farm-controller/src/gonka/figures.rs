//! From what was read to what an epoch is worth to a rig: each part of the income with its source and its time.
//!
//! Pure. What the chain does not have (a private network without collateral rules) is nought with the time it was read;
//! what could not be read is absent, and then there is no sum.

use farm_core::gonka::{
    CollateralParams, Decimal, Fact, GonkaFacts, Income, IncomeParts, Ngonka, Sourced,
};
use farm_core::plan::IncomeSource;
use roadbed_protocol::{Millis, ProofRate};

use crate::config::{GonkaRig, GonkaSite};

/// Of a rig's measured rates, newest first, the one for its model at the length that the chain asks for; else the newest
/// for its model, else the newest.
#[must_use]
pub fn rate_of<'r>(
    rates: &'r [ProofRate],
    rig: &GonkaRig,
    facts: &GonkaFacts,
) -> Option<&'r ProofRate> {
    let rules = facts.params.last().and_then(|(params, _)| params.model(&rig.model));
    let of_model = |rate: &&ProofRate| rate.model == rig.model;
    let of_length = |rate: &&ProofRate| rules.is_some_and(|it| it.seq_len == rate.seq_len);
    let exact = rates.iter().filter(of_model).find(of_length);
    exact.or_else(|| rates.iter().find(of_model)).or_else(|| rates.first())
}

/// What `rig` may expect of epoch `epoch`. `part` is its part of its node: all of it, unless several rigs are one MLNode.
#[must_use]
pub fn income(
    site: &GonkaSite,
    rig: &GonkaRig,
    part: Part,
    rate: Option<&ProofRate>,
    facts: &GonkaFacts,
    epoch: u64,
) -> Income {
    let params = facts.params.last();
    let rules = params.and_then(|(params, _)| params.model(&rig.model));
    let chain = facts.epoch.last();
    let span = |blocks: i64| {
        let block = facts.block?;
        let blocks = u64::try_from(blocks).ok()?;
        Some(Sourced::read(Millis(block.block_time.0.saturating_mul(blocks)), block.at))
    };
    let stages = chain.map(|(chain, _)| chain.stages);
    let node = own_node(facts, &rig.node_id).map(|(own, all)| (part.of(own), all));
    Income::of(IncomeParts {
        epoch: chain.map(|(_, at)| Sourced::read(epoch, at)),
        rate: rate
            .filter(|rate| rate.model == rig.model)
            .filter(|rate| rules.is_none_or(|rules| rules.seq_len == rate.seq_len))
            .map(|rate| Sourced::read(rate.millinonces_per_minute, rate.measured_at)),
        // From the first block to the wind-down is what is surely taken.
        generate: stages
            .and_then(|it| span(it.poc_generation_wind_down.0.saturating_sub(it.poc_start.0))),
        epoch_length: stages
            .and_then(|it| span(it.next_poc_start.0.saturating_sub(it.poc_start.0))),
        coefficient: coefficient(facts, &rig.model),
        confirmed_permille: facts
            .confirmed_permille()
            .zip(facts.group.last())
            .map(|(permille, (_, at))| Sourced::read(permille, at)),
        total_weight: total_weight(facts),
        is_in_total: node.is_some(),
        host_weight_beside: weight_beside(facts, node),
        others: facts.group.last().map(|(group, at)| {
            let others = group.members.iter().filter(|member| member.address != facts.address);
            Sourced::read(others.map(|member| member.weight).collect(), at)
        }),
        mint: params
            .and_then(|(params, at)| Some(Sourced::read(params.mint?.of_epoch(epoch)?, at))),
        work: None,
        collateral: params
            .map(|(params, at)| Sourced::read(params.collateral.unwrap_or(NO_COLLATERAL), at)),
        deposit: match &facts.collateral {
            Fact::Read { value, at, .. } => Some(Sourced::read(*value, *at)),
            // A host without a deposit has no such document.
            Fact::NotOffered { at } => Some(Sourced::read(Ngonka(0), *at)),
            Fact::Unread | Fact::Failing(_) => None,
        },
        delegation: delegation(site, facts, epoch),
        vesting_epochs: params
            .and_then(|(params, at)| Some(Sourced::read(params.reward_vesting_epochs?, at))),
        expected_loss: site.expected_loss.and_then(|(millionths, source)| {
            Some(Sourced { value: Decimal::new(millionths, -6)?, source })
        }),
        price: site.price.map(|(value, source)| Sourced { value, source }),
    })
}

/// The rules of a chain that has none of collateral: all weight counts.
const NO_COLLATERAL: CollateralParams = CollateralParams {
    grace_period_end_epoch: u64::MAX,
    base_weight_ratio: Decimal { value: 1, exponent: 0 },
    per_weight_unit: Decimal { value: 0, exponent: 0 },
    slash_fraction_invalid: Decimal { value: 0, exponent: 0 },
    slash_fraction_downtime: Decimal { value: 0, exponent: 0 },
};

fn coefficient(facts: &GonkaFacts, model: &str) -> Option<Sourced<Decimal>> {
    let value = facts.coefficient(model)?;
    let times = [
        facts.coefficients.last().map(|(_, at)| at),
        facts.group.last().map(|(_, at)| at),
        facts.params.last().map(|(_, at)| at),
    ];
    // It is in one of them; the oldest is the time nobody can complain of.
    times.into_iter().flatten().min().map(|at| Sourced::read(value, at))
}

fn total_weight(facts: &GonkaFacts) -> Option<Sourced<u128>> {
    let of_group = facts.group.last().map(|(group, at)| Sourced::read(group.total_weight, at));
    of_group.or_else(|| {
        facts.participants.last().map(|(hosts, at)| Sourced::read(hosts.total_weight(), at))
    })
}

/// Nonces of our MLNode of that name in the epoch in force, and of all our MLNodes; `None` when it is not among them.
fn own_node(facts: &GonkaFacts, node_id: &str) -> Option<(u64, u64)> {
    let (hosts, _) = facts.participants.last()?;
    let own = hosts.hosts.iter().find(|host| host.address == facts.address)?;
    let of = |id: Option<&str>| {
        let nodes = own.nodes.iter().filter(|node| id.is_none_or(|id| node.node_id == id));
        nodes.map(|node| node.poc_weight).fold(0, u64::saturating_add)
    };
    own.nodes.iter().any(|node| node.node_id == node_id).then(|| (of(Some(node_id)), of(None)))
}

/// A rig's part of what its node earns. The chain keeps the nonces of a node, not whose they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    own: u64,
    all: u64,
}

impl Part {
    /// Of one that counts `own` among all who are the node, itself included; equal parts where all count nothing.
    #[must_use]
    pub fn among(own: u64, all: &[u64]) -> Self {
        match all.iter().copied().fold(0, u64::saturating_add) {
            0 => Self { own: 1, all: (all.len() as u64).max(1) },
            sum => Self { own, all: sum },
        }
    }

    /// So much of `whole`, cut.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        let share = u128::from(whole) * u128::from(self.own) / u128::from(self.all);
        u64::try_from(share).unwrap_or(whole)
    }
}

/// The host's weight without the rig's: its share goes by nonces, because the chain keeps weights by host.
fn weight_beside(facts: &GonkaFacts, node: Option<(u64, u64)>) -> u64 {
    let weight = facts
        .group
        .last()
        .and_then(|(group, _)| group.member(&facts.address))
        .map_or(0, |member| member.weight);
    let (own, all) = node.unwrap_or((0, 1));
    let beside = u128::from(weight) * u128::from(all.saturating_sub(own)) / u128::from(all.max(1));
    u64::try_from(beside).unwrap_or(u64::MAX)
}

/// What models the host does not serve cost it, all shares together.
fn delegation(site: &GonkaSite, facts: &GonkaFacts, epoch: u64) -> Option<Sourced<Decimal>> {
    let (params, at) = facts.params.last()?;
    let none = Decimal { value: 0, exponent: 0 };
    let Some(rules) = params.delegation else { return Some(Sourced::read(none, at)) };
    let served = site.models();
    let asked = params.models.iter().filter(|model| {
        let is_due = model.penalty_start_epoch.is_none_or(|from| epoch >= from);
        is_due && !served.contains(&model.model)
    });
    let asked: Vec<&str> = asked.map(|model| model.model.as_str()).collect();
    if asked.is_empty() {
        return Some(Sourced::read(none, at));
    }
    let (said, said_at) = facts.delegations.last()?;
    let mut millionths = 0_i128;
    for model in asked {
        let share = if said.delegated.iter().any(|(of, _)| of == model) {
            rules.delegation_share
        } else if said.refused.iter().any(|of| of == model) {
            rules.refusal_penalty
        } else {
            rules.no_participation_penalty
        };
        millionths = millionths.saturating_add(share?.of(1_000_000));
    }
    let millionths = i64::try_from(millionths.clamp(0, 1_000_000)).ok()?;
    let source = IncomeSource::Data { at: at.min(said_at) };
    Some(Sourced { value: Decimal::new(millionths, -6)?, source })
}

/// Whether our MLNode of that name works in the epoch in force, and which epoch that is.
#[must_use]
pub fn works_in(facts: &GonkaFacts, node_id: &str) -> Option<(u64, bool)> {
    let (hosts, _) = facts.participants.last()?;
    let node = own_node(facts, node_id);
    Some((hosts.epoch_index, node.is_some_and(|(own, _)| own > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_go_by_what_each_counts_and_are_equal_where_nobody_counts() {
        assert_eq!(Part::among(5, &[5]).of(3_307), 3_307);
        assert_eq!(Part::among(0, &[0]).of(3_307), 3_307);
        assert_eq!(Part::among(1, &[1, 2]).of(10), 3);
        assert_eq!(Part::among(0, &[0, 2]).of(10), 0);
        assert_eq!(Part::among(0, &[0, 0]).of(10), 5);
        assert_eq!(Part::among(u64::MAX, &[u64::MAX, u64::MAX]).of(u64::MAX), u64::MAX);
    }
}
