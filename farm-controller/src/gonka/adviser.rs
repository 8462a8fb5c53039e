//! The task around the PoC: goes through the check list before it, watches the rigs during it, accounts for the epoch after it.
//!
//! It looks on and speaks; it moves nothing. What it says goes through the farm machine's log and alerts, what it saw into
//! the store, so that `roadbed gonka post-mortem` can answer after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farm_core::farm::{Alert, FarmEvent};
use farm_core::gonka::{
    Calendar, ChainEpoch, Decimal, EpochStages, Estimate, FeederRoom, GonkaFacts, Grade, Height,
    PowStatus, Preflight, Span, StageWindow, preflight, preflight_due,
};
use futures_util::future::join_all;
use roadbed_protocol::{Cause, Millis, RigId, RigState, UnixMillis, Watts};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::epoch_record::{EpochRecord, Hindrance, RECORDS_MAX, RigRecord, lines};
use super::preflight::{Trial, measure, pow_status_of};
use crate::clock::FarmClock;
use crate::config::Site;
use crate::control::{Answer, Keeper, Record};
use crate::view::{FarmView, RigView};

/// Farm time between two looks.
const LOOK_EVERY: Millis = Millis::from_secs(5);
/// Wall time between two looks, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Blocks after the claim opened at which the account is told even though the chain has not told what was rewarded.
const PATIENCE_BLOCKS: i64 = 600;
/// Rates kept of a rig, to know what is usual.
const RATES_MAX: usize = 15;
/// Where they stand in the store.
const RATES_KEY: &str = "proof-rates";

/// Measured rates of a rig: when, and thousandths of a nonce per minute.
type Rates = BTreeMap<RigId, Vec<(UnixMillis, u64)>>;

/// The task.
pub struct Adviser {
    site: Arc<Site>,
    clock: FarmClock,
    views: watch::Receiver<FarmView>,
    facts: watch::Receiver<Arc<GonkaFacts>>,
    events: mpsc::Sender<FarmEvent>,
    keeper: Arc<dyn Keeper>,
    records: BTreeMap<u64, EpochRecord>,
    rates: Rates,
    /// The PoC the list was last gone through for, and when.
    checked: Option<(Height, UnixMillis)>,
    looked_at: Option<UnixMillis>,
}

impl Adviser {
    /// A task that knows what was kept.
    #[must_use]
    pub fn new(
        site: Arc<Site>,
        views: watch::Receiver<FarmView>,
        facts: watch::Receiver<Arc<GonkaFacts>>,
        events: mpsc::Sender<FarmEvent>,
        keeper: Arc<dyn Keeper>,
        kept: &[Answer],
    ) -> Self {
        Self {
            clock: site.clock,
            records: EpochRecord::among(kept),
            rates: rates_among(kept),
            site,
            views,
            facts,
            events,
            keeper,
            checked: None,
            looked_at: None,
        }
    }

    /// Runs until `cancel` fires.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let pause = self.clock.wall_span(LOOK_EVERY).clamp(PAUSE.0, PAUSE.1);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.look() => {}
            }
        }
    }

    async fn look(&mut self) {
        let now = self.clock.now();
        let facts = Arc::clone(&self.facts.borrow());
        let view = self.views.borrow().clone();
        let (Some((chain, _)), Some(moment)) = (facts.epoch.last(), facts.block) else { return };
        self.learn_rates(&view, now).await;
        let next = chain.next_stages.unwrap_or_else(|| chain.stages.following());
        let start = Estimate::of(&moment, next.poc_start);
        let last = self.checked.filter(|(height, _)| *height == next.poc_start).map(|(_, at)| at);
        if preflight_due(start, last, now).is_some_and(|due| due <= now) {
            self.checked = Some((next.poc_start, now));
            self.go_through_the_list(chain, &view, next.poc_start, now).await;
        }
        let stage =
            StageWindow { start: chain.stages.poc_start, end: chain.stages.poc_generation_end };
        self.watch_stage(&facts, &view, &chain.stages, Span::of(&moment, stage), now).await;
        self.account(&facts, chain, now).await;
        self.looked_at = Some(now);
    }

    async fn go_through_the_list(
        &mut self,
        chain: &ChainEpoch,
        view: &FarmView,
        poc_start: Height,
        now: UnixMillis,
    ) {
        let trials = trials(&self.site, view, &self.rates, chain, poc_start);
        for measured in join_all(trials.iter().map(|trial| measure(trial, now))).await {
            let list = preflight(&measured);
            let (rig, grade) = (list.rig.clone(), list.grade());
            let text = summary(&list);
            self.say(FarmEvent::Noted { rig: Some(rig.clone()), text: text.clone() }).await;
            let active = match grade {
                Grade::NotReady => true,
                Grade::Ready | Grade::Doubtful => false,
            };
            let key = "gonka-preflight".to_owned();
            self.say(FarmEvent::Noticed(Alert { key, rig: Some(rig), active, text })).await;
        }
    }

    /// Writes down what keeps rigs from proving while the stage lasts.
    async fn watch_stage(
        &mut self,
        facts: &GonkaFacts,
        view: &FarmView,
        stages: &EpochStages,
        stage: Span,
        now: UnixMillis,
    ) {
        // Deliveries go on for a moment after the end.
        let end = stage.until.latest() + Millis::from_mins(1);
        if now < stage.from.earliest() || now > end {
            return;
        }
        let epoch = stages.epoch_index;
        if !self.records.contains_key(&epoch) {
            self.records.insert(epoch, begun(&self.site, facts, view, stages, stage, &self.rates));
        }
        let mut asked = BTreeMap::new();
        for (rig, face, token) in faces(&self.site) {
            let is_up = view
                .rigs
                .iter()
                .any(|view| view.id == rig && hindrance(&self.site, view).is_none());
            if is_up && now < stage.until.at {
                asked.insert(rig, pow_status_of(&face, token.as_deref()).await);
            }
        }
        let since = self.looked_at.unwrap_or(now);
        let Some(record) = self.records.get_mut(&epoch) else { return };
        for rig in &view.rigs {
            let Some(seen) = record.rigs.get_mut(&rig.id) else { continue };
            seen.after = (rig.jobs.artifacts_computed, rig.jobs.artifacts_delivered);
            let (from, until) = (since.max(record.from), now.min(record.until));
            if from >= until {
                continue;
            }
            let idle = || {
                (asked.get(&rig.id) == Some(&PowStatus::Idle)).then(|| {
                    (Hindrance::NotStarted, "pow/status IDLE: nobody asked for nonces".to_owned())
                })
            };
            if let Some((why, line)) = hindrance(&self.site, rig).or_else(idle) {
                seen.hindered(why, from, until, line);
            }
        }
        let record = record.clone();
        self.keep(&record, now).await;
    }

    /// Adds what the chain tells of each epoch, and tells the account of one that is over.
    async fn account(&mut self, facts: &GonkaFacts, chain: &ChainEpoch, now: UnixMillis) {
        let current = chain.stages.epoch_index;
        let mut changed = Vec::new();
        for record in self.records.values_mut().filter(|record| !record.told) {
            let before = record.clone();
            let is_over = record.epoch_index < current;
            complete(record, facts, &self.site);
            let waited = chain.height.0.saturating_sub(chain.stages.claim_money.0);
            let is_known = record.rewarded.is_some() || waited > PATIENCE_BLOCKS;
            record.told = is_over && chain.height >= chain.stages.claim_money && is_known;
            if *record != before {
                changed.push(record.clone());
            }
        }
        for record in changed {
            if record.told {
                let text = match record.post_mortem() {
                    Some(account) => lines(&account).join("\n"),
                    None => format!(
                        "epoch {}: its weights were never told, so there is no account",
                        record.epoch_index
                    ),
                };
                for line in text.lines() {
                    self.say(FarmEvent::Noted { rig: None, text: line.to_owned() }).await;
                }
            }
            self.keep(&record, now).await;
        }
        while self.records.len() as u64 > RECORDS_MAX {
            self.records.pop_first();
        }
    }

    async fn learn_rates(&mut self, view: &FarmView, now: UnixMillis) {
        let mut is_news = false;
        for rig in &view.rigs {
            let Some(rate) = &rig.proof_rate else { continue };
            let known = self.rates.entry(rig.id.clone()).or_default();
            if known.last().is_none_or(|(at, _)| *at < rate.measured_at) {
                known.push((rate.measured_at, rate.millinonces_per_minute));
                let spare = known.len().saturating_sub(RATES_MAX);
                known.drain(..spare);
                is_news = true;
            }
        }
        if is_news && let Ok(body) = serde_json::to_string(&self.rates) {
            self.store(RATES_KEY.to_owned(), now, body).await;
        }
    }

    async fn keep(&self, record: &EpochRecord, now: UnixMillis) {
        if let Ok(body) = serde_json::to_string(record) {
            self.store(record.key(), now, body).await;
        }
    }

    async fn store(&self, key: String, at: UnixMillis, body: String) {
        if let Err(error) = self.keeper.keep(vec![Record::Gonka { key, at, body }]).await {
            tracing::warn!(%error, "what was seen of the epoch outlives no restart");
        }
    }

    async fn say(&self, event: FarmEvent) {
        // The loop's end is the end of this task too.
        let _ = self.events.send(event).await;
    }
}

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
fn usual(rates: &[(UnixMillis, u64)]) -> Option<u64> {
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

fn faces(site: &Site) -> impl Iterator<Item = (RigId, String, Option<String>)> + '_ {
    let provers = site.gonka.iter().flat_map(|gonka| &gonka.rigs);
    provers.filter_map(|prover| {
        let rig = site.rigs.iter().find(|rig| rig.id == prover.rig)?;
        let face = rig.ai.as_ref()?;
        let token = face.token.as_ref().map(|token| token.expose().to_owned());
        Some((rig.id.clone(), format!("http://{}", face.authority), token))
    })
}

/// The circuits above a feeder, itself first; a circle ends where it began.
fn feeders(site: &Site, view: &FarmView, from: &str) -> Vec<FeederRoom> {
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

/// What keeps a rig from proving, by its own report and its orders.
fn hindrance(site: &Site, rig: &RigView) -> Option<(Hindrance, String)> {
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
fn begun(
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
fn complete(record: &mut EpochRecord, facts: &GonkaFacts, site: &Site) {
    let epoch = record.epoch_index;
    let group = [&facts.group, &facts.former_group]
        .into_iter()
        .filter_map(|fact| fact.last().map(|(group, _)| group))
        .find(|group| group.epoch_index == epoch);
    if let Some(member) = group.and_then(|group| group.member(&facts.address)) {
        record.entered = Some(member.weight);
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
                let weight = Decimal::new(counted.0, counted.1)
                    .map_or(0, |coefficient| coefficient.of(i128::from(node.poc_weight)));
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

/// One line for the log: the grade, then every point that is not as it should be, with what to do.
#[must_use]
pub fn summary(list: &Preflight) -> String {
    let mut text = format!("pre-flight for the PoC at block {}: {}", list.poc_start, list.grade());
    for point in &list.points {
        if let Some(advice) = &point.advice {
            text.push_str(&format!("; {}: {} ({advice})", point.check, point.finding));
        }
    }
    text
}

/// The epoch under way and the next one as times; nothing before a block was seen.
#[must_use]
pub fn calendars(facts: &GonkaFacts) -> Option<(Calendar, Calendar)> {
    let (chain, _) = facts.epoch.last()?;
    let moment = facts.block?;
    let params = facts.params.last().and_then(|(params, _)| params.confirmation);
    let next = chain.next_stages.unwrap_or_else(|| chain.stages.following());
    let of = |stages, after| Calendar::new(stages, after, params.as_ref(), &moment);
    Some((of(&chain.stages, Some(&next)), of(&next, None)))
}
