//! A GPU rig brought into each state by the shortest way.

use farm_core::rig::{Reading, Rig, RigEffect, RigEvent, RigSettings, TripCause};
use roadbed_protocol::{
    Assignment, Cause, FarmId, MilliCelsius, Millis, RigId, RigKind, RigState, UnixMillis, Watts,
    Workload,
};

pub const FLOOR: Watts = Watts(60);
pub const SAFE: Reading =
    Reading { power: Some(FLOOR), temperature: Some(MilliCelsius(40_000)), hashrate: None };
pub const HOT: Reading =
    Reading { power: Some(FLOOR), temperature: Some(MilliCelsius(95_000)), hashrate: None };

pub fn settings(kind: RigKind) -> RigSettings {
    RigSettings {
        kind,
        power_floor_max: Watts(100),
        power_trip: Watts(4_000),
        start_deadline: Millis::from_secs(60),
        drain_deadline: Millis::from_secs(300),
        stop_deadline: Millis::from_secs(30),
        backoff_first: Millis::from_secs(10),
        backoff_max: Millis::from_secs(80),
        attempts_clear_after: Millis::from_mins(15),
        temperature_trip: MilliCelsius(90_000),
        temperature_safe: MilliCelsius(60_000),
        sensor_stale: Millis::from_secs(60),
    }
}

pub fn serve() -> Workload {
    Workload::Serve { model: "m".into() }
}

pub fn prove() -> Workload {
    Workload::Prove { model: "m".into() }
}

pub fn mine(power_target: Option<u64>) -> Workload {
    Workload::Mine { power_target: power_target.map(Watts) }
}

pub fn assignment(generation: u64, workload: Workload) -> Assignment {
    Assignment {
        farm: FarmId::new("farm").unwrap(),
        rig: RigId::new("rig").unwrap(),
        generation,
        workload,
        lease_until: UnixMillis(3_600_000),
        fallback: Workload::Curtailed,
        drain: Millis::from_secs(120),
        cause: Cause::Plan,
        reason: "because".into(),
    }
}

/// A rig with a clock of its own.
pub struct Bench {
    pub rig: Rig,
    pub now: UnixMillis,
}

impl Bench {
    pub fn new(kind: RigKind) -> Self {
        let now = UnixMillis(0);
        Self { rig: Rig::new(RigId::new("rig").unwrap(), settings(kind), now), now }
    }

    pub fn say(&mut self, event: RigEvent) -> Vec<RigEffect> {
        let effects = self.rig.handle(self.now, event);
        self.rig.invariants().unwrap();
        effects
    }

    pub fn assign(&mut self, generation: u64, workload: Workload) -> Vec<RigEffect> {
        self.say(RigEvent::Assigned(assignment(generation, workload)))
    }

    pub fn wait(&mut self, span: Millis) -> Vec<RigEffect> {
        self.now = self.now + span;
        self.say(RigEvent::Tick)
    }

    pub fn state(&self) -> RigState {
        self.rig.state()
    }

    /// A rig of `kind` that runs `workload` by generation 1.
    pub fn running(kind: RigKind, workload: Workload) -> Self {
        let mut bench = Self::new(kind);
        bench.say(RigEvent::Probed);
        bench.assign(1, workload.clone());
        bench.say(RigEvent::Started { workload });
        assert_eq!(bench.state(), RigState::Running);
        bench
    }

    /// A GPU rig in `state`; a faulted one has been asked whether its hardware answers, a tripped one is safe again.
    pub fn in_state(state: RigState) -> Self {
        let mut bench = match state {
            RigState::Booting | RigState::Idle | RigState::Starting | RigState::Curtailed => {
                Self::new(RigKind::Gpu)
            }
            RigState::Running
            | RigState::Draining
            | RigState::Stopping
            | RigState::Faulted
            | RigState::Tripped => Self::running(RigKind::Gpu, serve()),
        };
        match state {
            RigState::Booting | RigState::Running => {}
            RigState::Idle => drop(bench.say(RigEvent::Probed)),
            RigState::Starting => {
                bench.say(RigEvent::Probed);
                bench.assign(1, serve());
            }
            RigState::Draining => drop(bench.assign(2, Workload::Idle)),
            RigState::Stopping => {
                bench.assign(2, Workload::Idle);
                bench.say(RigEvent::Drained);
            }
            RigState::Curtailed => {
                bench.say(RigEvent::Probed);
                bench.assign(1, Workload::Curtailed);
            }
            RigState::Faulted => {
                bench.say(RigEvent::Failed { reason: "engine died".into() });
                assert!(bench.wait(Millis::from_secs(10)).contains(&RigEffect::Probe));
            }
            RigState::Tripped => {
                bench.say(RigEvent::TripSignal(TripCause::Breaker));
                bench.say(RigEvent::Measured(SAFE));
            }
        }
        assert_eq!(bench.state(), state);
        bench
    }
}
