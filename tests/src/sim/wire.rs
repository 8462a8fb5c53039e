//! The controller's side: events in over the network, effects out over it, and the store between.

use farm_core::farm::{Farm, FarmEffect, FarmEvent};
use farm_core::plan::{Note, Plan};
use farm_core::rig::RigEvent;
use roadbed_protocol::Millis;

use super::world::{Happening, World};

impl World {
    /// Sends something from an agent to the controller.
    pub(super) fn send_to_farm(&mut self, agent: usize, event: FarmEvent) {
        let (now, weather) = (self.schedule.now(), self.weather());
        for delay in self.networks[agent].carry(now, weather) {
            self.schedule.after(delay, Happening::ToFarm(event.clone()));
        }
    }

    /// Sends something from the controller to a rig's agent.
    fn send_to_agent(&mut self, agent: usize, happening: Happening) {
        let (now, weather) = (self.schedule.now(), self.weather());
        for delay in self.networks[agent].carry(now, weather) {
            self.schedule.after(delay, happening.clone());
        }
    }

    /// Gives an event to the farm machine and carries out what it orders.
    pub(super) fn tell_farm(&mut self, event: FarmEvent) {
        if self.is_farm_down {
            return;
        }
        let effects = self.farm.handle(self.schedule.now(), event);
        for effect in effects {
            self.obey(effect);
        }
        let wake = self.farm.wake_at();
        if let Some(at) = wake.filter(|at| self.farm_wake.is_none_or(|known| *at < known)) {
            self.farm_wake = Some(at);
            self.schedule.at(at.max(self.schedule.now() + Millis(1)), Happening::FarmWake);
        }
    }

    fn obey(&mut self, effect: FarmEffect) {
        match effect {
            FarmEffect::CommitPlan { plan, sheds, notes } => {
                self.note_plan(&plan, &notes);
                self.summary.plans += 1;
                self.summary.sheds += sheds.len() as u64;
                self.store.plan_id = plan.id;
            }
            FarmEffect::Assign(assignment) => {
                let known = self.store.assignments.get(&assignment.rig);
                if known.is_none_or(|known| known.generation < assignment.generation) {
                    self.summary.generations += 1;
                }
                if self.options.trace {
                    let now = self.schedule.now().0;
                    self.trace.push(format!("{now} ASSIGN {assignment:?}"));
                }
                self.store.assignments.insert(assignment.rig.clone(), assignment.clone());
                let rig = self.rigs.iter().position(|rig| *rig.machine.id() == assignment.rig);
                if let Some(rig) = rig {
                    let event = RigEvent::Assigned(assignment);
                    self.send_to_agent(self.rigs[rig].agent, Happening::ToRig(rig, event));
                }
            }
            FarmEffect::Sync { rig } => {
                let rig = self.rigs.iter().position(|known| *known.machine.id() == rig);
                if let Some(rig) = rig {
                    self.send_to_agent(self.rigs[rig].agent, Happening::Sync(rig));
                }
            }
            FarmEffect::JournalStored { agent, journal, seq } => {
                self.store.journals.insert((agent.clone(), journal), seq);
                let known = self.agents.iter().position(|known| known.id == agent);
                if let Some(known) = known {
                    self.send_to_agent(known, Happening::Stored(known, seq));
                }
            }
            FarmEffect::Book(entry) => {
                self.ledger.apply(&entry);
            }
            FarmEffect::Alert(alert) => {
                if self.options.trace {
                    self.trace.push(format!("{} ALERT {alert:?}", self.schedule.now().0));
                }
            }
            FarmEffect::Log { rig, text, .. } => {
                if self.options.trace {
                    self.trace.push(format!("{} LOG {rig:?} {text}", self.schedule.now().0));
                }
            }
        }
    }

    fn note_plan(&mut self, plan: &Plan, notes: &[Note]) {
        if !self.options.trace {
            return;
        }
        let now = self.schedule.now().0;
        let rows: Vec<String> = plan
            .rows
            .iter()
            .filter_map(|row| row.choices.first().map(|first| (row, first)))
            .map(|(row, first)| format!("{} {} {}", row.rig, first.workload, first.power))
            .collect();
        let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
        self.trace.push(format!("{now} PLAN {}: {rows:?} {notes:?}", plan.id));
    }

    /// The controller starts again with what its store holds.
    pub(super) fn farm_up(&mut self) {
        let memory = self.memory();
        let now = self.schedule.now();
        self.farm = Farm::new(self.belief.clone(), now);
        self.farm_wake = None;
        self.is_farm_down = false;
        self.tell_farm(FarmEvent::Restored(memory));
        self.tell_farm(FarmEvent::Commitments(self.commitments.clone()));
        self.schedule.after(Millis::from_secs(1), Happening::Feed);
        for agent in 0..self.agents.len() {
            let id = self.agents[agent].id.clone();
            if !self.agents[agent].is_down && !self.networks[agent].is_cut(now) {
                self.tell_farm(FarmEvent::Presence { agent: id, online: true });
            }
        }
    }
}
