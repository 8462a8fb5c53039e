//! Power by the rig's profile, with a ramp: the last resort, and the only source of a simulated rig.

use roadbed_protocol::{
    MilliCelsius, Millis, PowerReading, PowerSource, RigProfile, UnixMillis, Watts, Workload,
};

use super::SensorReading;

/// Heat of a simulated rig at its floor and at its nameplate, in thousandths of a degree; ordinary figures of an
/// air-cooled card, used by no decision but the trip.
const COOL: i64 = 35_000;
const WARM: i64 = 65_000;

/// Says what the profile expects. Power moves evenly from where it was: up within the profile's start time, down within
/// its stop time.
pub(super) struct PowerModel {
    profile: RigProfile,
    seen: Option<(UnixMillis, Watts)>,
}

impl PowerModel {
    pub(super) fn new(profile: &RigProfile) -> Self {
        Self { profile: profile.clone(), seen: None }
    }

    pub(super) fn read(&mut self, now: UnixMillis, running: Option<&Workload>) -> SensorReading {
        let goal = expected(&self.profile, running);
        let watts = match self.seen {
            None => self.profile.floor_watts,
            Some((then, watts)) => self.ramp(watts, goal, now.since(then)),
        };
        self.seen = Some((now, watts));
        SensorReading {
            power: Some(PowerReading { watts, source: PowerSource::Profile }),
            temperature: Some(self.heat(watts)),
        }
    }

    fn ramp(&self, from: Watts, goal: Watts, passed: Millis) -> Watts {
        let seconds =
            if goal > from { self.profile.start_seconds } else { self.profile.stop_seconds };
        let whole = self.profile.nameplate_watts.saturating_sub(self.profile.floor_watts).0;
        // Rounded up, so that looks in quick succession still move it.
        let step = (whole * passed.0).div_ceil(seconds.max(1) * 1_000);
        if goal > from {
            Watts((from.0 + step).min(goal.0))
        } else {
            Watts(from.0.saturating_sub(step).max(goal.0))
        }
    }

    fn heat(&self, watts: Watts) -> MilliCelsius {
        let floor = self.profile.floor_watts;
        let whole = self.profile.nameplate_watts.saturating_sub(floor).0.max(1);
        let part = watts.saturating_sub(floor).0.min(whole);
        let share = i64::try_from(part * 1_000 / whole).unwrap_or(0);
        MilliCelsius(i32::try_from(COOL + (WARM - COOL) * share / 1_000).unwrap_or(i32::MAX))
    }
}

/// What the profile says a workload draws.
fn expected(profile: &RigProfile, running: Option<&Workload>) -> Watts {
    match running {
        None | Some(Workload::Idle | Workload::Curtailed) => profile.floor_watts,
        Some(Workload::Mine { power_target }) => {
            let normal = profile.normal_mining().map_or(profile.floor_watts, |step| step.watts);
            power_target.map_or(normal, |target| target.min(normal)).max(profile.floor_watts)
        }
        Some(Workload::Serve { .. } | Workload::Prove { .. }) => {
            profile.ai_watts.unwrap_or(profile.floor_watts)
        }
    }
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::{HashesPerSecond, MiningStep, RigKind};

    use super::*;

    fn profile() -> RigProfile {
        RigProfile {
            model: "test".into(),
            kind: RigKind::Gpu,
            firmware: "none".into(),
            source: "test".into(),
            status: "test".into(),
            floor_watts: Watts(100),
            nameplate_watts: Watts(600),
            mining: vec![MiningStep { watts: Watts(200), hashes_per_second: HashesPerSecond(1) }],
            ai_watts: Some(Watts(500)),
            start_seconds: 10,
            stop_seconds: 5,
            temperature_trip: MilliCelsius(90_000),
            temperature_safe: MilliCelsius(70_000),
        }
    }

    #[test]
    fn power_ramps_to_what_the_profile_says() {
        let mut model = PowerModel::new(&profile());
        let serve = Workload::Serve { model: "m".into() };
        let mut at = |second: i64, running: Option<&Workload>| {
            let reading = model.read(UnixMillis(second * 1_000), running);
            assert_eq!(reading.power.unwrap().source, PowerSource::Profile);
            reading.power.unwrap().watts.0
        };
        assert_eq!(at(0, None), 100);
        assert_eq!(at(2, Some(&serve)), 200);
        assert_eq!(at(60, Some(&serve)), 500);
        assert_eq!(at(61, None), 400);
        assert_eq!(at(70, None), 100);
        assert_eq!(at(80, Some(&Workload::Mine { power_target: None })), 200);
        assert_eq!(at(90, Some(&Workload::Mine { power_target: Some(Watts(150)) })), 150);
    }
}
