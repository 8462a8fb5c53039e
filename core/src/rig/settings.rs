//! What a rig machine must know of its hardware: limits and deadlines, fixed for its life.

use roadbed_protocol::{MilliCelsius, Millis, RigKind, RigProfile, Watts};

/// Limits and deadlines of one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigSettings {
    /// ASIC or GPU: an ASIC is only ever told to mine or to sleep.
    pub kind: RigKind,
    /// Highest measured power that still counts as "at the floor".
    pub power_floor_max: Watts,
    /// Measured power above this closes the safety latch.
    pub power_trip: Watts,
    /// From the order to start (or to hand over, or to probe) until it counts as failed.
    pub start_deadline: Millis,
    /// Longest drain, whatever an assignment allows.
    pub drain_deadline: Millis,
    /// From the order to stop until it is forced, and from there until it counts as failed.
    pub stop_deadline: Millis,
    /// Wait after the first fault; doubles with each fault in a row.
    pub backoff_first: Millis,
    /// Longest wait between two attempts.
    pub backoff_max: Millis,
    /// Running this long without a fault clears the count of attempts.
    pub attempts_clear_after: Millis,
    /// The safety latch closes at this temperature.
    pub temperature_trip: MilliCelsius,
    /// The latch may open at or below this one.
    pub temperature_safe: MilliCelsius,
    /// A reading older than this proves nothing.
    pub sensor_stale: Millis,
}

/// Headroom over the profile's figures before a stop, a start or a nameplate counts as broken: meters and firmwares
/// differ by 5 to 20 % (specs, energy-optimisation section 1), so a quarter.
const HEADROOM_PERCENT: u64 = 125;
/// A fan or a control board alone may draw this much beyond the floor.
const FLOOR_SLACK: Watts = Watts(25);

impl RigSettings {
    /// Settings from a rig model, with deadlines twice the model's times.
    #[must_use]
    pub fn from_profile(profile: &RigProfile) -> Self {
        let start = Millis::from_secs(profile.start_seconds.max(1).saturating_mul(2));
        let stop = Millis::from_secs(profile.stop_seconds.max(1).saturating_mul(2));
        Self {
            kind: profile.kind,
            power_floor_max: percent(profile.floor_watts, HEADROOM_PERCENT) + FLOOR_SLACK,
            power_trip: percent(profile.nameplate_watts, HEADROOM_PERCENT),
            start_deadline: start,
            drain_deadline: Millis::from_mins(5),
            stop_deadline: stop,
            backoff_first: Millis::from_secs(10),
            backoff_max: Millis::from_mins(10),
            attempts_clear_after: Millis::from_mins(15),
            temperature_trip: profile.temperature_trip,
            temperature_safe: profile.temperature_safe,
            sensor_stale: Millis::from_mins(2),
        }
    }

    /// The same settings with no deadline, back-off or sensor age below `least`.
    ///
    /// On an accelerated farm clock a model still loads in real seconds, which are many minutes of farm time there.
    #[must_use]
    pub fn no_faster_than(self, least: Millis) -> Self {
        Self {
            start_deadline: self.start_deadline.max(least),
            drain_deadline: self.drain_deadline.max(least),
            stop_deadline: self.stop_deadline.max(least),
            sensor_stale: self.sensor_stale.max(least),
            ..self
        }
    }

    /// Wait before attempt number `attempts` + 1.
    #[must_use]
    pub fn backoff(&self, attempts: u32) -> Millis {
        let doublings = attempts.saturating_sub(1).min(32);
        let wait = self.backoff_first.0.saturating_mul(1_u64 << doublings);
        Millis(wait.min(self.backoff_max.0))
    }
}

fn percent(power: Watts, percent: u64) -> Watts {
    Watts(power.0.saturating_mul(percent) / 100)
}
