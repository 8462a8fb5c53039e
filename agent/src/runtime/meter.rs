//! From looks at a power figure to samples whose energy is true.
//!
//! A figure holds until the next one. A sample covers a whole span and carries the mean over it, so that the sum of
//! `mean x span` is the energy; what rounding to whole watts leaves over goes into the next sample. Where no figure was
//! known there is no sample: a hole, not a guess. A change of workload ends a sample, so that each has one workload.

use roadbed_protocol::{Millis, PowerReading, UnixMillis, Workload};

/// A sample without what only its end can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeteredSpan {
    /// Its end.
    pub at: UnixMillis,
    /// Its length.
    pub span: Millis,
    /// Mean power, and the weakest source that was used.
    pub power: PowerReading,
    /// What ran.
    pub workload: Option<Workload>,
}

/// Sums power over time.
#[derive(Debug)]
pub struct Meter {
    interval: Millis,
    open: Option<OpenSpan>,
    /// Watt-milliseconds that earlier samples said too little (or too much, below zero).
    carry: i128,
}

#[derive(Debug)]
struct OpenSpan {
    since: UnixMillis,
    seen_at: UnixMillis,
    now: PowerReading,
    weakest: PowerReading,
    energy: i128,
    workload: Option<Workload>,
}

impl Meter {
    /// A meter that closes a sample each `interval`.
    #[must_use]
    pub const fn new(interval: Millis) -> Self {
        Self { interval, open: None, carry: 0 }
    }

    /// Takes a look and gives the sample that is complete with it, if one is.
    pub fn observe(
        &mut self,
        now: UnixMillis,
        power: Option<PowerReading>,
        workload: Option<&Workload>,
    ) -> Option<MeteredSpan> {
        if let Some(open) = &mut self.open {
            open.advance(now);
            if let Some(power) = power {
                open.now = power;
                if power.source > open.weakest.source {
                    open.weakest = power;
                }
            }
        }
        let complete = self.open.as_ref().is_some_and(|open| {
            power.is_none()
                || open.workload.as_ref() != workload
                || now.since(open.since) >= self.interval
        });
        let closed = if complete { self.close() } else { None };
        if self.open.is_none()
            && let Some(power) = power
        {
            self.open = Some(OpenSpan {
                since: now,
                seen_at: now,
                now: power,
                weakest: power,
                energy: 0,
                workload: workload.cloned(),
            });
        }
        closed
    }

    /// Ends the open sample where it was last looked at.
    pub fn close(&mut self) -> Option<MeteredSpan> {
        let open = self.open.take()?;
        let span = open.seen_at.since(open.since);
        if span == Millis::ZERO {
            return None;
        }
        let length = i128::from(span.0);
        let energy = open.energy + self.carry;
        let watts = u64::try_from((energy + length / 2).div_euclid(length)).unwrap_or(0);
        self.carry = energy - i128::from(watts) * length;
        Some(MeteredSpan {
            at: open.seen_at,
            span,
            power: PowerReading {
                watts: roadbed_protocol::Watts(watts),
                source: open.weakest.source,
            },
            workload: open.workload,
        })
    }
}

impl OpenSpan {
    fn advance(&mut self, now: UnixMillis) {
        let passed = now.since(self.seen_at);
        self.energy += i128::try_from(self.now.watts.over(passed).0).unwrap_or(i128::MAX);
        self.seen_at = self.seen_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roadbed_protocol::{PowerSource, Watts};

    use super::*;

    fn power(watts: u64) -> Option<PowerReading> {
        Some(PowerReading { watts: Watts(watts), source: PowerSource::Firmware })
    }

    #[test]
    fn a_change_of_workload_ends_a_sample() {
        let mut meter = Meter::new(Millis(1_000));
        let mine = Workload::Mine { power_target: None };
        assert_eq!(meter.observe(UnixMillis(0), power(100), None), None);
        let idle = meter.observe(UnixMillis(400), power(900), Some(&mine)).unwrap();
        assert_eq!(
            (idle.at, idle.span, idle.power.watts),
            (UnixMillis(400), Millis(400), Watts(100))
        );
        let mining = meter.observe(UnixMillis(1_400), power(900), Some(&mine)).unwrap();
        assert_eq!((mining.workload, mining.power.watts), (Some(mine), Watts(900)));
    }

    #[test]
    fn the_unknown_is_a_hole() {
        let mut meter = Meter::new(Millis(1_000));
        assert_eq!(meter.observe(UnixMillis(0), None, None), None);
        meter.observe(UnixMillis(500), power(10), None);
        let known = meter.observe(UnixMillis(700), None, None).unwrap();
        assert_eq!((known.at, known.span), (UnixMillis(700), Millis(200)));
        assert_eq!(meter.observe(UnixMillis(5_000), power(10), None), None);
        assert_eq!(meter.close(), None);
    }

    #[test]
    fn the_weakest_source_is_named() {
        let mut meter = Meter::new(Millis(1_000));
        meter.observe(UnixMillis(0), power(10), None);
        let guess = PowerReading { watts: Watts(10), source: PowerSource::Profile };
        meter.observe(UnixMillis(10), Some(guess), None);
        let sample = meter.observe(UnixMillis(1_000), power(10), None).unwrap();
        assert_eq!(sample.power.source, PowerSource::Profile);
    }

    proptest! {
        #[test]
        fn energy_is_kept_to_half_a_watt_of_one_span(
            looks in proptest::collection::vec((1_u64..5_000, 0_u64..4_000), 2..60)
        ) {
            let mut meter = Meter::new(Millis(3_000));
            let (mut now, mut true_energy, mut told, mut longest) = (UnixMillis(0), 0_i128, 0_i128, 1);
            let mut held = looks[0].1;
            let mut samples = Vec::from_iter(meter.observe(now, power(held), None));
            for (gap, watts) in &looks {
                true_energy += i128::from(held) * i128::from(*gap);
                now = now + Millis(*gap);
                held = *watts;
                samples.extend(meter.observe(now, power(held), None));
            }
            samples.extend(meter.close());
            for sample in &samples {
                told += i128::from(sample.power.watts.0) * i128::from(sample.span.0);
                longest = longest.max(sample.span.0);
            }
            prop_assert!((told - true_energy).abs() <= i128::from(longest));
        }
    }
}
