//! Seeded dice, a stream of its own for every kind of chance and every rig, so that adding one kind of fault does not
//! shift all the others.

/// One stream of chance: `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The stream of `kind` number `index` under `seed`.
    #[must_use]
    pub fn new(seed: u64, kind: &str, index: usize) -> Self {
        // FNV-1a over the name: any mixing will do, the generator mixes again.
        let name = kind.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut dice = Self { state: seed ^ name.rotate_left(17) ^ (index as u64).rotate_left(41) };
        dice.roll();
        dice
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high.saturating_sub(low) + 1)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.roll() % 1_000 < per_mille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_their_own_and_repeat() {
        let roll = |kind, index| Dice::new(7, kind, index).roll();
        assert_eq!(roll("crash", 1), roll("crash", 1));
        assert_ne!(roll("crash", 1), roll("crash", 2));
        assert_ne!(roll("crash", 1), roll("hang", 1));
        let mut dice = Dice::new(1, "x", 0);
        assert!((0..1_000).all(|_| (3..=5).contains(&dice.between(3, 5))));
        let hits = (0..100_000).filter(|_| dice.chance(100)).count();
        assert!((9_000..11_000).contains(&hits), "{hits}");
    }
}
