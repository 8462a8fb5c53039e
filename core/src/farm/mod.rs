//! The machine of the farm: it keeps what is known of every rig, plans when something changed, and issues assignments.
//!
//! It trusts reports, not orders: power that a rig was told to give up counts until a report shows it is free, and power
//! a rig was told to take counts from the moment of the order. So a start never meets a shed that did not happen. A rig
//! that says nothing counts at nameplate and gets no longer lease.
//!
//! ```text
//! event -> (intake) knowledge -> (decide) plan, guard -> (dispatch) assignments
//!                         \-> (watch) alerts, breaches  \-> (book) ledger entries
//! ```

mod book;
mod decide;
mod dispatch;
mod event;
mod intake;
mod settings;
mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roadbed_protocol::{AgentId, FeederId, RigId, UnixMillis, Watts};

use crate::forecast::PriceSeries;
use crate::plan::{Availability, Commitment, CurtailOrder, Hold, Plan};

pub use event::{Alert, FarmEffect, FarmEvent, FarmMemory};
pub use settings::{FarmSettings, FarmTiming, LIMIT_PERCENT_USED, RigMember, usable};
pub use view::RigView;

/// The machine of the farm: events in, effects out.
#[derive(Debug, Clone)]
pub struct Farm {
    settings: FarmSettings,
    /// Latest time seen; time never goes back behind it.
    now: UnixMillis,
    plan: Option<Plan>,
    plan_id: u64,
    /// Something the plan was made of has changed.
    replan: bool,
    /// Availability the plan was made with.
    planned_with: Vec<Availability>,
    prices: PriceSeries,
    commitments: Vec<Commitment>,
    holds: Vec<Hold>,
    orders: Vec<CurtailOrder>,
    views: Vec<RigView>,
    /// For each rig the feeders above it, nearest first.
    chains: Vec<Vec<usize>>,
    journals: BTreeMap<(AgentId, String), intake::Journal>,
    /// Times of the latest starts, oldest first, at most as many as one stagger allows.
    starts: VecDeque<UnixMillis>,
    /// Conditions people were told of.
    alerts: BTreeSet<(String, Option<RigId>)>,
    /// Feeders above their limit: since when, and whether it was booked as a breach.
    overloads: BTreeMap<FeederId, (UnixMillis, bool)>,
}

/// A feeder and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeederLoad {
    /// The feeder.
    pub feeder: FeederId,
    /// Power counted: reports, targets not yet confirmed, nameplates of silent rigs.
    pub counted: Watts,
    /// Power reported by the rigs that report.
    pub reported: Watts,
    /// Continuous limit.
    pub limit: Watts,
    /// Limit at this moment, with orders and windows.
    pub limit_now: Watts,
}

impl Farm {
    /// A farm that has heard nothing yet.
    #[must_use]
    pub fn new(settings: FarmSettings, now: UnixMillis) -> Self {
        let views = settings.rigs.iter().map(|member| RigView::new(member.clone(), now)).collect();
        let chains = settings.rigs.iter().map(|member| chain(&settings, member)).collect();
        Self {
            settings,
            now,
            plan: None,
            plan_id: 0,
            replan: true,
            planned_with: Vec::new(),
            prices: PriceSeries::default(),
            commitments: Vec::new(),
            holds: Vec::new(),
            orders: Vec::new(),
            views,
            chains,
            journals: BTreeMap::new(),
            starts: VecDeque::new(),
            alerts: BTreeSet::new(),
            overloads: BTreeMap::new(),
        }
    }

    /// Takes one event and says what to do. Never fails; what concerns no rig of this farm is dropped.
    pub fn handle(&mut self, now: UnixMillis, event: FarmEvent) -> Vec<FarmEffect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.take(event, &mut effects);
        self.recount();
        self.watch(&mut effects);
        self.decide(&mut effects);
        self.dispatch(&mut effects);
        effects
    }

    /// When [`FarmEvent::Tick`] is next needed; other events may come at any time.
    #[must_use]
    pub fn wake_at(&self) -> Option<UnixMillis> {
        let slot_end =
            self.plan.as_ref().and_then(|plan| plan.slots.first()).map(|slot| slot.end());
        [slot_end, self.next_dispatch(), self.next_watch()].into_iter().flatten().min()
    }

    /// The site and its rules.
    #[must_use]
    pub fn settings(&self) -> &FarmSettings {
        &self.settings
    }

    /// The plan in force.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// The prices in force.
    #[must_use]
    pub fn prices(&self) -> &PriceSeries {
        &self.prices
    }

    /// Holds that stand.
    #[must_use]
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// Curtailment orders that stand.
    #[must_use]
    pub fn orders(&self) -> &[CurtailOrder] {
        &self.orders
    }

    /// Commitments there are.
    #[must_use]
    pub fn commitments(&self) -> &[Commitment] {
        &self.commitments
    }

    /// What is known of every rig, in the order of the settings.
    pub fn rigs(&self) -> impl Iterator<Item = &RigView> {
        self.views.iter()
    }

    /// What is known of one rig.
    #[must_use]
    pub fn rig(&self, id: &RigId) -> Option<&RigView> {
        self.views.iter().find(|view| view.member.spec.id == *id)
    }

    /// True while a person was told of this condition and not of its end.
    #[must_use]
    pub fn is_alerted(&self, key: &str, rig: Option<&RigId>) -> bool {
        self.alerts.contains(&(key.to_owned(), rig.cloned()))
    }

    /// Every feeder with its load at `now`.
    #[must_use]
    pub fn feeder_loads(&self, now: UnixMillis) -> Vec<FeederLoad> {
        let stale = self.settings.timing.report_stale;
        let mut loads: Vec<FeederLoad> = self
            .settings
            .feeders
            .iter()
            .enumerate()
            .map(|(index, feeder)| FeederLoad {
                feeder: feeder.id.clone(),
                counted: Watts::ZERO,
                reported: Watts::ZERO,
                limit: feeder.limit,
                limit_now: self.limit_at(index, now),
            })
            .collect();
        for (view, chain) in self.views.iter().zip(&self.chains) {
            for feeder in chain {
                loads[*feeder].counted += view.count(now, stale);
                if !view.is_silent(now, stale) {
                    loads[*feeder].reported += view.reported();
                }
            }
        }
        loads
    }

    fn recount(&mut self) {
        let (now, stale) = (self.now, self.settings.timing.report_stale);
        for view in &mut self.views {
            view.counted = view.count(now, stale);
        }
    }

    /// The tightest limit of a feeder at a moment, orders and windows included.
    fn limit_at(&self, feeder: usize, now: UnixMillis) -> Watts {
        let circuit = &self.settings.feeders[feeder];
        let orders = self
            .orders
            .iter()
            .filter(|order| order.feeder == circuit.id && order.from <= now && now < order.until)
            .map(|order| order.limit);
        let windows = self
            .settings
            .rules
            .curtail_windows
            .iter()
            .filter(|window| window.feeder == circuit.id)
            .filter(|window| window.overlaps(now, roadbed_protocol::Millis(1)))
            .map(|window| window.limit);
        orders.chain(windows).fold(circuit.limit, Watts::min)
    }
}

/// The feeders above a rig, as far as they are known; a circle ends the walk.
fn chain(settings: &FarmSettings, member: &RigMember) -> Vec<usize> {
    let (mut chain, mut at) = (Vec::new(), Some(member.spec.feeder.clone()));
    while let Some(id) = at {
        let index = settings.feeders.iter().position(|feeder| feeder.id == id);
        let Some(index) = index.filter(|index| !chain.contains(index)) else { return chain };
        chain.push(index);
        at = settings.feeders[index].parent.clone();
    }
    chain
}
