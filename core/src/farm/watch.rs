//! Watching: what a person must be told, and what is over its limit.

use roadbed_protocol::{Millis, RigState, UnixMillis};

use super::{Farm, FarmEffect};
use crate::ledger::{Entry, Part};

/// The journal of what the controller itself saw; numbered by time.
pub const CONTROLLER_JOURNAL: &str = "controller";

impl Farm {
    pub(super) fn watch(&mut self, effects: &mut Vec<FarmEffect>) {
        self.watch_rigs(effects);
        self.watch_feeders(effects);
        self.watch_journals(effects);
    }

    /// When something unheard of becomes something to tell.
    pub(super) fn next_watch(&self) -> Option<UnixMillis> {
        let timing = &self.settings.timing;
        let silent = self
            .views
            .iter()
            .filter_map(|view| view.heard_at())
            .map(|at| at + timing.report_stale + Millis(1));
        let gaps = self.journals.values().filter_map(|journal| journal.gap_since);
        let breaches = self.overloads.values().filter(|(_, booked)| !booked);
        silent
            .chain(gaps.map(|since| since + timing.journal_gap))
            .chain(
                breaches.map(|(since, _)| *since + self.settings.rules.overload_grace + Millis(1)),
            )
            .filter(|at| *at > self.now)
            .min()
    }

    fn watch_rigs(&mut self, effects: &mut Vec<FarmEffect>) {
        let timing = self.settings.timing;
        for index in 0..self.views.len() {
            let view = &self.views[index];
            let id = view.member.spec.id.clone();
            // A rig never heard of is not yet missed.
            let heard = view.heard_at();
            let silent = heard.is_some() && view.is_silent(self.now, timing.report_stale);
            let state = view
                .report
                .as_ref()
                .map(|(_, report)| (report.state, report.attempts, report.reason.clone()));
            let (state, attempts, reason) = state.unwrap_or((RigState::Booting, 0, String::new()));
            let faulted = state == RigState::Faulted && attempts >= timing.fault_alert_attempts;
            let tripped = state == RigState::Tripped;
            let power = view.member.spec.nameplate;
            let since = heard.unwrap_or_default();
            let text = || format!("silent since {since}, counted at {power}");
            self.alert("silent", Some(&id), silent, text, effects);
            let text = || format!("{attempts} faults in a row: {reason}");
            self.alert("faulted", Some(&id), faulted, text, effects);
            let text = || format!("tripped: {reason}");
            self.alert("tripped", Some(&id), tripped, text, effects);
        }
    }

    fn watch_feeders(&mut self, effects: &mut Vec<FarmEffect>) {
        let grace = self.settings.rules.overload_grace;
        for load in self.feeder_loads(self.now) {
            let key = format!("overload:{}", load.feeder);
            let over = load.reported > load.limit_now;
            if !over {
                self.overloads.remove(&load.feeder);
                let text = || format!("{} is below its limit again", load.feeder);
                self.alert(&key, None, false, text, effects);
                continue;
            }
            let is_new = !self.overloads.contains_key(&load.feeder);
            // What was planned takes more than it should: plan again with what was measured.
            self.replan |= is_new;
            let (since, booked) =
                self.overloads.entry(load.feeder.clone()).or_insert((self.now, false));
            if *booked || self.now.since(*since) <= grace {
                continue;
            }
            *booked = true;
            let seq = u64::try_from(self.now.0).unwrap_or_default();
            effects.push(FarmEffect::Book(Entry {
                agent: None,
                journal: format!("{CONTROLLER_JOURNAL}:{}", load.feeder),
                seq,
                parts: vec![Part::Breach {
                    feeder: load.feeder.clone(),
                    at: self.now,
                    power: load.reported,
                    limit: load.limit_now,
                }],
            }));
            let text =
                || format!("{} carries {} of {}", load.feeder, load.reported, load.limit_now);
            self.alert(&key, None, true, text, effects);
        }
    }

    /// Gives up rows that do not come, so that those behind them can be acknowledged.
    fn watch_journals(&mut self, effects: &mut Vec<FarmEffect>) {
        let (now, patience) = (self.now, self.settings.timing.journal_gap);
        let mut lost = Vec::new();
        let views = &self.views;
        for ((agent, journal), known) in &mut self.journals {
            let online = views.iter().any(|view| view.online && view.member.agent == *agent);
            let over = known.gap_since.is_some_and(|since| now.since(since) >= patience);
            if !(over && online) {
                continue;
            }
            let rows = known.cursor.skip_gap();
            known.gap_since = known.cursor.gap().map(|_| now);
            lost.push((agent.clone(), journal.clone(), rows, known.cursor.contiguous()));
        }
        for (agent, journal, rows, seq) in lost {
            self.log(None, format!("{agent}: {rows} journal rows never came; given up"), effects);
            effects.push(FarmEffect::JournalStored { agent, journal, seq });
        }
    }
}
