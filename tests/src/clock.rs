//! The farm's clock as every process of the demo computes it: an origin and a rate, both told in the config file.
//!
//! `farm_now = farm_origin + (wall_now - wall_origin) * rate`. Without a `clock:` section farm time is wall time.
//! Time-outs of sockets, login tokens and real hashing happen in wall time; all that the farm decides by is farm time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roadbed_protocol::{Millis, UnixMillis};
use serde::Deserialize;

/// Longest single sleep towards a farm time: bounds what a clock step of the host can cost.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Farm time for one process. Copied freely; it holds no state.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarmClock {
    /// Farm milliseconds that pass in one wall millisecond; finite and above zero.
    pub rate: f64,
    /// Farm time at the wall time `wall_origin_ms`.
    pub farm_origin_ms: i64,
    /// Wall time, Unix milliseconds, at which the farm's clock showed `farm_origin_ms`.
    pub wall_origin_ms: i64,
}

impl Default for FarmClock {
    fn default() -> Self {
        Self { rate: 1.0, farm_origin_ms: 0, wall_origin_ms: 0 }
    }
}

impl FarmClock {
    /// A clock that shows `farm` now and runs `rate` times as fast as the wall's.
    #[must_use]
    pub fn starting_at(farm: UnixMillis, rate: f64) -> Self {
        Self { rate, farm_origin_ms: farm.0, wall_origin_ms: wall_millis() }
    }

    /// Farm time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.at_wall(wall_millis())
    }

    /// Farm time when the wall's clock shows `wall_ms`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "spans of years in milliseconds stay far below 2^52"
    )]
    pub fn at_wall(&self, wall_ms: i64) -> UnixMillis {
        let elapsed = (wall_ms - self.wall_origin_ms) as f64 * self.rate;
        UnixMillis(self.farm_origin_ms.saturating_add(elapsed as i64))
    }

    /// Wall time that must pass until the farm's clock shows `farm`; zero when it is past.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "spans of years in milliseconds stay far below 2^52"
    )]
    pub fn wall_until(&self, farm: UnixMillis) -> Duration {
        let Millis(span) = farm.since(self.now());
        Duration::try_from_secs_f64(span as f64 / self.rate / 1_000.0).unwrap_or(LONGEST_SLEEP)
    }

    /// Returns when the farm's clock shows `farm` or later.
    pub async fn sleep_until(&self, farm: UnixMillis) {
        while self.now() < farm {
            let left = self.wall_until(farm).max(Duration::from_millis(1));
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}

/// Wall time in Unix milliseconds.
fn wall_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farm_time_runs_at_its_rate() {
        let clock = FarmClock { rate: 288.0, farm_origin_ms: 1_000_000, wall_origin_ms: 5_000 };
        assert_eq!(clock.at_wall(5_000), UnixMillis(1_000_000));
        assert_eq!(clock.at_wall(6_000), UnixMillis(1_288_000));
        assert_eq!(clock.wall_until(UnixMillis(0)), Duration::ZERO);
    }

    #[test]
    fn without_a_section_farm_time_is_wall_time() {
        let wall = wall_millis();
        assert_eq!(FarmClock::default().at_wall(wall), UnixMillis(wall));
    }
}
