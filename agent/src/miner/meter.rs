//! The true hashrate: hashes counted, not shares guessed.

use std::collections::VecDeque;

use roadbed_protocol::{HashesPerSecond, Millis};

/// Span of the mean: long enough to be calm, short enough that a stopped miner shows zero soon.
const WINDOW: Millis = Millis::from_secs(10);

/// A window over a counter that rises.
#[derive(Debug, Default)]
pub struct HashMeter {
    samples: VecDeque<(Millis, u64)>,
}

impl HashMeter {
    /// Takes the counter at `now` and gives the mean rate over the window.
    pub fn sample(&mut self, now: Millis, hashes: u64) -> HashesPerSecond {
        while self.samples.len() > 1
            && self.samples.get(1).is_some_and(|(at, _)| at.0 + WINDOW.0 <= now.0)
        {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0, |(at, before)| {
            let span = u128::from(now.0.saturating_sub(at.0).max(1));
            u128::from(hashes.saturating_sub(*before)) * 1_000 / span
        });
        self.samples.push_back((now, hashes));
        HashesPerSecond(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_counter_and_falls_to_zero() {
        let mut meter = HashMeter::default();
        let mut rate = HashesPerSecond(0);
        for second in 0..30 {
            rate = meter.sample(Millis(second * 1_000), second * 5_000);
        }
        assert_eq!(rate, HashesPerSecond(5_000));
        for second in 30..45 {
            rate = meter.sample(Millis(second * 1_000), 29 * 5_000);
        }
        assert_eq!(rate, HashesPerSecond(0));
        assert!(meter.samples.len() < 20);
    }
}
