//! Readings: they confirm, they raise doubt, and they close the safety latch.

use roadbed_protocol::{EventKind, RigKind, RigState, Workload};

use super::{Reading, Rig, RigEffect, TripCause};

impl Rig {
    pub(super) fn measured(&mut self, reading: Reading, effects: &mut Vec<RigEffect>) {
        self.reading = Some((self.now, reading));
        if let Some(cause) = self.danger(&reading) {
            self.trip(&cause.to_string(), effects);
            return;
        }
        if !self.contradicts(&reading) {
            self.progress.doubt_since = None;
        } else if self.progress.doubt_since.is_none() {
            self.progress.doubt_since = Some(self.now);
        }
    }

    fn danger(&self, reading: &Reading) -> Option<TripCause> {
        let hot = reading.temperature.filter(|hottest| *hottest >= self.settings.temperature_trip);
        let over = reading.power.filter(|power| *power > self.settings.power_trip);
        hot.map(|temperature| TripCause::Heat { temperature })
            .or(over.map(|power| TripCause::Power { power }))
    }

    /// True when the reading says something else than the state.
    fn contradicts(&self, reading: &Reading) -> bool {
        let above_floor = reading.power.is_some_and(|power| power > self.settings.power_floor_max);
        match self.state {
            RigState::Idle | RigState::Curtailed => above_floor,
            RigState::Running => {
                let mining = matches!(self.workload, Some(Workload::Mine { .. }));
                let asleep =
                    self.settings.kind == RigKind::Asic && reading.power.is_some() && !above_floor;
                let silent = reading.hashrate.is_some_and(|hashrate| hashrate.0 == 0);
                mining && (asleep || silent)
            }
            RigState::Booting
            | RigState::Starting
            | RigState::Draining
            | RigState::Stopping
            | RigState::Faulted
            | RigState::Tripped => false,
        }
    }

    /// True when a fresh reading shows more than the floor. Where nobody measures power this is false, and the driver's
    /// word must do.
    pub(super) fn is_power_above_floor(&self) -> bool {
        self.fresh_reading()
            .and_then(|reading| reading.power)
            .is_some_and(|power| power > self.settings.power_floor_max)
    }

    fn fresh_reading(&self) -> Option<Reading> {
        self.reading
            .filter(|(at, _)| self.now.since(*at) <= self.settings.sensor_stale)
            .map(|(_, reading)| reading)
    }

    /// Closes the latch. A second cause changes nothing: the first one is what the operator must look at.
    pub(super) fn trip(&mut self, reason: &str, effects: &mut Vec<RigEffect>) {
        if self.state == RigState::Tripped {
            return;
        }
        self.go(RigState::Tripped, reason, effects);
        effects.insert(0, RigEffect::CutPower);
        self.latch = Some(reason.into());
        effects.push(RigEffect::Persist(self.memory()));
        effects.push(RigEffect::Record { kind: EventKind::Tripped, reason: reason.into() });
    }

    /// Closes the latch again after a restart of the agent.
    pub(super) fn relatch(&mut self, effects: &mut Vec<RigEffect>) {
        if self.state == RigState::Booting
            && let Some(reason) = self.latch.take()
        {
            self.trip(&reason, effects);
        }
    }

    pub(super) fn reset(&mut self, operator: &str, effects: &mut Vec<RigEffect>) {
        match self.judge_reset() {
            Err(reason) => {
                let text = format!("reset by {operator} refused: {reason}");
                effects.push(RigEffect::Record { kind: EventKind::Refused, reason: text });
                effects.push(RigEffect::ResetRefused { reason });
            }
            Ok(()) => {
                self.latch = None;
                self.attempts = 0;
                effects.push(RigEffect::Persist(self.memory()));
                effects.push(RigEffect::ResetDone);
                self.wake_idle(&format!("latch opened by {operator}"), effects);
            }
        }
    }

    fn judge_reset(&self) -> Result<(), String> {
        if self.state != RigState::Tripped {
            return Err(format!("not tripped but {}", self.state));
        }
        let Some(reading) = self.fresh_reading() else {
            return Err("no fresh reading; look at the sensors first".into());
        };
        let safe = self.settings.temperature_safe;
        match reading.temperature {
            None => return Err("no temperature is measured".into()),
            Some(hottest) if hottest > safe => {
                return Err(format!("{hottest} is above the safe {safe}"));
            }
            Some(_) => {}
        }
        match reading.power {
            Some(power) if power > self.settings.power_floor_max => {
                Err(format!("{power} is above the floor of {}", self.settings.power_floor_max))
            }
            Some(_) | None => Ok(()),
        }
    }
}
