//! The operator's intent as values: how reluctant to switch, how much power when, what price is too much.
//!
//! The YAML of a policy is read by the controller's config edge; here it is already valid by type.

use roadbed_protocol::{FeederId, MicrosPerMwh, Millis, UnixMillis, Watts, WorkloadKind};

/// Minutes in a day.
pub const MINUTES_PER_DAY: u16 = 1_440;

/// Rules the planner, the guard and the farm machine obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRules {
    /// A switch must win back its cost by this much more, in percent of the cost.
    pub hysteresis_percent: u32,
    /// A rig stays with a workload at least this long, unless a cap, an order or a commitment says otherwise.
    pub min_dwell: Millis,
    /// Above its price a kind of workload is not run, whatever it earns.
    pub price_limits: Vec<PriceLimit>,
    /// Power caps by time of day.
    pub curtail_windows: Vec<CurtailWindow>,
    /// Whether an order or a window may break a Proof of Compute commitment.
    pub curtailment_breaks_poc: bool,
    /// Whether a commitment is kept although breaking it, with its penalty, would cost less.
    pub keep_losing_commitments: bool,
    /// What a rig does in slots without a price.
    pub without_price: WithoutPrice,
    /// How long the last known price may stand in for a missing one.
    pub price_hold: Millis,
    /// How long a feeder may be above its limit before it counts as a breach.
    pub overload_grace: Millis,
}

/// A price above which a kind of workload is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceLimit {
    /// The kind limited.
    pub kind: WorkloadKind,
    /// Highest price at which it may run.
    pub price: MicrosPerMwh,
}

/// A power cap that returns every day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurtailWindow {
    /// Name, for reasons.
    pub name: String,
    /// First minute of the UTC day.
    pub from_minute: u16,
    /// First minute after it; smaller than `from_minute` when the window spans midnight.
    pub until_minute: u16,
    /// The feeder capped.
    pub feeder: FeederId,
    /// Power allowed under it meanwhile.
    pub limit: Watts,
}

/// What a rig does in a slot whose price nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutPrice {
    /// Flexible work sleeps; commitments and holds go on.
    Curtail,
    /// Whatever ran goes on; nothing else starts.
    Keep,
}

impl Default for PolicyRules {
    /// The reluctance of the reference back-test (hysteresis 15 %), and the safe side of every choice.
    fn default() -> Self {
        Self {
            hysteresis_percent: 15,
            min_dwell: Millis::from_mins(30),
            price_limits: Vec::new(),
            curtail_windows: Vec::new(),
            curtailment_breaks_poc: false,
            keep_losing_commitments: true,
            without_price: WithoutPrice::Curtail,
            price_hold: Millis::from_hours(2),
            overload_grace: Millis::from_mins(1),
        }
    }
}

impl PolicyRules {
    /// The highest price at which `kind` may run, if the policy names one.
    #[must_use]
    pub fn price_limit(&self, kind: WorkloadKind) -> Option<MicrosPerMwh> {
        self.price_limits.iter().filter(|limit| limit.kind == kind).map(|limit| limit.price).min()
    }
}

impl CurtailWindow {
    /// True when the window covers any part of `[from, from + length)`.
    #[must_use]
    pub fn overlaps(&self, from: UnixMillis, length: Millis) -> bool {
        const MINUTE_MILLIS: i64 = 60_000;
        let first = from.0.div_euclid(MINUTE_MILLIS);
        let last = (from + length).0.saturating_sub(1).div_euclid(MINUTE_MILLIS).max(first);
        if last - first >= i64::from(MINUTES_PER_DAY) {
            return true;
        }
        (first..=last).any(|minute| self.covers(minute.rem_euclid(i64::from(MINUTES_PER_DAY))))
    }

    fn covers(&self, minute: i64) -> bool {
        let (from, until) = (i64::from(self.from_minute), i64::from(self.until_minute));
        if from <= until {
            (from..until).contains(&minute)
        } else {
            minute >= from || minute < until
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_minute: u16, until_minute: u16) -> CurtailWindow {
        CurtailWindow {
            name: "evening".into(),
            from_minute,
            until_minute,
            feeder: FeederId::new("site").unwrap(),
            limit: Watts(1),
        }
    }

    #[test]
    fn a_window_may_span_midnight() {
        let night = window(1_380, 60);
        let hour = Millis::from_hours(1);
        let at = |hours: u64| UnixMillis(0) + Millis::from_hours(hours);
        assert!(night.overlaps(at(23), hour));
        assert!(night.overlaps(at(24), hour));
        assert!(!night.overlaps(at(1), hour));
        assert!(!night.overlaps(at(22), hour));
        assert!(night.overlaps(at(22) + Millis::from_mins(1), hour));
    }

    #[test]
    fn the_lowest_limit_of_a_kind_counts() {
        let limit = |price| PriceLimit { kind: WorkloadKind::Mine, price: MicrosPerMwh(price) };
        let rules = PolicyRules { price_limits: vec![limit(7), limit(5)], ..Default::default() };
        assert_eq!(rules.price_limit(WorkloadKind::Mine), Some(MicrosPerMwh(5)));
        assert_eq!(rules.price_limit(WorkloadKind::Serve), None);
    }
}
