//! Farm time: what everything that decides goes by.
//!
//! `farm_now = farm_origin + (wall_now - wall_origin) * rate`. A real farm runs at rate 1 from the epoch, so farm time is
//! wall time; the demo gives every process the same origin and a faster rate (ADR 0003).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roadbed_protocol::{Millis, UnixMillis};
use serde::{Deserialize, Serialize};

/// Fastest clock accepted: a day in a second. Above it no message could arrive within its lease.
pub const RATE_MAX: f64 = 86_400.0;

/// Farm time for one process. Copied freely; it holds no state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarmClock {
    /// Farm milliseconds that pass in one wall millisecond.
    pub rate: f64,
    /// What the farm's clock showed at `wall_origin_ms`.
    pub farm_origin_ms: i64,
    /// Wall time, Unix milliseconds, of that moment.
    pub wall_origin_ms: i64,
}

impl Default for FarmClock {
    fn default() -> Self {
        Self { rate: 1.0, farm_origin_ms: 0, wall_origin_ms: 0 }
    }
}

impl FarmClock {
    /// Whether the rate can drive a farm.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.rate.is_finite() && self.rate > 0.0 && self.rate <= RATE_MAX
    }

    /// Farm time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.at_wall(wall_now())
    }

    /// Farm time when the wall's clock shows `wall`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "spans of years in milliseconds stay far below 2^52"
    )]
    pub fn at_wall(&self, wall: UnixMillis) -> UnixMillis {
        let elapsed = wall.0.saturating_sub(self.wall_origin_ms) as f64 * self.rate;
        UnixMillis(self.farm_origin_ms.saturating_add(elapsed as i64))
    }

    /// How long the wall takes for a span of farm time.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "spans in milliseconds stay far below 2^52")]
    pub fn wall_span(&self, span: Millis) -> Duration {
        Duration::try_from_secs_f64(span.0 as f64 / 1_000.0 / self.rate).unwrap_or(Duration::MAX)
    }

    /// How much farm time passes while the wall counts `span`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rate and span are positive, and the product stays far below 2^52"
    )]
    pub fn farm_span(&self, span: Duration) -> Millis {
        Millis((span.as_secs_f64() * 1_000.0 * self.rate) as u64)
    }
}

/// Wall time now, for login tokens, ages of processes and logs.
#[must_use]
pub fn wall_now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_passes_in_five_minutes() {
        let clock = FarmClock { rate: 288.0, farm_origin_ms: 1_000_000, wall_origin_ms: 5_000 };
        assert_eq!(clock.at_wall(UnixMillis(5_000)), UnixMillis(1_000_000));
        assert_eq!(clock.at_wall(UnixMillis(6_000)), UnixMillis(1_288_000));
        assert_eq!(clock.wall_span(Millis::from_hours(24)), Duration::from_secs(300));
        assert_eq!(clock.farm_span(Duration::from_secs(1)), Millis::from_secs(288));
    }

    #[test]
    fn without_a_section_farm_time_is_wall_time() {
        assert_eq!(FarmClock::default().at_wall(UnixMillis(42)), UnixMillis(42));
        assert!(!FarmClock { rate: f64::NAN, ..FarmClock::default() }.is_usable());
    }
}
