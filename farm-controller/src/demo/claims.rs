//! The claims of the demo, each held against the controller's books and the stand-ins' judgements.

use farm_core::ledger::{Entry, Ledger, Part};
use roadbed_protocol::{MicrosPerMwh, Millis, RigId, RigKind, WattMillis};
use serde::Serialize;

use super::day::Day;
use super::judgements::{Judgements, Round};
use crate::config::Site;

/// Largest L2 distance at which an artifact counts as the same computation: the bar for f32 arithmetic of the published
/// vectors; about 3e-4 of it is the f16 encoding. Gonka itself allows 0.02 and more.
const DISTANCE_MAX: f64 = 0.001;

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub name: &'static str,
    /// Whether it held.
    pub held: bool,
    /// The figures.
    pub evidence: String,
}

/// Judges every claim.
pub(super) fn judge(
    site: &Site,
    day: &Day,
    entries: &[Entry],
    ledger: &Ledger,
    judgements: &Judgements,
) -> Vec<Claim> {
    let mut claims = vec![shares(judgements), chats(judgements), gateway(judgements)];
    claims.extend(proofs(day, judgements));
    claims.push(prices(site, entries));
    claims.push(commitment(site, day, entries));
    let breaches = ledger.breaches().len();
    claims.push(Claim {
        name: "no power limit was breached",
        held: breaches == 0,
        evidence: format!("{breaches} breaches booked"),
    });
    claims.push(Claim {
        name: "nothing was lost",
        held: judgements.lost() == 0,
        evidence: format!(
            "of {} shares, {} answers and {} artifacts the others hold, the controller knows {}, {} and {}; \
             work went on while they were asked",
            judgements.pool.accepted,
            judgements.customer.answered,
            judgements.artifacts(),
            judgements.booked.shares_accepted,
            judgements.booked.completions,
            judgements.booked.artifacts_delivered,
        ),
    });
    let silent: Vec<&str> = site
        .rigs
        .iter()
        .filter(|rig| ledger.account(&rig.id).is_none_or(|account| account.switches == 0))
        .map(|rig| rig.id.as_str())
        .collect();
    claims.push(Claim {
        name: "every rig worked and switched",
        held: silent.is_empty(),
        evidence: if silent.is_empty() {
            format!("{} rigs", site.rigs.len())
        } else {
            format!("not: {}", silent.join(", "))
        },
    });
    claims
}

fn shares(judgements: &Judgements) -> Claim {
    let pool = &judgements.pool;
    let wrong = pool.rejected.duplicate + pool.rejected.low_difficulty + pool.rejected.other;
    Claim {
        name: "the pool re-hashed and accepted shares",
        held: pool.accepted > 0 && wrong == 0,
        evidence: format!(
            "{} submitted, {} accepted, {} stale, {wrong} wrong",
            pool.submitted, pool.accepted, pool.rejected.stale
        ),
    }
}

fn chats(judgements: &Judgements) -> Claim {
    let customer = &judgements.customer;
    let failure = customer.last_failure.as_ref().map_or(String::new(), |why| format!("; {why}"));
    Claim {
        name: "the model answered the customer",
        held: customer.answered > 0 && customer.failed == 0,
        evidence: format!(
            "{} asked, {} answered with {} tokens, {} refused for now, {} failed{failure}",
            customer.asked, customer.answered, customer.tokens, customer.refused, customer.failed
        ),
    }
}

/// Customer and Network Node know the gateway's address only: what they got came through it, one request an answer at least.
fn gateway(judgements: &Judgements) -> Claim {
    let (passed, answered) = (judgements.passed, judgements.customer.answered);
    let rounds = &judgements.network_node.rounds;
    let started = rounds.iter().filter(|round| round.artifacts > 0).count() as u64;
    Claim {
        name: "customer and Network Node reached the rig through the gateway",
        held: answered > 0 && passed >= answered + started,
        evidence: format!(
            "{passed} requests passed on; {answered} answers and {started} proof rounds came of them"
        ),
    }
}

fn proofs(day: &Day, judgements: &Judgements) -> Vec<Claim> {
    let rounds = &judgements.network_node.rounds;
    let near = |round: &&Round| round.artifacts > 0 && round.distance_max <= DISTANCE_MAX;
    let near = rounds.iter().filter(near).count();
    let worst = rounds.iter().map(|round| round.distance_max).fold(0.0, f64::max);
    let judged: u64 = rounds.iter().map(|round| round.judged).sum();
    let artifacts: u64 = rounds.iter().map(|round| round.artifacts).sum();
    let delivered = Claim {
        name: "artifacts were delivered and match the golden vectors",
        held: near >= day.windows.len() && near == rounds.len() && judged > 0,
        evidence: format!(
            "{artifacts} artifacts in {} of {} windows, {judged} judged, largest L2 distance {worst:.6} (allowed {DISTANCE_MAX})",
            rounds.len(),
            day.windows.len()
        ),
    };
    let honest = |round: &&Round| {
        let passed = |verdict: &super::judgements::Verdict| {
            verdict.n_total > 0 && verdict.n_mismatch == 0 && !verdict.fraud_detected
        };
        round.validation.as_ref().is_some_and(passed)
    };
    let passed = rounds.iter().filter(honest).count();
    let caught = rounds
        .iter()
        .filter(|round| {
            round.corrupted_validation.as_ref().is_some_and(|verdict| verdict.n_mismatch > 0)
        })
        .count();
    let validated = Claim {
        name: "validation passed honest artifacts and found spoiled ones",
        held: passed >= day.windows.len() && caught >= day.windows.len(),
        evidence: format!(
            "{passed} windows passed, {caught} spoiled sets found out, of {}",
            day.windows.len()
        ),
    };
    let errors = &judgements.network_node.errors;
    let contract = Claim {
        name: "the Network Node met no breach of its contract",
        held: errors.is_empty(),
        evidence: errors
            .first()
            .map_or_else(|| "none".to_owned(), |first| format!("{}: {first}", errors.len())),
    };
    vec![delivered, validated, contract]
}

/// Energy booked at a price, for one kind of rig.
struct Booked {
    price: MicrosPerMwh,
    energy: WattMillis,
    span: Millis,
}

/// Dear hours must have less power than cheap ones: the miners' mean power in the dearest quarter of the time against the
/// cheapest quarter.
fn prices(site: &Site, entries: &[Entry]) -> Claim {
    let asic = |rig: &RigId| site.rig(rig).is_some_and(|rig| rig.profile.kind == RigKind::Asic);
    let mut booked: Vec<Booked> = parts(entries)
        .filter_map(|part| match part {
            Part::Energy { rig, energy, span, price: Some(price), .. } if asic(rig) => {
                Some(Booked { price: *price, energy: *energy, span: *span })
            }
            Part::Energy { .. }
            | Part::Income { .. }
            | Part::Switch { .. }
            | Part::Artifacts { .. }
            | Part::Breach { .. } => None,
        })
        .collect();
    booked.sort_by_key(|booked| booked.price);
    let quarter = booked.len() / 4;
    let cheap = mean_watts(booked.get(..quarter).unwrap_or_default());
    let dear = mean_watts(booked.get(booked.len() - quarter..).unwrap_or_default());
    Claim {
        name: "prices drove the miners",
        held: cheap > 0 && dear * 4 < cheap * 3,
        evidence: format!(
            "mean power of a miner {cheap} W in the cheapest quarter of the day, {dear} W in the dearest"
        ),
    }
}

fn mean_watts(booked: &[Booked]) -> u128 {
    let energy: u128 = booked.iter().map(|booked| booked.energy.0).sum();
    let span: u128 = booked.iter().map(|booked| u128::from(booked.span.0)).sum();
    energy.checked_div(span).unwrap_or(0)
}

/// No rig that promised may leave its model inside a window.
fn commitment(site: &Site, day: &Day, entries: &[Entry]) -> Claim {
    let mut broken = Vec::new();
    for window in &day.windows {
        let Some(promise) = site.commitments.iter().find(|commitment| commitment.id == window.id)
        else {
            continue;
        };
        let left = parts(entries).any(|part| match part {
            Part::Switch { rig, at, to, .. } => {
                let kept = to.as_ref().is_some_and(|to| to.model().is_some());
                *rig == promise.rig && window.from <= *at && *at < window.until && !kept
            }
            Part::Energy { .. }
            | Part::Income { .. }
            | Part::Artifacts { .. }
            | Part::Breach { .. } => false,
        });
        if left {
            broken.push(window.id.clone());
        }
    }
    Claim {
        name: "the GPU rig kept its commitments",
        held: broken.is_empty() && !day.windows.is_empty(),
        evidence: if broken.is_empty() {
            format!("{} windows kept", day.windows.len())
        } else {
            format!("left: {}", broken.join(", "))
        },
    }
}

fn parts(entries: &[Entry]) -> impl Iterator<Item = &Part> {
    entries.iter().flat_map(|entry| &entry.parts)
}
