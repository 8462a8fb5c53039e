//! A difficulty for each miner, so that its shares come at a wanted pace.

/// Times by which one job may change the difficulty: pools that jump further lose the shares under way.
const STEP_MAX: f64 = 4.0;

/// Shares that must be due before the difficulty is moved: a job that comes soon after another says little.
const DUE_MIN: f64 = 4.0;

/// Counts a connection's shares between two jobs.
#[derive(Debug, Clone, Copy)]
pub struct Vardiff {
    /// Wall seconds between two shares that are aimed at.
    pub seconds_per_share: f64,
    /// In force for the next job.
    pub difficulty: f64,
    shares: u32,
    seconds: f64,
}

impl Vardiff {
    /// Begins at `difficulty`.
    #[must_use]
    pub const fn new(seconds_per_share: f64, difficulty: f64) -> Self {
        Self { seconds_per_share, difficulty, shares: 0, seconds: 0.0 }
    }

    /// A share was accepted.
    pub const fn share(&mut self) {
        self.shares = self.shares.saturating_add(1);
    }

    /// `seconds` have passed since the last call: the difficulty of the next job.
    pub fn next(&mut self, seconds: f64) -> f64 {
        self.seconds += seconds;
        let due = self.seconds / self.seconds_per_share;
        if due < DUE_MIN {
            return self.difficulty;
        }
        self.seconds = 0.0;
        let step =
            (f64::from(std::mem::take(&mut self.shares)) / due).clamp(1.0 / STEP_MAX, STEP_MAX);
        self.difficulty *= step;
        self.difficulty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difficulty_goes_to_where_shares_come_at_the_wanted_pace() {
        let mut vardiff = Vardiff::new(2.0, 1.0);
        // Seven shares a second at difficulty 1.
        for _ in 0..20 {
            let shares = (7.0 * 10.0 / vardiff.difficulty).round() as u32;
            (0..shares).for_each(|_| vardiff.share());
            vardiff.next(10.0);
        }
        assert!((vardiff.difficulty - 14.0).abs() < 2.0, "{}", vardiff.difficulty);
        let soon = vardiff.next(0.1);
        assert!(
            (soon - vardiff.difficulty).abs() < 1e-9 && soon > 10.0,
            "too soon to tell: {soon}"
        );
        let silent = vardiff.next(10.0);
        assert!(
            (silent - vardiff.difficulty).abs() < 1e-9 && silent < 4.0,
            "it falls by a step: {silent}"
        );
    }
}
