//! What goes wrong, and how it is put right again.

use farm_core::farm::FarmEvent;
use farm_core::plan::CurtailOrder;
use farm_core::rig::{Rig, RigEvent};
use roadbed_protocol::{FeederId, Millis, RigKind, RigState, Watts, Workload};

use super::dice::Dice;
use super::faults::{AGENT_FAULTS, CONTROLLER_CRASH_MINUTES, Fault, RIG_FAULTS, next_in};
use super::world::{Happening, World};

/// An operator looks at a tripped rig this often.
const OPERATOR: Millis = Millis::from_mins(6);

impl World {
    pub(super) fn begin_trouble(&mut self) {
        for rig in 0..self.rigs.len() {
            for (kind, (_, name, mean)) in RIG_FAULTS.iter().enumerate() {
                let span = self.roll(name, rig, *mean);
                self.schedule.after(span, Happening::RigFault(rig, kind));
            }
            self.schedule.after(OPERATOR, Happening::Operator(rig));
        }
        for agent in 0..self.agents.len() {
            for (kind, (_, name, mean)) in AGENT_FAULTS.iter().enumerate() {
                let span = self.roll(name, agent, *mean);
                self.schedule.after(span, Happening::AgentFault(agent, kind));
            }
        }
        let span = self.roll("controller", 0, CONTROLLER_CRASH_MINUTES);
        self.schedule.after(span, Happening::ControllerFault);
    }

    pub(super) fn rig_fault(&mut self, index: usize, kind: usize) {
        if !self.is_troubled() {
            return;
        }
        let (fault, name, mean) = RIG_FAULTS[kind];
        let now = self.schedule.now();
        let id = self.rigs[index].machine.id().to_string();
        self.struck(fault, &id);
        let hardware = &mut self.rigs[index].hardware;
        match fault {
            Fault::Hang => hardware.hung = hardware.process.is_some(),
            Fault::Lie => hardware.lies = true,
            Fault::Heat => hardware.heat(now + Millis::from_mins(3)),
            Fault::Death => {
                hardware.end(now);
                // A dead engine is noticed at once; a dead miner now and then only by its watts.
                if self.rigs[index].machine.settings().kind == RigKind::Gpu || self.coin(index) {
                    let reason = "process died".into();
                    let event = RigEvent::Failed { reason };
                    self.schedule.after(Millis::from_secs(3), Happening::ToRig(index, event));
                }
            }
            Fault::AgentCrash | Fault::Partition | Fault::ControllerCrash => {}
        }
        let span = self.roll(name, index, mean);
        self.schedule.after(span, Happening::RigFault(index, kind));
    }

    pub(super) fn agent_fault(&mut self, index: usize, kind: usize) {
        if !self.is_troubled() {
            return;
        }
        let (fault, name, mean) = AGENT_FAULTS[kind];
        let id = self.agents[index].id.to_string();
        self.struck(fault, &id);
        match fault {
            Fault::AgentCrash => self.agent_crash(index),
            Fault::Partition => {
                let span = self.spell("partition-span", index, (10, 600));
                self.networks[index].cut(self.schedule.now() + span);
                self.schedule.after(span, Happening::Rejoin(index));
                self.link(index, RigEvent::LinkDown);
                self.lost(index);
            }
            Fault::Hang | Fault::Lie | Fault::Death | Fault::Heat | Fault::ControllerCrash => {}
        }
        let span = self.roll(name, index, mean);
        self.schedule.after(span, Happening::AgentFault(index, kind));
    }

    fn agent_crash(&mut self, index: usize) {
        if self.agents[index].is_down {
            return;
        }
        let now = self.schedule.now();
        self.agents[index].is_down = true;
        for rig in self.rigs.iter_mut().filter(|rig| rig.agent == index) {
            // An engine dies with its agent; an ASIC does not even notice.
            if rig.machine.settings().kind == RigKind::Gpu {
                rig.hardware.end(now);
            }
        }
        let span = self.spell("crash-span", index, (5, 240));
        self.schedule.after(span, Happening::AgentUp(index));
        self.lost(index);
    }

    pub(super) fn agent_up(&mut self, index: usize) {
        let now = self.schedule.now();
        let agent = &mut self.agents[index];
        agent.is_down = false;
        agent.boot += 1;
        agent.report_seq = 0;
        for at in 0..self.rigs.len() {
            if self.rigs[at].agent != index {
                continue;
            }
            let rig = &mut self.rigs[at];
            let settings = rig.machine.settings().clone();
            let id = rig.machine.id().clone();
            rig.machine = Rig::restore(id, settings, rig.stored.clone(), now);
            rig.order += 1;
            rig.wake = None;
            self.tell_rig(at, RigEvent::Tick);
        }
        self.rejoin(index);
    }

    pub(super) fn rejoin(&mut self, index: usize) {
        if self.agents[index].is_down || self.networks[index].is_cut(self.schedule.now()) {
            return;
        }
        let (agent, online) = (self.agents[index].id.clone(), true);
        self.send_to_farm(index, FarmEvent::Presence { agent, online });
        self.link(index, RigEvent::LinkUp);
        self.resend(index);
    }

    pub(super) fn controller_fault(&mut self) {
        if !self.is_troubled() {
            return;
        }
        self.struck(Fault::ControllerCrash, "controller");
        self.is_farm_down = true;
        let span = self.spell("controller-span", 0, (5, 900));
        self.schedule.after(span, Happening::FarmUp);
        let next = self.roll("controller", 0, CONTROLLER_CRASH_MINUTES);
        self.schedule.after(Millis(span.0 + next.0), Happening::ControllerFault);
    }

    /// The operator opens the latch of a rig that has cooled down.
    pub(super) fn operator(&mut self, index: usize) {
        if self.rigs[index].machine.state() == RigState::Tripped {
            let operator = "operator".into();
            self.tell_rig(index, RigEvent::OperatorReset { operator });
        }
        self.schedule.after(OPERATOR, Happening::Operator(index));
    }

    /// The operator holds or releases a rig, or a grid event comes.
    pub(super) fn whim(&mut self) {
        if !self.is_troubled() {
            return;
        }
        let now = self.schedule.now();
        let count = self.rigs.len() as u64;
        let (what, whom, limit) = {
            let seed = self.options.seed;
            let dice = self.dice.entry(("whims", 0)).or_insert_with(|| Dice::new(seed, "whims", 0));
            (dice.between(0, 4), dice.between(0, count - 1) as usize, dice.between(1_000, 8_000))
        };
        let rig = self.rigs[whom].machine.id().clone();
        let operator = "operator".to_owned();
        match what {
            0 => self.tell_farm(FarmEvent::Hold { rig, workload: Workload::Idle, operator }),
            1 => {
                let workload = self.truth.rigs[whom].spec.options[0].workload.clone();
                self.tell_farm(FarmEvent::Hold { rig, workload, operator });
            }
            2 | 3 => self.tell_farm(FarmEvent::Release { rig }),
            _ => self.tell_farm(FarmEvent::CurtailOrder(CurtailOrder {
                id: format!("grid-{}", now.0),
                feeder: FeederId::new("site").expect("a legal id"),
                limit: Watts(limit),
                from: now + Millis::from_mins(3),
                until: now + Millis::from_mins(20),
                breaks_commitments: false,
            })),
        }
    }

    fn link(&mut self, agent: usize, event: RigEvent) {
        for rig in 0..self.rigs.len() {
            if self.rigs[rig].agent == agent {
                self.tell_rig(rig, event.clone());
            }
        }
    }

    /// The broker publishes the agent's last will.
    fn lost(&mut self, index: usize) {
        let (agent, online) = (self.agents[index].id.clone(), false);
        let event = FarmEvent::Presence { agent, online };
        self.schedule.after(Millis::from_secs(45), Happening::ToFarm(event));
    }

    fn roll(&mut self, kind: &'static str, index: usize, mean_minutes: u64) -> Millis {
        let seed = self.options.seed;
        let dice = self.dice.entry((kind, index)).or_insert_with(|| Dice::new(seed, kind, index));
        next_in(dice, mean_minutes)
    }

    fn spell(&mut self, kind: &'static str, index: usize, (least, most): (u64, u64)) -> Millis {
        let seed = self.options.seed;
        let dice = self.dice.entry((kind, index)).or_insert_with(|| Dice::new(seed, kind, index));
        Millis::from_secs(dice.between(least, most))
    }

    fn coin(&mut self, index: usize) -> bool {
        let seed = self.options.seed;
        let dice =
            self.dice.entry(("coin", index)).or_insert_with(|| Dice::new(seed, "coin", index));
        dice.chance(500)
    }
}
