//! The world: who is in it, what can happen next, and how a run goes.

use std::collections::BTreeMap;

use farm_core::farm::{Farm, FarmEvent, FarmMemory, FarmSettings};
use farm_core::ledger::Ledger;
use farm_core::plan::Commitment;
use farm_core::rig::{Rig, RigEvent, RigMemory};
use roadbed_protocol::{
    AgentId, Assignment, Millis, RigId, RigState, UnixMillis, WattMillis, Workload,
};

use super::agent::{Agent, SimRig};
use super::checkers::{Broken, Checkers};
use super::dice::Dice;
use super::faults::{Fault, Trouble};
use super::hardware::Hardware;
use super::network::{Network, Weather};
use super::outcome::{Failure, Summary};
use super::schedule::Schedule;
use super::{gonka, market, site};

/// How a run is set up.
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// How much goes wrong.
    pub trouble: Trouble,
    /// How long it goes wrong.
    pub span: Millis,
    /// Changes what the controller believes of the site, and not what is true: a way to see the checkers fail.
    pub mislead: fn(&mut FarmSettings),
    /// Keep the story.
    pub trace: bool,
}

impl Options {
    /// The ordinary run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let span = Millis::from_mins(110);
        Self { seed, trouble: Trouble::All, span, mislead: |_| {}, trace: false }
    }
}

/// Virtual time begins here: 2023-11-14 22:00 UTC, so that a run spans midnight.
const START: UnixMillis = UnixMillis(1_700_000_000_000 - 800_000);
/// After the last fault every rig must reach its target within this.
const SETTLE: Millis = Millis::from_mins(40);
/// A rig may be away from its target this long without anything being wrong: a drain, a stop, a start and a stagger.
const BOUND: Millis = Millis::from_mins(10);
/// Between two looks at a rig's sensors.
const MEASURE: Millis = Millis::from_secs(10);
/// Between two samples.
const SAMPLE: Millis = Millis::from_secs(60);
/// Between two attempts of an agent to empty its journal.
const RESEND: Millis = Millis::from_secs(30);
/// Between two series of a price feed.
const FEED: Millis = Millis::from_mins(30);
/// Between two whims of an operator.
const WHIM: Millis = Millis::from_mins(20);
/// Nothing is sampled in the last minutes of a run, so that every row can be acknowledged.
const FLUSH: Millis = Millis::from_mins(3);
/// Lines of story kept.
const TRACE_MAX: usize = 400_000;

/// What can happen next.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// Something arrives at the controller.
    ToFarm(FarmEvent),
    /// Something arrives at a rig.
    ToRig(usize, RigEvent),
    /// The controller asks a rig for its state.
    Sync(usize),
    /// The controller has an agent's rows.
    Stored(usize, u64),
    /// A driver answers, if its order still stands (order number, boot).
    Driver(usize, u64, u64, RigEvent),
    RigWake(usize),
    FarmWake,
    Measure(usize),
    Sample(usize),
    Resend(usize),
    Feed,
    Whim,
    RigFault(usize, usize),
    AgentFault(usize, usize),
    ControllerFault,
    AgentUp(usize),
    Rejoin(usize),
    FarmUp,
    Operator(usize),
}

/// What the controller's store holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub assignments: BTreeMap<RigId, Assignment>,
    pub journals: BTreeMap<(AgentId, String), u64>,
    pub plan_id: u64,
}

/// Everything.
pub(super) struct World {
    pub options: Options,
    pub schedule: Schedule<Happening>,
    pub truth: FarmSettings,
    pub belief: FarmSettings,
    pub farm: Farm,
    pub is_farm_down: bool,
    pub farm_wake: Option<UnixMillis>,
    pub store: Store,
    pub ledger: Ledger,
    pub agents: Vec<Agent>,
    pub networks: Vec<Network>,
    pub rigs: Vec<SimRig>,
    pub drivers: Vec<Dice>,
    pub dice: BTreeMap<(&'static str, usize), Dice>,
    pub commitments: Vec<Commitment>,
    pub checkers: Checkers,
    pub summary: Summary,
    pub sampled: WattMillis,
    pub broken: Option<Broken>,
    pub trace: Vec<String>,
    aligned: Vec<UnixMillis>,
    faults_end: UnixMillis,
    end: UnixMillis,
}

/// Runs a seed to its end.
///
/// # Errors
/// The first rule that was broken.
pub fn run(options: Options) -> Result<Summary, Failure> {
    let mut world = World::new(options);
    world.begin();
    while world.schedule.now() < world.end && world.broken.is_none() {
        let Some(happening) = world.schedule.pop() else { break };
        world.summary.steps += 1;
        world.happen(happening);
        world.look();
    }
    if world.broken.is_none() {
        world.broken = world.is_settled().err();
    }
    let seed = world.options.seed;
    match world.broken {
        None => Ok(world.totals()),
        Some(broken) => {
            Err(Failure { seed, step: world.summary.steps, broken, trace: world.trace })
        }
    }
}

impl World {
    fn new(options: Options) -> Self {
        let seed = options.seed;
        let truth = site::site(seed);
        let mut belief = truth.clone();
        (options.mislead)(&mut belief);
        let mut agents: Vec<Agent> = Vec::new();
        let mut rigs = Vec::new();
        let mut dice = BTreeMap::new();
        for (index, member) in truth.rigs.iter().enumerate() {
            let known = agents.iter().position(|agent| agent.id == member.agent);
            let agent = known.unwrap_or(agents.len());
            if known.is_none() {
                agents.push(Agent::new(member.agent.clone()));
            }
            let mut metal = Dice::new(seed, "metal", index);
            let settings = site::rig_settings(&member.spec);
            rigs.push(SimRig {
                agent,
                machine: Rig::new(member.spec.id.clone(), settings, START),
                hardware: Hardware::new(&member.spec, &mut metal),
                stored: RigMemory::default(),
                order: 0,
                wake: None,
                artifact: (1, 0),
                delivered: 0,
                sampled_at: START,
            });
            dice.insert(("whim", index), Dice::new(seed, "whim", index));
        }
        let faults_end = START + options.span;
        let commitments = truth
            .rigs
            .iter()
            .enumerate()
            .filter(|(_, member)| member.spec.id.as_str().starts_with("gpu"))
            .flat_map(|(index, member)| {
                gonka::windows(seed, index, &member.spec.id, site::MODEL, (START, faults_end))
            })
            .collect();
        Self {
            farm: Farm::new(belief.clone(), START),
            schedule: Schedule::new(START),
            is_farm_down: false,
            farm_wake: None,
            store: Store::default(),
            ledger: Ledger::default(),
            networks: (0..agents.len()).map(|index| Network::new(seed, index)).collect(),
            drivers: (0..rigs.len()).map(|index| Dice::new(seed, "driver", index)).collect(),
            aligned: vec![START; rigs.len()],
            checkers: Checkers::default(),
            summary: Summary::default(),
            sampled: WattMillis::ZERO,
            broken: None,
            trace: Vec::new(),
            end: faults_end + SETTLE,
            options,
            truth,
            belief,
            agents,
            rigs,
            dice,
            commitments,
            faults_end,
        }
    }

    fn begin(&mut self) {
        for rig in 0..self.rigs.len() {
            let jitter = Millis(rig as u64 * 137);
            self.schedule.after(jitter, Happening::ToRig(rig, RigEvent::LinkUp));
            self.schedule.after(Millis(MEASURE.0 + jitter.0), Happening::Measure(rig));
            self.schedule.after(Millis(SAMPLE.0 + jitter.0), Happening::Sample(rig));
        }
        for agent in 0..self.agents.len() {
            let (id, online) = (self.agents[agent].id.clone(), true);
            self.send_to_farm(agent, FarmEvent::Presence { agent: id, online });
            self.schedule.after(RESEND, Happening::Resend(agent));
        }
        self.schedule.after(Millis::ZERO, Happening::Feed);
        self.schedule.after(WHIM, Happening::Whim);
        self.tell_farm(FarmEvent::Commitments(self.commitments.clone()));
        self.begin_trouble();
    }

    fn happen(&mut self, happening: Happening) {
        if self.options.trace && self.trace.len() < TRACE_MAX {
            let line = format!("{} {happening:?}", self.schedule.now().0);
            self.trace.push(line);
        }
        match happening {
            Happening::ToFarm(event) => self.tell_farm(event),
            Happening::ToRig(rig, event) => self.tell_rig(rig, event),
            Happening::Sync(rig) => self.send_report(rig),
            Happening::Stored(agent, seq) => self.agents[agent].forget(seq),
            Happening::Driver(rig, order, boot, event) => {
                let stands =
                    self.rigs[rig].order == order && self.agents[self.rigs[rig].agent].boot == boot;
                if stands {
                    self.tell_rig(rig, event);
                }
            }
            Happening::RigWake(rig) => {
                self.rigs[rig].wake = None;
                self.tell_rig(rig, RigEvent::Tick);
            }
            Happening::FarmWake => {
                self.farm_wake = None;
                self.tell_farm(FarmEvent::Tick);
            }
            Happening::Measure(rig) => {
                let reading = self.rigs[rig].hardware.read(self.schedule.now());
                self.tell_rig(rig, RigEvent::Measured(reading));
                self.schedule.after(MEASURE, Happening::Measure(rig));
            }
            Happening::Sample(rig) => {
                self.sample(rig);
                if self.schedule.now() + FLUSH < self.end {
                    self.schedule.after(SAMPLE, Happening::Sample(rig));
                }
            }
            Happening::Resend(agent) => {
                self.resend(agent);
                self.schedule.after(RESEND, Happening::Resend(agent));
            }
            Happening::Feed => self.feed(),
            Happening::Whim => {
                self.whim();
                self.schedule.after(WHIM, Happening::Whim);
            }
            Happening::RigFault(rig, kind) => self.rig_fault(rig, kind),
            Happening::AgentFault(agent, kind) => self.agent_fault(agent, kind),
            Happening::ControllerFault => self.controller_fault(),
            Happening::AgentUp(agent) => self.agent_up(agent),
            Happening::Rejoin(agent) => self.rejoin(agent),
            Happening::FarmUp => self.farm_up(),
            Happening::Operator(rig) => self.operator(rig),
        }
    }

    /// True while things may go wrong.
    pub(super) fn is_troubled(&self) -> bool {
        self.options.trouble == Trouble::All && self.schedule.now() < self.faults_end
    }

    pub(super) fn weather(&self) -> Weather {
        if self.is_troubled() { Weather::FOUL } else { Weather::FAIR }
    }

    fn feed(&mut self) {
        let now = self.schedule.now();
        let whole = market::prices(self.options.seed, START.floor_to(market::STEP), 32);
        let known_until = now + Millis::from_hours(2);
        let known = whole.points().iter().filter(|point| point.at < known_until).copied();
        let series = farm_core::forecast::PriceSeries::new(known.collect(), market::STEP);
        let fails = self.is_troubled() && {
            let seed = self.options.seed;
            let dice = self.dice.entry(("feed", 0)).or_insert_with(|| Dice::new(seed, "feed", 0));
            dice.chance(250)
        };
        if !fails {
            self.tell_farm(FarmEvent::Prices(series));
        }
        self.schedule.after(FEED, Happening::Feed);
    }

    fn look(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let now = self.schedule.now();
        let agents = &self.agents;
        let looked =
            self.checkers.look(now, &self.truth, &self.rigs, |agent| agents[agent].is_down);
        self.broken = looked.err();
        for (index, rig) in self.rigs.iter().enumerate() {
            if is_aligned(&rig.machine, self.farm.rig(rig.machine.id())) {
                self.aligned[index] = now;
            }
        }
    }

    /// Whether everything that must be done in the end is done.
    fn is_settled(&self) -> Result<(), Broken> {
        let now = self.schedule.now();
        for (rig, aligned) in self.rigs.iter().zip(&self.aligned) {
            if now.since(*aligned) > BOUND {
                let machine = &rig.machine;
                let view = self.farm.rig(machine.id());
                let what = format!(
                    "{} is {} ({}), target {:?}, away since {aligned}; controller: {:?}, waiting {:?}",
                    machine.id(),
                    machine.state(),
                    machine.reason(),
                    machine.target(),
                    view.and_then(|view| view.assigned.as_ref()).map(|told| &told.workload),
                    view.and_then(|view| view.waiting.as_ref()),
                );
                return Err(Broken { checker: "every rig reaches its target", what });
            }
        }
        for agent in &self.agents {
            let oldest = agent.outbox.iter().next();
            // What was written a moment ago may still be on its way.
            if let Some((row, _)) = oldest.filter(|(_, row)| now.since(row.at()) > RESEND) {
                let what = format!("{} still holds row {row}", agent.id);
                return Err(Broken { checker: "every row is acknowledged", what });
            }
        }
        let total = self.ledger.total();
        if total.energy != self.sampled {
            let what = format!("{} booked, {} sampled", total.energy.0, self.sampled.0);
            return Err(Broken { checker: "energy counts once", what });
        }
        let delivered: u64 = self.rigs.iter().map(|rig| rig.delivered).sum();
        if total.artifacts != delivered {
            let what = format!("{} booked, {delivered} delivered", total.artifacts);
            return Err(Broken { checker: "artifacts count once", what });
        }
        Ok(())
    }

    fn totals(mut self) -> Summary {
        let total = self.ledger.total();
        self.summary.switches = total.switches;
        self.summary.artifacts = total.artifacts;
        self.summary.watt_hours = total.energy.watt_hours().0;
        self.summary.breaches = self.ledger.breaches().len() as u64;
        self.summary.over_millis = self.checkers.over_millis;
        self.summary.trace = self.trace;
        self.summary
    }

    /// What the store gives back.
    pub(super) fn memory(&self) -> FarmMemory {
        let holds = self.farm.holds().iter();
        FarmMemory {
            assignments: self.store.assignments.values().cloned().collect(),
            plan_id: self.store.plan_id,
            journals: self
                .store
                .journals
                .iter()
                .map(|((agent, journal), row)| (agent.clone(), journal.clone(), *row))
                .collect(),
            holds: holds
                .map(|hold| (hold.rig.clone(), hold.workload.clone(), hold.operator.clone()))
                .collect(),
            orders: self.farm.orders().to_vec(),
        }
    }

    pub(super) fn struck(&mut self, fault: Fault, whom: &str) {
        self.summary.faults += 1;
        if self.options.trace {
            self.trace.push(format!("{} FAULT {fault:?} {whom}", self.schedule.now().0));
        }
    }
}

fn is_aligned(machine: &Rig, view: Option<&farm_core::farm::RigView>) -> bool {
    let Some(told) = view.and_then(|view| view.assigned.as_ref()) else { return false };
    let reached = match &told.workload {
        Workload::Idle => machine.state() == RigState::Idle,
        Workload::Curtailed => machine.state() == RigState::Curtailed,
        active @ (Workload::Mine { .. } | Workload::Serve { .. } | Workload::Prove { .. }) => {
            machine.state() == RigState::Running && machine.workload() == Some(active)
        }
    };
    reached && machine.generation() == told.generation
}
