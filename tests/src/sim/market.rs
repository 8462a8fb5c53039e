//! Prices of a seeded day: a slow wave, noise, and spikes that make everything sleep.

use farm_core::forecast::{PricePoint, PriceSeries};
use roadbed_protocol::{MicrosPerMwh, Millis, UnixMillis};

use super::dice::Dice;

/// Length of a price step.
pub const STEP: Millis = Millis::from_mins(15);

/// Prices from `from` on for `count` steps.
#[must_use]
pub fn prices(seed: u64, from: UnixMillis, count: u64) -> PriceSeries {
    let mut dice = Dice::new(seed, "market", 0);
    let mut level = dice.between(15, 60) as i64;
    let mut spike = 0_u64;
    let points = (0..count)
        .map(|index| {
            level = (level + dice.between(0, 16) as i64 - 8).clamp(-20, 90);
            if spike == 0 && dice.chance(60) {
                spike = dice.between(1, 4);
            }
            let price = if spike > 0 { level + dice.between(150, 3_000) as i64 } else { level };
            spike = spike.saturating_sub(1);
            PricePoint { at: from + Millis(STEP.0 * index), price: MicrosPerMwh(price * 1_000_000) }
        })
        .collect();
    PriceSeries::new(points, STEP)
}
