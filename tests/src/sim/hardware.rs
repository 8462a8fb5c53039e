//! The physics of one machine: watts that ramp, a process that runs or hangs, a firmware that may lie.

use farm_core::plan::RigSpec;
use farm_core::rig::Reading;
use roadbed_protocol::{
    HashesPerSecond, MilliCelsius, Millis, RigKind, UnixMillis, Watts, Workload,
};

use super::dice::Dice;
use super::site::NOISE_PERCENT;

/// How long a step down, a sleep or an end takes to show at the meter.
pub const FALL: Millis = Millis::from_secs(8);

/// One machine.
#[derive(Debug)]
pub struct Hardware {
    kind: RigKind,
    floor: Watts,
    spec: RigSpec,
    /// This machine takes so much more than its model, in thousandths.
    bias_per_mille: u64,
    from: Watts,
    to: Watts,
    since: UnixMillis,
    ramp: Millis,
    /// What runs in fact.
    pub process: Option<Workload>,
    /// Ignores every order that is not forced.
    pub hung: bool,
    /// Says "stopped" without stopping, the next time.
    pub lies: bool,
    /// The supply is cut.
    pub cut: bool,
    hot_until: UnixMillis,
}

impl Hardware {
    /// A machine at rest.
    #[must_use]
    pub fn new(spec: &RigSpec, dice: &mut Dice) -> Self {
        Self {
            kind: spec.kind,
            floor: spec.floor,
            spec: spec.clone(),
            bias_per_mille: dice.between(0, NOISE_PERCENT * 10),
            from: spec.floor,
            to: spec.floor,
            since: UnixMillis(0),
            ramp: FALL,
            process: None,
            hung: false,
            lies: false,
            cut: false,
            hot_until: UnixMillis(i64::MIN),
        }
    }

    /// Power at the wall, as a perfect meter would see it.
    #[must_use]
    pub fn power(&self, now: UnixMillis) -> Watts {
        if self.cut {
            return Watts::ZERO;
        }
        let passed = now.since(self.since).0.min(self.ramp.0);
        let (from, to, ramp) = (self.from.0, self.to.0, self.ramp.0.max(1));
        Watts(if to >= from {
            from + (to - from) * passed / ramp
        } else {
            from - (from - to) * passed / ramp
        })
    }

    /// Begins to do `workload`; a process of another kind that still runs is an error of whoever ordered it.
    ///
    /// # Errors
    /// Two workloads at once.
    pub fn start(
        &mut self,
        now: UnixMillis,
        workload: &Workload,
        ramp: Millis,
    ) -> Result<(), String> {
        self.settle(now);
        if let Some(running) = self
            .process
            .as_ref()
            .filter(|running| *running != workload && !running.hands_over_to(workload))
        {
            return Err(format!("{workload} starts while {running} runs"));
        }
        self.process = Some(workload.clone());
        self.aim(now, self.needs(workload), ramp);
        Ok(())
    }

    /// Ends what runs.
    pub fn end(&mut self, now: UnixMillis) {
        self.settle(now);
        self.hung = false;
        self.process = None;
        self.aim(now, self.floor, FALL);
    }

    /// Takes the supply away.
    pub fn cut_power(&mut self, now: UnixMillis) {
        self.end(now);
        self.cut = true;
    }

    /// Overheats for a while.
    pub fn heat(&mut self, until: UnixMillis) {
        self.hot_until = until;
    }

    /// What the sensors say.
    #[must_use]
    pub fn read(&self, now: UnixMillis) -> Reading {
        let power = self.power(now);
        let mines = matches!(self.process, Some(Workload::Mine { .. }));
        let hot = now < self.hot_until;
        Reading {
            power: Some(power),
            temperature: Some(MilliCelsius(if hot { 95_000 } else { 45_000 })),
            hashrate: (self.kind == RigKind::Asic).then(|| {
                HashesPerSecond(if mines {
                    power.0.saturating_sub(self.floor.0) * 1_000
                } else {
                    0
                })
            }),
        }
    }

    fn needs(&self, workload: &Workload) -> Watts {
        let option = self.spec.options.iter().find(|option| option.workload == *workload);
        let power = option.map_or(self.spec.nameplate, |option| option.power);
        Watts(power.0 * (1_000 + self.bias_per_mille) / 1_000)
    }

    fn aim(&mut self, now: UnixMillis, to: Watts, ramp: Millis) {
        self.from = self.power(now);
        (self.to, self.since, self.ramp) = (to, now, ramp);
    }

    fn settle(&mut self, now: UnixMillis) {
        let power = self.power(now);
        self.aim(now, power, FALL);
        self.to = power;
        self.cut = false;
    }
}
