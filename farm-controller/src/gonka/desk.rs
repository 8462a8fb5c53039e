//! What follows for the farm from what was read: eligibility, incomes, promises, alerts, and the picture for people.
//!
//! Facts older than [`AGE_MAX`] make no new promise and no income; promises that were made stay. The reckoning itself is
//! `farm_core::gonka`'s; here its questions are put together.

use std::collections::BTreeMap;

use farm_core::farm::Alert;
use farm_core::gonka::{
    Candidate, ChainView, EngineHealth, Generating, GonkaFacts, Height, Income, NodeSight,
    Registration, RigPart, Sight, Verdict, Watch, Weights, promises, verdict,
};
use farm_core::plan::Commitment;
use roadbed_protocol::{
    Millis, ProofActivity, ProofRate, RigId, RigProfile, RigState, UnixMillis, Workload,
};

use super::figures::{self, Part};
use super::promised::Promised;
use super::sketch;
use super::view::GonkaView;
use crate::config::{GonkaRig, GonkaSite, Site};
use crate::view::{FarmView, RigView};

/// Older facts about the chain are stale: its rules are read every ten minutes, its height every half.
pub const AGE_MAX: Millis = Millis::from_mins(20);
/// Shortest time between two looks for alerts: they count looks, and answers come in bursts.
const LOOK_PAUSE: Millis = Millis::from_secs(5);
/// Warm-up on top of a profile's start: the first forward pass compiles and tunes.
const WARM_UP: Millis = Millis::from_mins(5);

/// From the order until a rig of that profile answers.
#[must_use]
pub fn load_lead(profile: &RigProfile) -> Millis {
    Millis(Millis::from_secs(profile.start_seconds).0 + WARM_UP.0)
}

/// What is known of one rig of the site beside the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigSight {
    /// How fast it proves, at every length that was measured, the newest first.
    pub rates: Vec<ProofRate>,
    /// What its engine does.
    pub engine: EngineHealth,
    /// What it generates.
    pub generating: Generating,
    /// Deliveries refused with a 4xx since its journal began; `None` while nobody hears it.
    pub callbacks_refused: Option<u64>,
}

/// One MLNode with everything that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its config.
    pub rig: GonkaRig,
    /// What the Network Node knows of it.
    pub registration: Registration,
    /// Whether it can earn.
    pub verdict: Verdict,
    /// What the next epoch would bring it.
    pub income: Income,
    /// Other rigs that are the same node.
    pub shares_node_with: Vec<RigId>,
}

/// Remembers what was promised and told.
#[derive(Debug, Clone)]
pub struct Desk {
    site: GonkaSite,
    /// From the order until a rig answers, by rig.
    leads: BTreeMap<RigId, Millis>,
    promised: Promised,
    watch: Watch,
    looked_at: Option<UnixMillis>,
}

/// What one look gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// All promises of the site's MLNodes.
    pub commitments: Vec<Commitment>,
    /// What began and what is over.
    pub alerts: Vec<Alert>,
    /// For people.
    pub view: GonkaView,
}

impl Desk {
    /// A desk with the promises that were kept. `None` for a site without a place on Gonka.
    #[must_use]
    pub fn new(site: &Site, promised: Promised) -> Option<Self> {
        let gonka = site.gonka.clone()?;
        let lead = |rig: &crate::config::SiteRig| (rig.id.clone(), load_lead(&rig.profile));
        let leads = site.rigs.iter().map(lead).collect();
        Some(Self { site: gonka, leads, promised, watch: Watch::default(), looked_at: None })
    }

    /// What was promised, as a document for the store.
    #[must_use]
    pub fn document(&self) -> String {
        self.promised.document()
    }

    /// Puts everything together once.
    pub fn look(
        &mut self,
        facts: &GonkaFacts,
        rigs: &BTreeMap<RigId, RigSight>,
        now: UnixMillis,
    ) -> Outcome {
        let found: Vec<Found> =
            self.site.rigs.iter().map(|rig| self.find(rig, facts, rigs, now)).collect();
        self.promised.take(self.fresh_promises(facts, &found, now), now);
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_PAUSE);
        let alerts = if is_due {
            self.looked_at = Some(now);
            self.watch.look(&Sight::of(facts, now, self.node_sights(facts, rigs)))
        } else {
            Vec::new()
        };
        let mut view = sketch::view(facts, &found, &self.promised, now);
        view.alerts = self.watch.standing().map(|alert| alert.text).collect();
        Outcome { commitments: self.promised.commitments(), alerts, view }
    }

    fn find(
        &self,
        rig: &GonkaRig,
        facts: &GonkaFacts,
        rigs: &BTreeMap<RigId, RigSight>,
        now: UnixMillis,
    ) -> Found {
        let sight = rigs.get(&rig.rig);
        let rate = sight.and_then(|sight| figures::rate_of(&sight.rates, rig, facts)).cloned();
        let registration = registration(facts, rig);
        let weights = match rig.weights.as_deref() {
            None => Weights::Unknown,
            Some(GonkaRig::PUBLISHED) => Weights::AsPublished,
            Some(kind) => Weights::Requantised(kind.to_owned()),
        };
        let candidate = Candidate {
            rig: rig.rig.clone(),
            model: Some(rig.model.clone()),
            vram_bytes: rig.vram_gb.map(|gb| gb.saturating_mul(1_000_000_000)),
            weights,
            registration,
            proof_rate: rate.clone(),
            engine: sight.map_or(EngineHealth::Silent, |sight| sight.engine.clone()),
            context_max: None,
        };
        let chain = ChainView { facts, backed_of_proved: None, now, age_max: AGE_MAX };
        let epoch = facts.epoch.last().map_or(0, |(chain, _)| chain.stages.epoch_index + 1);
        Found {
            rig: rig.clone(),
            registration,
            verdict: verdict(&candidate, &chain),
            income: figures::income(
                &self.site,
                rig,
                self.part_of_node(rig, facts, rigs),
                rate.as_ref(),
                facts,
                epoch,
            ),
            shares_node_with: self
                .site
                .of_node(&rig.node_id)
                .filter(|other| other.rig != rig.rig)
                .map(|other| other.rig.clone())
                .collect(),
        }
    }

    /// A rig's part of its node, by the rates of all its rigs.
    fn part_of_node(
        &self,
        rig: &GonkaRig,
        facts: &GonkaFacts,
        rigs: &BTreeMap<RigId, RigSight>,
    ) -> Part {
        let rate = |rig: &GonkaRig| {
            let sight = rigs.get(&rig.rig);
            let rate = sight.and_then(|sight| figures::rate_of(&sight.rates, rig, facts));
            rate.filter(|rate| rate.model == rig.model)
                .map_or(0, |rate| rate.millinonces_per_minute)
        };
        let all: Vec<u64> = self.site.of_node(&rig.node_id).map(rate).collect();
        Part::among(rate(rig), &all)
    }

    /// The promises that follow from fresh facts; `None` when those are stale.
    fn fresh_promises(
        &self,
        facts: &GonkaFacts,
        found: &[Found],
        now: UnixMillis,
    ) -> Option<Vec<farm_core::gonka::Promise>> {
        let chain = facts.epoch.fresh(now, AGE_MAX)?;
        let params = facts.params.fresh(now, AGE_MAX)?;
        let parts: Vec<RigPart> = found
            .iter()
            .map(|one| {
                let working = figures::works_in(facts, &one.rig.node_id);
                RigPart {
                    rig: one.rig.rig.clone(),
                    model: one.rig.model.clone(),
                    load_lead: self.leads.get(&one.rig.rig).copied().unwrap_or(WARM_UP),
                    in_epoch: working == Some((chain.stages.epoch_index, true)),
                    joins_next: one.verdict.is_eligible(),
                    stake: one.income.sum.as_ref().ok().map(|sum| sum.stake()),
                }
            })
            .collect();
        Some(promises(chain, params.confirmation.as_ref(), facts.block.as_ref()?, now, &parts))
    }

    fn node_sights(&self, facts: &GonkaFacts, rigs: &BTreeMap<RigId, RigSight>) -> Vec<NodeSight> {
        let sight = |rig: &GonkaRig| {
            let seen = rigs.get(&rig.rig);
            NodeSight {
                rig: rig.rig.clone(),
                // Said once, of the rig that has the entry.
                is_known: facts
                    .nodes
                    .last()
                    .filter(|_| rig.behind.is_none())
                    .map(|_| facts.node(&rig.node_id).is_some()),
                generating: seen.map_or(Generating::Unknown, |seen| seen.generating),
                callbacks_refused: seen.and_then(|seen| seen.callbacks_refused),
            }
        };
        self.site.rigs.iter().map(sight).collect()
    }
}

/// What the Network Node knows of a rig: by its admin API, or, where that may not be asked, by who works on chain.
fn registration(facts: &GonkaFacts, rig: &GonkaRig) -> Registration {
    match facts.nodes.last() {
        Some(_) => match facts.node(&rig.node_id) {
            Some(node) => Registration::Present {
                is_enabled: node.enabled,
                has_model: node.models.contains(&rig.model),
            },
            None => Registration::Absent,
        },
        None => match figures::works_in(facts, &rig.node_id) {
            Some((_, true)) => Registration::Present { is_enabled: true, has_model: true },
            Some((_, false)) | None => Registration::Unknown,
        },
    }
}

/// What the farm knows of its rigs.
#[must_use]
pub fn sights(view: &FarmView) -> BTreeMap<RigId, RigSight> {
    let sight = |rig: &RigView| RigSight {
        rates: match rig.proof_rates.as_slice() {
            // An agent that tells the newest only.
            [] => rig.proof_rate.iter().cloned().collect(),
            rates => rates.to_vec(),
        },
        engine: engine(rig),
        generating: generating(rig),
        callbacks_refused: rig
            .reported_at
            .filter(|_| rig.online)
            .map(|_| rig.jobs.callbacks_refused),
    };
    view.rigs.iter().map(|rig| (rig.id.clone(), sight(rig))).collect()
}

/// What a rig's own report says of `pow/status`; that of a rig which is away may be over.
fn generating(rig: &RigView) -> Generating {
    let Some(proof) = rig.proof.as_ref().filter(|_| rig.online) else {
        return Generating::Unknown;
    };
    match (proof.activity, &proof.round) {
        (ProofActivity::Generating, Some(round)) => Generating::For(Height(round.block_height)),
        (ProofActivity::Generating, None) => Generating::Unknown,
        (ProofActivity::Absent | ProofActivity::Idle | ProofActivity::Validating, _) => {
            Generating::Nothing
        }
    }
}

fn engine(rig: &RigView) -> EngineHealth {
    let Some(state) = rig.state.filter(|_| rig.online) else { return EngineHealth::Silent };
    match state {
        RigState::Faulted | RigState::Tripped => {
            EngineHealth::Failing(format!("{state}: {}", rig.state_reason))
        }
        RigState::Running => match &rig.workload {
            Some(Workload::Serve { .. } | Workload::Prove { .. }) => EngineHealth::Answering,
            Some(Workload::Mine { .. } | Workload::Idle | Workload::Curtailed) | None => {
                EngineHealth::NotLoaded
            }
        },
        RigState::Booting
        | RigState::Idle
        | RigState::Starting
        | RigState::Draining
        | RigState::Stopping
        | RigState::Curtailed => EngineHealth::NotLoaded,
    }
}
