//! Events into knowledge: each report once and in order, each journal row once.

use roadbed_protocol::{
    Ack, AckStatus, AgentId, EventKind, RigEventReport, RigId, StateReport, TelemetryBatch,
    UnixMillis, Watts,
};

use super::view::power_of;
use super::{Alert, Farm, FarmEffect, FarmEvent, FarmMemory, RigView};
use crate::journal::{Cursor, Verdict};
use crate::plan::{Commitment, CurtailOrder, Hold};

/// How far one journal has been read.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    pub cursor: Cursor,
    /// Since when a row is missing.
    pub gap_since: Option<UnixMillis>,
}

impl Farm {
    pub(super) fn take(&mut self, event: FarmEvent, effects: &mut Vec<FarmEffect>) {
        match event {
            FarmEvent::Restored(memory) => self.restored(memory),
            FarmEvent::Prices(prices) => {
                self.replan |= prices != self.prices;
                self.prices = prices;
            }
            FarmEvent::Options { rig, options } => {
                if let Some(view) = self.view(&rig) {
                    let changed = view.member.spec.options != options;
                    view.member.spec.options = options;
                    self.replan |= changed;
                }
            }
            FarmEvent::Report(report) => self.reported(*report),
            FarmEvent::Telemetry(batch) => self.telemetry(&batch, effects),
            FarmEvent::Happened(event) => self.happened(event, effects),
            FarmEvent::Acked(ack) => self.acked(&ack, effects),
            FarmEvent::Presence { agent, online } => self.presence(&agent, online, effects),
            FarmEvent::Hold { rig, workload, operator } => {
                self.holds.retain(|hold| hold.rig != rig);
                self.log(Some(&rig), format!("held at {workload} by {operator}"), effects);
                self.holds.push(Hold { rig, workload, operator });
                self.replan = true;
            }
            FarmEvent::Release { rig } => {
                self.holds.retain(|hold| hold.rig != rig);
                self.log(Some(&rig), "hold released".into(), effects);
                self.replan = true;
            }
            FarmEvent::CurtailOrder(order) => self.ordered(order, effects),
            FarmEvent::CurtailLifted { id } => {
                self.orders.retain(|order| order.id != id);
                self.log(None, format!("order {id} lifted"), effects);
                self.replan = true;
            }
            FarmEvent::Commitments(commitments) => {
                self.replan |= commitments != self.commitments;
                self.commitments = commitments;
            }
            FarmEvent::Noticed(Alert { key, rig, active, text }) => {
                self.alert(&key, rig.as_ref(), active, || text, effects);
            }
            FarmEvent::Noted { rig, text } => self.log(rig.as_ref(), text, effects),
            FarmEvent::Tick => {}
        }
    }

    fn restored(&mut self, memory: FarmMemory) {
        let now = self.now;
        for assignment in memory.assignments {
            let Some(view) = self.view(&assignment.rig) else { continue };
            view.generation = view.generation.max(assignment.generation);
            // What was issued before this one, and whether it was overtaken, nobody remembers.
            view.unconfirmed = view.member.spec.nameplate;
            view.assigned_at = now;
            view.assigned = Some(assignment);
        }
        self.plan_id = self.plan_id.max(memory.plan_id);
        for (agent, journal, row) in memory.journals {
            let journal = self.journals.entry((agent, journal)).or_default();
            journal.cursor = Cursor::at(row.max(journal.cursor.contiguous()));
        }
        self.holds = memory
            .holds
            .into_iter()
            .map(|(rig, workload, operator)| Hold { rig, workload, operator })
            .collect();
        self.orders = memory.orders;
        self.replan = true;
    }

    fn ordered(&mut self, mut order: CurtailOrder, effects: &mut Vec<FarmEffect>) {
        order.breaks_commitments = self.settings.rules.curtailment_breaks_poc;
        let CurtailOrder { id, feeder, limit, from, until, .. } = &order;
        let text = format!("order {id}: {limit} under {feeder} from {from} to {until} UTC");
        self.log(None, text, effects);
        if order.breaks_commitments {
            self.tell_risk(&order, effects);
        }
        let now = self.now;
        self.orders.retain(|other| other.id != order.id && other.until > now);
        self.orders.push(order);
        self.replan = true;
    }

    /// Promises that an order may break, with their cost, before it does: what they forfeit and what they would earn.
    fn tell_risk(&self, order: &CurtailOrder, effects: &mut Vec<FarmEffect>) {
        let feeder = self.settings.feeders.iter().position(|feeder| feeder.id == order.feeder);
        for (view, chain) in self.views.iter().zip(&self.chains) {
            if !feeder.is_some_and(|feeder| chain.contains(&feeder)) {
                continue;
            }
            let spec = &view.member.spec;
            let overlaps = |promise: &&Commitment| {
                promise.rig == spec.id
                    && promise.from - promise.load_lead < order.until
                    && order.from < promise.until
            };
            for promise in self.commitments.iter().filter(overlaps) {
                let option = spec.options.iter().find(|it| it.workload == promise.workload);
                let rate = option.and_then(|it| it.income.iter().max()).copied();
                let span = promise.until.since(promise.from);
                let earns = promise.income + rate.unwrap_or_default().over(span);
                let text = format!(
                    "order {} may break {}, which would cost {} in income and penalty",
                    order.id,
                    promise.id,
                    earns + promise.penalty
                );
                self.log(Some(&spec.id), text, effects);
            }
        }
    }

    /// A report replaces what was known, unless something newer is known.
    fn reported(&mut self, report: StateReport) {
        let now = self.now;
        let Some(view) = self.view(&report.rig) else { return };
        let is_news = view.report.as_ref().is_none_or(|(_, known)| {
            if known.boot == report.boot { report.seq > known.seq } else { report.at >= known.at }
        });
        if !is_news {
            return;
        }
        // Its clock may be ahead, but nothing is heard from the future.
        let at = view.heard_at().unwrap_or(report.at).max(report.at).min(now);
        view.report = Some((at, report));
        view.confirm();
        let learned = view.learn();
        self.replan |= learned && !self.overloads.is_empty();
    }

    fn telemetry(&mut self, batch: &TelemetryBatch, effects: &mut Vec<FarmEffect>) {
        if self.row_is_news(&batch.agent, &batch.journal, batch.seq, effects) {
            effects.push(FarmEffect::Book(self.booked_samples(batch)));
        }
        self.row_stored(&batch.agent, &batch.journal, effects);
        let now = self.now;
        let Some(view) = self.view(&batch.rig) else { return };
        let Some(sample) = batch.samples.last() else { return };
        // A sample newer than the report is as good a sign of life, and a better reading.
        if let Some((at, report)) = &mut view.report
            && sample.at > *at
        {
            *at = sample.at.min(now);
            report.power = Some(sample.power);
            report.hashrate = sample.hashrate;
            report.temperature = sample.temperature;
            report.jobs = sample.jobs;
            report.state = sample.state;
            report.workload = sample.workload.clone();
            let learned = view.learn();
            self.replan |= learned && !self.overloads.is_empty();
        }
    }

    fn happened(&mut self, event: RigEventReport, effects: &mut Vec<FarmEffect>) {
        if self.row_is_news(&event.agent, &event.journal, event.seq, effects) {
            effects.push(FarmEffect::Book(super::book::booked_event(&event)));
            if let Some(text) = told(&event) {
                effects.push(FarmEffect::Log { at: event.at, rig: Some(event.rig.clone()), text });
            }
        }
        self.row_stored(&event.agent, &event.journal, effects);
    }

    fn row_is_news(
        &mut self,
        agent: &AgentId,
        journal: &str,
        seq: u64,
        effects: &mut Vec<FarmEffect>,
    ) -> bool {
        let now = self.now;
        let known = self.journals.entry((agent.clone(), journal.to_owned())).or_default();
        let verdict = known.cursor.take(seq);
        known.gap_since = known.cursor.gap().map(|_| known.gap_since.unwrap_or(now));
        match verdict {
            Verdict::Take => true,
            Verdict::Duplicate => false,
            Verdict::TooFar => {
                let text = format!("{agent}: row {seq} is too far ahead of a gap; dropped for now");
                self.log(None, text, effects);
                false
            }
        }
    }

    fn row_stored(&self, agent: &AgentId, journal: &str, effects: &mut Vec<FarmEffect>) {
        let known = self.journals.get(&(agent.clone(), journal.to_owned()));
        let seq = known.map_or(0, |known| known.cursor.contiguous());
        if seq > 0 {
            let (agent, journal) = (agent.clone(), journal.to_owned());
            effects.push(FarmEffect::JournalStored { agent, journal, seq });
        }
    }

    fn acked(&mut self, ack: &Ack, effects: &mut Vec<FarmEffect>) {
        match ack.status {
            AckStatus::Accepted | AckStatus::Done => {}
            AckStatus::Refused => {
                let text = format!("refused an order: {}", ack.reason);
                self.log(Some(&ack.rig), text, effects);
                if self.view(&ack.rig).is_some() {
                    effects.push(FarmEffect::Sync { rig: ack.rig.clone() });
                }
            }
        }
    }

    fn presence(&mut self, agent: &AgentId, online: bool, effects: &mut Vec<FarmEffect>) {
        for view in self.views.iter_mut().filter(|view| view.member.agent == *agent) {
            if online && !view.online {
                effects.push(FarmEffect::Sync { rig: view.member.spec.id.clone() });
            }
            view.online = online;
        }
        // What it holds back it could not send; its rows get their full time again.
        let now = self.now;
        for ((owner, _), journal) in &mut self.journals {
            if owner == agent {
                journal.gap_since = journal.gap_since.map(|_| now);
            }
        }
        let text = format!("agent {agent} {}", if online { "connected" } else { "lost" });
        self.log(None, text, effects);
    }

    pub(super) fn view(&mut self, rig: &RigId) -> Option<&mut RigView> {
        self.views.iter_mut().find(|view| view.member.spec.id == *rig)
    }

    pub(super) fn log(&self, rig: Option<&RigId>, text: String, effects: &mut Vec<FarmEffect>) {
        effects.push(FarmEffect::Log { at: self.now, rig: rig.cloned(), text });
    }

    /// Tells of a condition when it begins and when it ends.
    pub(super) fn alert(
        &mut self,
        key: &str,
        rig: Option<&RigId>,
        active: bool,
        text: impl FnOnce() -> String,
        effects: &mut Vec<FarmEffect>,
    ) {
        let id = (key.to_owned(), rig.cloned());
        let changed = if active { self.alerts.insert(id) } else { self.alerts.remove(&id) };
        if changed {
            let (key, rig) = (key.to_owned(), rig.cloned());
            effects.push(FarmEffect::Alert(Alert { key, rig, active, text: text() }));
        }
    }
}

impl RigView {
    /// Draws the conclusions of a new report for what was issued.
    fn confirm(&mut self) {
        let Some((_, report)) = &self.report else { return };
        // Another controller, or a lost store: what the rig obeys outranks what we remember.
        let is_foreign = report.generation > self.generation
            || self.assigned.as_ref().is_some_and(|assigned| {
                report.generation == assigned.generation
                    && report.target.as_ref().is_some_and(|target| {
                        *target != assigned.workload && *target != assigned.fallback
                    })
            });
        if is_foreign {
            self.generation = self.generation.max(report.generation);
            self.assigned = None;
            let target = report.target.as_ref();
            self.unconfirmed =
                target.map_or(Watts::ZERO, |target| power_of(&self.member.spec, target));
            return;
        }
        if let Some(assigned) = &self.assigned
            && assigned.generation == report.generation
        {
            self.unconfirmed = power_of(&self.member.spec, &assigned.workload);
        }
    }
}

/// What a journalled event says to people, unless the states already say it.
fn told(event: &RigEventReport) -> Option<String> {
    let reason = &event.reason;
    match &event.kind {
        EventKind::StateChanged { .. } | EventKind::ArtifactsDelivered { .. } => None,
        EventKind::Switched { from, to } => {
            let word = |side: &Option<roadbed_protocol::Workload>| {
                side.as_ref().map_or("rest".to_owned(), ToString::to_string)
            };
            // The reason was told with the order.
            Some(format!("{} -> {}: done", word(from), word(to)))
        }
        EventKind::Tripped => Some(format!("TRIPPED: {reason}")),
        EventKind::Fault => Some(format!("fault: {reason}")),
        EventKind::Refused => Some(format!("refused: {reason}")),
        EventKind::LeaseLapsed => Some(format!("lease lapsed: {reason}")),
        EventKind::CallbackRefused { .. } => Some(format!("callback refused: {reason}")),
        EventKind::Unconfirmed => Some(format!("not confirmed: {reason}")),
    }
}
