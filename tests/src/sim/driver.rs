//! The driver of a rig: carries out what the rig machine orders, on metal that takes its time.

use farm_core::rig::{RigEffect, RigEvent};
use roadbed_protocol::{Ack, AckStatus, Millis, RigKind, Workload};

use super::agent::Row;
use super::checkers::Broken;
use super::world::{Happening, World};
use farm_core::farm::FarmEvent;

impl World {
    /// Gives an event to a rig machine and carries out what it orders.
    pub(super) fn tell_rig(&mut self, index: usize, event: RigEvent) {
        if self.agents[self.rigs[index].agent].is_down {
            return;
        }
        let now = self.schedule.now();
        let effects = self.rigs[index].machine.handle(now, event);
        if let Err(broken) = self.checkers.ordered(&self.rigs[index], &effects) {
            self.broken = Some(broken);
        }
        for effect in effects {
            self.carry_out(index, effect);
        }
        let wake = self.rigs[index].machine.wake_at();
        if let Some(at) = wake.filter(|at| self.rigs[index].wake.is_none_or(|known| *at < known)) {
            self.rigs[index].wake = Some(at);
            self.schedule.at(at, Happening::RigWake(index));
        }
    }

    fn carry_out(&mut self, index: usize, effect: RigEffect) {
        let now = self.schedule.now();
        match effect {
            RigEffect::Probe => self.answer(index, (200, 3_000), RigEvent::Probed),
            RigEffect::Start(workload) => self.start(index, workload),
            RigEffect::HandOver { to, .. } => self.hand_over(index, to),
            RigEffect::BeginDrain => self.answer(index, (500, 70_000), RigEvent::Drained),
            RigEffect::CancelDrain => self.rigs[index].order += 1,
            RigEffect::Stop { force } => self.stop(index, force),
            RigEffect::HoldFloor => {
                self.rigs[index].order += 1;
                if !self.rigs[index].hardware.hung {
                    self.rigs[index].hardware.end(now);
                }
            }
            RigEffect::CutPower => {
                self.rigs[index].order += 1;
                self.rigs[index].hardware.cut_power(now);
            }
            RigEffect::Accept { generation } => {
                self.ack(index, generation, AckStatus::Accepted, String::new());
            }
            RigEffect::Refuse { generation, reason } => {
                self.ack(index, generation, AckStatus::Refused, reason);
            }
            RigEffect::Persist(memory) => self.rigs[index].stored = memory,
            RigEffect::Report => self.send_report(index),
            RigEffect::Record { kind, reason } => {
                let rig = &self.rigs[index];
                let agent = &mut self.agents[rig.agent];
                let row = agent.journal_event(rig.machine.id(), now, kind, reason);
                self.send_row(index, row);
            }
            RigEffect::ResetDone | RigEffect::ResetRefused { .. } | RigEffect::Ignored { .. } => {}
        }
    }

    fn start(&mut self, index: usize, workload: Workload) {
        let rig = &self.rigs[index];
        let asic = rig.machine.settings().kind == RigKind::Asic;
        // A miner that hashes already is only told so again.
        let awake = rig.hardware.process.as_ref() == Some(&workload);
        let longest = match (awake, asic) {
            (true, _) => 3_000,
            (false, true) => 90_000,
            (false, false) => 40_000,
        };
        let takes = self.drivers[index].between(1_000, longest);
        self.rigs[index].order += 1;
        if self.rigs[index].hardware.hung {
            return;
        }
        self.run_process(index, &workload, Millis(takes));
        self.answer_in(index, Millis(takes), RigEvent::Started { workload });
    }

    fn hand_over(&mut self, index: usize, to: Workload) {
        self.rigs[index].order += 1;
        if self.rigs[index].hardware.hung {
            return;
        }
        let takes = Millis(self.drivers[index].between(500, 9_000));
        self.run_process(index, &to, takes);
        self.answer_in(index, takes, RigEvent::HandedOver { workload: to });
    }

    fn run_process(&mut self, index: usize, workload: &Workload, ramp: Millis) {
        let now = self.schedule.now();
        if let Err(what) = self.rigs[index].hardware.start(now, workload, ramp) {
            let what = format!("{}: {what}", self.rigs[index].machine.id());
            self.broken = Some(Broken { checker: "one workload per rig", what });
        }
    }

    fn stop(&mut self, index: usize, force: bool) {
        let now = self.schedule.now();
        let hardware = &mut self.rigs[index].hardware;
        if hardware.hung && !force {
            self.rigs[index].order += 1;
            return;
        }
        if hardware.lies && !force {
            hardware.lies = false;
        } else {
            hardware.end(now);
        }
        self.answer(index, (1_000, 15_000), RigEvent::Stopped);
    }

    /// Answers an order after a while, unless another order comes first.
    fn answer(&mut self, index: usize, (least, most): (u64, u64), event: RigEvent) {
        self.rigs[index].order += 1;
        let takes = Millis(self.drivers[index].between(least, most));
        self.answer_in(index, takes, event);
    }

    fn answer_in(&mut self, index: usize, takes: Millis, event: RigEvent) {
        let rig = &self.rigs[index];
        let boot = self.agents[rig.agent].boot;
        // Now and then an answer comes although its order was overtaken: drivers have threads.
        let order = if self.drivers[index].chance(30) { None } else { Some(rig.order) };
        match order {
            Some(order) => self.schedule.after(takes, Happening::Driver(index, order, boot, event)),
            None => self.schedule.after(takes, Happening::ToRig(index, event)),
        }
    }

    fn ack(&mut self, index: usize, generation: u64, status: AckStatus, reason: String) {
        let rig = &self.rigs[index];
        let ack = Ack {
            rig: rig.machine.id().clone(),
            envelope: format!("{generation}"),
            generation: Some(generation),
            status,
            reason,
        };
        self.send_to_farm(rig.agent, FarmEvent::Acked(ack));
    }

    pub(super) fn send_report(&mut self, index: usize) {
        let now = self.schedule.now();
        let agent = self.rigs[index].agent;
        if self.agents[agent].is_down {
            return;
        }
        let report = self.agents[agent].report(&self.rigs[index], now);
        self.send_to_farm(agent, FarmEvent::Report(Box::new(report)));
    }

    pub(super) fn sample(&mut self, index: usize) {
        let now = self.schedule.now();
        let agent = self.rigs[index].agent;
        if self.agents[agent].is_down {
            self.rigs[index].sampled_at = now;
            return;
        }
        let sample = self.rigs[index].sample(now);
        self.sampled += sample.power.watts.over(sample.span);
        let id = self.rigs[index].machine.id().clone();
        let row = self.agents[agent].journal_sample(&id, sample);
        self.send_row(index, row);
        let again = self.drivers[index].chance(200);
        if let Some(kind) = self.rigs[index].prove(again) {
            let row = self.agents[agent].journal_event(&id, now, kind, "taken".into());
            self.send_row(index, row);
        }
        self.send_report(index);
    }

    fn send_row(&mut self, index: usize, row: Row) {
        let agent = self.rigs[index].agent;
        self.send_to_farm(agent, as_event(row));
    }

    /// Sends the oldest rows again.
    pub(super) fn resend(&mut self, agent: usize) {
        if self.agents[agent].is_down {
            return;
        }
        let rows: Vec<Row> =
            self.agents[agent].outbox.values().take(super::agent::RESEND_ROWS).cloned().collect();
        for row in rows {
            self.send_to_farm(agent, as_event(row));
        }
    }
}

fn as_event(row: Row) -> FarmEvent {
    match row {
        Row::Samples(batch) => FarmEvent::Telemetry(batch),
        Row::Event(event) => FarmEvent::Happened(event),
    }
}
