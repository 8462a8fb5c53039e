//! Farm time: the clock that everything which decides goes by.
//!
//! On a real farm it is Unix time. In the demo one wall second is minutes of farm time, and every process is told the
//! same origin and rate, so that leases, dwell times and ramps shrink together. HTTP time-outs, MQTT keep-alives and
//! login tokens stay on the wall: they belong to machines that do not know of the farm's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roadbed_protocol::{Millis, UnixMillis};

/// Fastest farm clock: one day in about nine wall seconds. Beyond it a wall millisecond is more than a farm second's
/// worth of control steps, and nothing that drives hardware keeps up.
pub const RATE_MAX: f64 = 10_000.0;

/// Farm time from wall time; cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FarmClock {
    rate: f64,
    farm_origin: UnixMillis,
    wall_origin: UnixMillis,
}

/// The rate is no usable number.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("clock rate {0} is not usable: expected a number above 0, at most {RATE_MAX}")]
pub struct ClockRateError(pub f64);

impl FarmClock {
    /// Farm time is wall time.
    #[must_use]
    pub const fn real() -> Self {
        Self { rate: 1.0, farm_origin: UnixMillis(0), wall_origin: UnixMillis(0) }
    }

    /// A clock that showed `farm_origin` when the wall showed `wall_origin`, and runs `rate` times as fast.
    ///
    /// # Errors
    /// [`ClockRateError`] when the rate is not above 0 and at most [`RATE_MAX`].
    pub fn accelerated(
        rate: f64,
        farm_origin: UnixMillis,
        wall_origin: UnixMillis,
    ) -> Result<Self, ClockRateError> {
        if !(rate > 0.0 && rate <= RATE_MAX) {
            return Err(ClockRateError(rate));
        }
        Ok(Self { rate, farm_origin, wall_origin })
    }

    /// Farm milliseconds per wall millisecond.
    #[must_use]
    pub const fn rate(&self) -> f64 {
        self.rate
    }

    /// Farm time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.at_wall(wall_now())
    }

    /// Farm time when the wall shows `wall`.
    #[must_use]
    pub fn at_wall(&self, wall: UnixMillis) -> UnixMillis {
        let passed = (wall.0.saturating_sub(self.wall_origin.0)) as f64 * self.rate;
        UnixMillis(self.farm_origin.0.saturating_add(passed as i64))
    }

    /// How long the wall takes for a span of farm time; never rounds down to nothing.
    #[must_use]
    pub fn wall_duration(&self, span: Millis) -> Duration {
        Duration::from_secs_f64(span.0 as f64 / 1_000.0 / self.rate)
    }

    /// How much farm time passes while the wall counts `span`.
    #[must_use]
    pub fn farm_span(&self, span: Duration) -> Millis {
        Millis((span.as_secs_f64() * 1_000.0 * self.rate) as u64)
    }

    /// Sleeps until the farm's clock shows `deadline`; returns at once when it is past.
    pub async fn sleep_until(&self, deadline: UnixMillis) {
        loop {
            let left = deadline.since(self.now());
            if left == Millis::ZERO {
                return;
            }
            // A millisecond more, so that rounding never wakes the sleeper just before its deadline.
            tokio::time::sleep(self.wall_duration(left) + Duration::from_millis(1)).await;
        }
    }

    /// Sleeps for a span of farm time.
    pub async fn sleep(&self, span: Millis) {
        tokio::time::sleep(self.wall_duration(span)).await;
    }
}

/// Wall time now, for login tokens and logs only.
#[must_use]
pub fn wall_now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_clock_shows_the_wall() {
        let wall = UnixMillis(1_700_000_000_123);
        assert_eq!(FarmClock::real().at_wall(wall), wall);
    }

    #[test]
    fn an_accelerated_clock_runs_from_its_origin() {
        let clock = FarmClock::accelerated(288.0, UnixMillis(0), UnixMillis(1_000_000)).unwrap();
        assert_eq!(clock.at_wall(UnixMillis(1_000_000)), UnixMillis(0));
        assert_eq!(clock.at_wall(UnixMillis(1_300_000)).hour_minute_utc(), (0, 0));
        assert_eq!(clock.at_wall(UnixMillis(1_300_000)), UnixMillis(24 * 3_600_000));
        assert_eq!(clock.wall_duration(Millis::from_hours(24)), Duration::from_secs(300));
        assert_eq!(clock.farm_span(Duration::from_secs(300)), Millis::from_hours(24));
    }

    #[test]
    fn a_useless_rate_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(FarmClock::accelerated(rate, UnixMillis(0), UnixMillis(0)).is_err(), "{rate}");
        }
    }
}
