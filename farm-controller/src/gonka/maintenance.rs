//! What the farm knows of each MLNode, put as the question that `farm_core::gonka::maintenance` answers: may it be taken away?
//!
//! Pure. Whether a rig has weight comes from the chain's list of hosts, whether it is leaving from the admin API.

use farm_core::gonka::{
    Absent, Calendar, GonkaFacts, Maintenance, Span, Stake, Standing, maintenance,
};
use farm_core::plan::IncomeSource;
use roadbed_protocol::{Millis, UnixMillis};

use super::adviser::calendars;
use super::desk::load_lead;
use super::figures::works_in;
use crate::config::{GonkaRig, Site};
use crate::view::FarmView;

/// One MLNode with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigMaintenance {
    /// Its config.
    pub rig: GonkaRig,
    /// How it stands.
    pub standing: Standing,
    /// True when its cost rests on an assumption.
    pub assumed: bool,
    /// When it may go.
    pub answer: Maintenance,
}

/// The answers for all MLNodes, and what they follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Stretches before a PoC in which no confirmation PoC is raised, with the epoch they end.
    pub quiet: Vec<(u64, Span)>,
    /// The MLNodes, in the order of the site file.
    pub rigs: Vec<RigMaintenance>,
}

/// When each MLNode of the site may be away for `needs` (`None`: for good). `None` while no pace of blocks was measured,
/// because then no height has a time.
#[must_use]
pub fn outlook(
    site: &Site,
    view: &FarmView,
    facts: &GonkaFacts,
    needs: Option<Millis>,
    now: UnixMillis,
) -> Option<Outlook> {
    let (current, next) = calendars(facts)?;
    let is_confirming = facts.epoch.last().is_some_and(|(chain, _)| chain.confirmation.is_some());
    let quiet = [&current, &next].into_iter();
    let quiet = quiet.filter_map(|epoch| epoch.quiet.map(|span| (epoch.epoch_index, span)));
    let one = |rig: &GonkaRig| {
        let of_site = site.rig(&rig.rig);
        let stake = stake(view, rig, &current);
        let absent = Absent {
            needs,
            load_lead: of_site.map_or(Millis::ZERO, |rig| load_lead(&rig.profile)),
            standing: standing(facts, &rig.node_id),
            stake,
            is_confirming,
        };
        RigMaintenance {
            rig: rig.clone(),
            standing: absent.standing,
            assumed: stake.is_some_and(|stake| stake.source == IncomeSource::Assumption),
            answer: maintenance(&absent, &current, &next, now),
        }
    };
    let rigs = site.gonka.iter().flat_map(|gonka| &gonka.rigs).map(one).collect();
    Some(Outlook { quiet: quiet.collect(), rigs })
}

/// How an MLNode stands, by the chain and, where it may be asked, the admin API.
fn standing(facts: &GonkaFacts, node_id: &str) -> Standing {
    let Some((_, works)) = works_in(facts, node_id) else { return Standing::Unknown };
    if !works {
        return Standing::Free;
    }
    let (hosts, own) = (facts.participants.last(), &facts.address);
    let nodes = hosts.into_iter().flat_map(|(hosts, _)| &hosts.hosts);
    let is_preserved = nodes
        .filter(|host| host.address == *own)
        .flat_map(|host| &host.nodes)
        .any(|node| node.node_id == node_id && node.timeslots[1]);
    match facts.node(node_id) {
        Some(node) if !node.enabled => Standing::Leaving { is_preserved },
        Some(_) | None => Standing::Active { is_preserved },
    }
}

/// What the epoch under way is worth to a rig, by the promise that a controller made for it.
fn stake(view: &FarmView, rig: &GonkaRig, current: &Calendar) -> Option<Stake> {
    let seen = view.rigs.iter().find(|seen| seen.id == rig.rig)?;
    let id = farm_core::gonka::promise_id(current.epoch_index);
    let promise = seen.promises.iter().find(|promise| promise.id == id)?;
    let source =
        if promise.assumed { IncomeSource::Assumption } else { IncomeSource::Data { at: view.at } };
    Some(Stake { income: promise.income, penalty: promise.penalty, source })
}
