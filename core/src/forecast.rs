//! Price points to slots: a step series, cut into equal pieces, with the quality of each figure kept.
//!
//! A price stands until the next point. After the last point's `step` nothing is known: for a while the last price is
//! held (and called so), then the slot has no price and the policy's static rule applies.

use std::collections::{BTreeMap, BTreeSet};

use roadbed_protocol::{MicrosPerMwh, Millis, UnixMillis};

use crate::plan::{Note, NoteKind};
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

/// How much a slot's price is worth; the last is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        let sorted: BTreeMap<_, _> =
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

    /// `count` slots of `length` from the one that holds `now`, the first cut at `now`. Each of `cuts` (the start or end
    /// of an order, a window, a promise) inside the horizon splits its slot, so that a plan can change exactly there; at
    /// most [`CUTS_MAX`] are used.
    #[must_use]
    pub fn slots(
        &self,
        now: UnixMillis,
        length: Millis,
        count: usize,
        cuts: &[UnixMillis],
        rules: &PolicyRules,
    ) -> (Vec<Slot>, Vec<Note>) {
        let first = now.floor_to(length);
        let regular = (0..=count as u64).map(|index| first + Millis(length.0.max(1) * index));
        let mut edges: BTreeSet<UnixMillis> = regular.collect();
        let end = edges.last().copied().unwrap_or(now);
        let inside: BTreeSet<_> = cuts.iter().filter(|cut| **cut > now && **cut < end).collect();
        edges.extend(inside.into_iter().take(CUTS_MAX));
        edges.insert(now);
        let edges: Vec<_> = edges.into_iter().filter(|edge| *edge >= now).collect();
        let slots: Vec<_> =
            edges.windows(2).map(|pair| self.slot(pair[0], pair[1], rules)).collect();
        let notes = notes(&slots);
        (slots, notes)
    }

    /// The slot from `start` to `end`; its quality is that of its worst part.
    fn slot(&self, start: UnixMillis, end: UnixMillis, rules: &PolicyRules) -> Slot {
        let (mut at, mut weighted, mut worst) = (start, 0_i128, PriceQuality::Known);
        while at < end {
            let (price, quality) = self.at(at, rules);
            let until = self.next_change(at, rules).map_or(end, |change| change.min(end));
            weighted += i128::from(price.0) * i128::from(until.since(at).0);
            worst = worst.max(quality);
            at = until;
        }
        let length = end.since(start);
        let mean = weighted / i128::from(length.0.max(1));
        let price = match worst {
            PriceQuality::Known | PriceQuality::Held => {
                MicrosPerMwh(i64::try_from(mean).unwrap_or(i64::MAX))
            }
            PriceQuality::Missing => MicrosPerMwh::ZERO,
        };
        Slot { start, length, price, quality: worst }
    }

    /// The first moment after `at` from which [`PriceSeries::at`] may answer something else.
    fn next_change(&self, at: UnixMillis, rules: &PolicyRules) -> Option<UnixMillis> {
        let after = self.points.partition_point(|point| point.at <= at);
        let end = self.end();
        let hold_end = end.map(|end| end + rules.price_hold);
        [self.points.get(after).map(|point| point.at), end, hold_end]
            .into_iter()
            .flatten()
            .find(|change| *change > at)
    }
}

/// Cuts used beside the regular slots; a day with more orders than this is planned on the regular grid.
pub const CUTS_MAX: usize = 64;

fn notes(slots: &[Slot]) -> Vec<Note> {
    let first = |quality| slots.iter().find(|slot| slot.quality == quality);
    let held = first(PriceQuality::Held)
        .map(|slot| format!("no price is known from {} on; {} is held", slot.start, slot.price));
    let missing = first(PriceQuality::Missing)
        .map(|slot| format!("no price from {} on; the policy's rule applies", slot.start));
    [held, missing]
        .into_iter()
        .flatten()
        .map(|text| Note { kind: NoteKind::Price, rig: None, text })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = Millis::from_hours(1);

    fn hour(index: u64) -> UnixMillis {
        UnixMillis(0) + Millis::from_hours(index)
    }

    fn series(prices: &[i64]) -> PriceSeries {
        let points = prices.iter().enumerate().map(|(index, price)| PricePoint {
            at: hour(index as u64),
            price: MicrosPerMwh(*price),
        });
        PriceSeries::new(points.rev().collect(), HOUR)
    }

    fn seen(slots: &[Slot]) -> Vec<(i64, u64, i64, PriceQuality)> {
        slots
            .iter()
            .map(|slot| (slot.start.0 / 60_000, slot.length.0 / 60_000, slot.price.0, slot.quality))
            .collect()
    }

    #[test]
    fn the_first_slot_is_the_rest_of_one() {
        let rules = PolicyRules { price_hold: HOUR, ..PolicyRules::default() };
        let now = UnixMillis(0) + Millis::from_mins(40);
        let (slots, notes) = series(&[10, 20]).slots(now, HOUR, 4, &[], &rules);
        assert_eq!(
            seen(&slots),
            vec![
                (40, 20, 10, PriceQuality::Known),
                (60, 60, 20, PriceQuality::Known),
                (120, 60, 20, PriceQuality::Held),
                (180, 60, 0, PriceQuality::Missing),
            ]
        );
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn a_price_within_a_slot_is_weighted_by_time() {
        let rules = PolicyRules::default();
        let long = Millis::from_hours(2);
        let (slots, _) = series(&[10, 30]).slots(hour(0), long, 1, &[], &rules);
        assert_eq!(seen(&slots), vec![(0, 120, 20, PriceQuality::Known)]);
    }

    #[test]
    fn cuts_split_slots_and_nothing_else() {
        let rules = PolicyRules::default();
        let cuts = [hour(0), hour(1) + Millis::from_mins(10), hour(9)];
        let (slots, _) = series(&[1, 2]).slots(hour(0), HOUR, 2, &cuts, &rules);
        let starts: Vec<_> = seen(&slots).iter().map(|slot| (slot.0, slot.1)).collect();
        assert_eq!(starts, vec![(0, 60), (60, 10), (70, 50)]);
    }

    #[test]
    fn nothing_known_is_missing_not_free() {
        let (slots, notes) =
            PriceSeries::default().slots(hour(3), HOUR, 2, &[], &PolicyRules::default());
        assert!(slots.iter().all(|slot| slot.quality == PriceQuality::Missing));
        assert_eq!((slots.len(), notes.len()), (2, 1));
    }
}
