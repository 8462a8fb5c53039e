//! The task around the PoC: goes through the check list before it, watches the rigs during it, accounts for the epoch after it.
//!
//! It looks on and speaks; it moves nothing. What it says goes through the farm machine's log and alerts, what it saw into
//! the store, so that `roadbed gonka post-mortem` can answer after a restart.

mod observed;
mod trials;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farm_core::farm::{Alert, FarmEvent};
use farm_core::gonka::{
    Calendar, ChainEpoch, EpochStages, Estimate, GonkaFacts, Grade, Height, PowStatus, Preflight,
    Span, StageWindow, preflight, preflight_due,
};
use futures_util::future::join_all;
use roadbed_protocol::{Millis, RigId, UnixMillis};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::epoch_record::{EpochRecord, Hindrance, LostRecord, RECORDS_MAX, lines};
use super::preflight::{measure, pow_status_of};
use crate::clock::FarmClock;
use crate::config::Site;
use crate::control::{Answer, Keeper, Record};
use crate::view::FarmView;
use observed::{begun, complete, hindrance};
use trials::faces;
pub use trials::{rates_among, trials};

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
            seen.lost_after = LostRecord::of(&rig.jobs);
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
