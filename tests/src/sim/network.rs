//! The network between the controller and one agent: late, lost, twice, out of order, or not at all.

use roadbed_protocol::{Millis, UnixMillis};

use super::dice::Dice;

/// Chances of a bad network, in a thousand messages.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Messages lost.
    pub lost: u64,
    /// Messages delivered twice.
    pub twice: u64,
    /// Messages that take up to half a minute, and so overtake one another.
    pub slow: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self { lost: 0, twice: 0, slow: 0 };
    /// Much goes wrong.
    pub const FOUL: Self = Self { lost: 60, twice: 60, slow: 40 };
}

/// One agent's way to the controller.
#[derive(Debug)]
pub struct Network {
    dice: Dice,
    /// No message passes before this.
    cut_until: UnixMillis,
}

impl Network {
    /// The network of agent number `index`.
    #[must_use]
    pub fn new(seed: u64, index: usize) -> Self {
        Self { dice: Dice::new(seed, "network", index), cut_until: UnixMillis(i64::MIN) }
    }

    /// Cuts the wire for a while.
    pub fn cut(&mut self, until: UnixMillis) {
        self.cut_until = until;
    }

    /// True while the wire is cut.
    #[must_use]
    pub fn is_cut(&self, now: UnixMillis) -> bool {
        now < self.cut_until
    }

    /// After which spans a message sent now arrives; none when it is lost.
    pub fn carry(&mut self, now: UnixMillis, weather: Weather) -> Vec<Millis> {
        if self.is_cut(now) || self.dice.chance(weather.lost) {
            return Vec::new();
        }
        let copies = if self.dice.chance(weather.twice) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let slowest = if self.dice.chance(weather.slow) { 30_000 } else { 400 };
                Millis(self.dice.between(5, slowest))
            })
            .collect()
    }
}
