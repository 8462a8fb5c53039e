//! What is known of each rig before the check list is gone through: its face, its rates, the circuits above it.

use std::collections::BTreeMap;

use farm_core::gonka::{ChainEpoch, FeederRoom, Height};
use roadbed_protocol::{RigId, UnixMillis, Watts};

use super::{RATES_KEY, Rates};
use crate::config::Site;
use crate::control::Answer;
use crate::gonka::preflight::Trial;
use crate::view::FarmView;

/// What is known of each rig of the site that is an MLNode, for its trial.
#[must_use]
pub fn trials(
    site: &Site,
    view: &FarmView,
    rates: &Rates,
    chain: &ChainEpoch,
    poc_start: Height,
) -> Vec<Trial> {
    let Some(gonka) = &site.gonka else { return Vec::new() };
    let faces: BTreeMap<RigId, (String, Option<String>)> =
        faces(site).map(|(rig, face, token)| (rig, (face, token))).collect();
    let one = |rig: &crate::config::GonkaRig| {
        let seen = view.rigs.iter().find(|view| view.id == rig.rig);
        let of_site = site.rigs.iter().find(|one| one.id == rig.rig);
        let proving = of_site.and_then(|one| one.profile.ai_watts).unwrap_or_default();
        let drawn = seen.and_then(|seen| seen.power).map_or(Watts::ZERO, |power| power.watts);
        let (face, token) = faces.get(&rig.rig).cloned().unzip();
        Trial {
            rig: rig.rig.clone(),
            model: rig.model.clone(),
            face,
            token: token.flatten(),
            callback: gonka.callback_url.clone(),
            network_node: gonka.nodes.first().cloned().unwrap_or_default(),
            authorities: gonka.authorities.clone(),
            rate: seen.and_then(|seen| seen.proof_rate.clone()),
            usual_rate: rates.get(&rig.rig).and_then(|rates| usual(rates)),
            draws_more: proving.saturating_sub(drawn),
            feeders: of_site
                .map(|one| feeders(site, view, one.feeder.as_str()))
                .unwrap_or_default(),
            is_confirming: chain.confirmation.is_some(),
            poc_start,
        }
    };
    gonka.rigs.iter().map(one).collect()
}

/// The median of the measurements before the newest; `None` when there is none before it.
pub(super) fn usual(rates: &[(UnixMillis, u64)]) -> Option<u64> {
    let (_, before) = rates.split_last()?;
    let mut before: Vec<u64> = before.iter().map(|(_, rate)| *rate).collect();
    before.sort_unstable();
    before.get(before.len() / 2).copied()
}

/// Rates among what was kept.
#[must_use]
pub fn rates_among(kept: &[Answer]) -> Rates {
    let found = kept.iter().find(|answer| answer.key == RATES_KEY);
    found.and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default()
}

pub(super) fn faces(site: &Site) -> impl Iterator<Item = (RigId, String, Option<String>)> + '_ {
    let provers = site.gonka.iter().flat_map(|gonka| &gonka.rigs);
    provers.filter_map(|prover| {
        let rig = site.rigs.iter().find(|rig| rig.id == prover.rig)?;
        let face = rig.ai.as_ref()?;
        let token = face.token.as_ref().map(|token| token.expose().to_owned());
        Some((rig.id.clone(), format!("http://{}", face.authority), token))
    })
}

/// The circuits above a feeder, itself first; a circle ends where it began.
pub(super) fn feeders(site: &Site, view: &FarmView, from: &str) -> Vec<FeederRoom> {
    let mut rooms: Vec<FeederRoom> = Vec::new();
    let mut at = site.feeders.iter().find(|feeder| feeder.id.as_str() == from);
    while let Some(feeder) = at.filter(|feeder| rooms.iter().all(|room| room.feeder != feeder.id)) {
        if let Some(seen) = view.feeders.iter().find(|seen| seen.id == feeder.id.as_str()) {
            rooms.push(FeederRoom {
                feeder: feeder.id.clone(),
                load: seen.power,
                limit: seen.limit,
            });
        }
        at = site.feeders.iter().find(|above| Some(&above.id) == feeder.parent.as_ref());
    }
    rooms
}
