//! Series for tariffs that need no feed: one price, or one per time of the day.

use farm_core::forecast::{PricePoint, PriceSeries};
use roadbed_protocol::{MicrosPerMwh, Millis, UnixMillis};

use crate::config::{DayTime, local_midnight};

/// How far a tariff is written out: beyond the longest horizon a policy may ask for (a week).
const DAYS_AHEAD: u64 = 9;
/// How far back: reports of an agent that was offline are priced too.
const DAYS_BACK: u64 = 3;

/// One price, from the day before yesterday until beyond any horizon.
#[must_use]
pub fn fixed_series(price: MicrosPerMwh, now: UnixMillis) -> PriceSeries {
    let from = local_midnight(now, 0) - Millis::from_hours(24 * DAYS_BACK);
    PriceSeries::new(
        vec![PricePoint { at: from, price }],
        Millis::from_hours(24 * (DAYS_BACK + DAYS_AHEAD)),
    )
}

/// Prices by time of the site's day.
#[must_use]
pub fn daily_series(
    steps: &[(DayTime, MicrosPerMwh)],
    adder: MicrosPerMwh,
    offset_minutes: i16,
    now: UnixMillis,
) -> PriceSeries {
    let first = local_midnight(now, offset_minutes) - Millis::from_hours(24 * DAYS_BACK);
    let days = (0..DAYS_BACK + DAYS_AHEAD).map(|day| first + Millis::from_hours(24 * day));
    let points = days.flat_map(|midnight| {
        steps.iter().map(move |(from, price)| PricePoint {
            at: midnight + Millis::from_mins(u64::from(from.0)),
            price: *price + adder,
        })
    });
    PriceSeries::new(points.collect(), Millis::from_hours(24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use farm_core::policy::PolicyRules;

    #[test]
    fn a_day_repeats_on_the_sites_clock() {
        let price = |value| MicrosPerMwh(value);
        let steps = [(DayTime(0), price(10)), (DayTime(7 * 60), price(30))];
        let now = "2021-10-25T06:59:00-05:00".parse::<crate::config::Moment>().unwrap().0;
        let series = daily_series(&steps, price(1), -300, now);
        let slots = series
            .slots(now, Millis::from_hours(1), 30, &[], &PolicyRules::default())
            .0
            .into_iter()
            .map(|slot| slot.price.0)
            .collect::<Vec<_>>();
        assert_eq!(slots[0], 11);
        assert_eq!(slots[1], 31);
        assert_eq!(slots[18], 11);
        assert_eq!(slots[25], 31);
    }

    #[test]
    fn one_price_is_known_over_any_horizon() {
        let now = UnixMillis(1_000_000_000_000);
        let (slots, notes) = fixed_series(MicrosPerMwh(5), now).slots(
            now,
            Millis::from_hours(1),
            168,
            &[],
            &PolicyRules::default(),
        );
        assert!(slots.iter().all(|slot| slot.price == MicrosPerMwh(5)));
        assert!(notes.is_empty());
    }
}
