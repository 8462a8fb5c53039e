//! Trajectories of a DECODE round: what a nonce came to step by step, and what a claimed one is worth.
//!
//! One rounding at one step sends everything behind it elsewhere, so a validator cannot simply compare two lists. It is
//! teacher-forced: each step goes on from the point the *prover* claims for the step before, and every point is held
//! against that claim by how clear the validator's own choice was.

use super::codebook::{MARGIN_OUT_OF_RANGE, Snap};
use super::verdict::{StatTest, Verdict, binomial_tail};

/// A validator's view of one claimed trajectory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Comparison {
    /// Steps compared.
    pub steps: usize,
    /// Of those, steps that disagree.
    pub disagreeing: usize,
    /// Largest claimed margin over the disagreeing steps (`mismatch_margin_max`); 0 when all agree.
    pub claimed_margin_max: f64,
    /// The same with the validator's own margin, as older software takes it.
    pub own_margin_max: f64,
}

impl Comparison {
    /// A claim that is no trajectory of this round: too short, too long.
    pub const MALFORMED: Self = Self {
        steps: 0,
        disagreeing: 0,
        claimed_margin_max: MARGIN_OUT_OF_RANGE,
        own_margin_max: MARGIN_OUT_OF_RANGE,
    };

    /// One more step.
    pub fn take(&mut self, snap: &Snap, claimed: u8) {
        self.steps += 1;
        if snap.point != claimed {
            self.disagreeing += 1;
            self.claimed_margin_max = self.claimed_margin_max.max(snap.claimed_margin(claimed));
            self.own_margin_max = self.own_margin_max.max(snap.own_margin());
        }
    }

    /// The margin that a definition judges by.
    #[must_use]
    pub const fn margin_max(&self, margin: MarginKind) -> f64 {
        match margin {
            MarginKind::Claimed => self.claimed_margin_max,
            MarginKind::Own => self.own_margin_max,
        }
    }
}

/// Which of the two published definitions of a margin judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MarginKind {
    /// Best score minus the score of the claimed point: the newest documents'. The default, because a prover who is off
    /// by much at a step that was close is caught by it.
    #[default]
    Claimed,
    /// Best score minus the second best.
    Own,
}

/// Judges claimed trajectories, `(nonce, comparison)`; `test.dist_threshold` is the margin above which a nonce
/// mismatches (0.025 to 0.05 on the network).
///
/// `None` stands for a nonce that gave no number here: it counts as compared, not as mismatched.
#[must_use]
pub fn judge_trajectories(
    compared: &[(u32, Option<Comparison>)],
    margin: MarginKind,
    test: StatTest,
) -> Verdict {
    let mismatches = |comparison: &Comparison| comparison.margin_max(margin) > test.dist_threshold;
    let mismatch_nonces: Vec<u32> = compared
        .iter()
        .filter(|(_, comparison)| comparison.as_ref().is_some_and(mismatches))
        .map(|(nonce, _)| *nonce)
        .collect();
    let n_total = compared.len();
    let p_value = binomial_tail(n_total as u64, mismatch_nonces.len() as u64, test.p_mismatch);
    Verdict { n_total, mismatch_nonces, p_value, fraud_detected: p_value < test.fraud_threshold }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::codebook::{Codebook, POINTS, SPHERE_DIMS};

    /// A query whose scores are 0.8 at point 3, 0.6 at point 5 and 0 elsewhere.
    fn snap() -> Snap {
        let mut points = vec![0f32; POINTS * SPHERE_DIMS];
        (0..POINTS).for_each(|point| points[point * SPHERE_DIMS + point] = 1.0);
        let mut query = vec![0.0; SPHERE_DIMS];
        (query[3], query[5]) = (0.8, 0.6);
        Codebook::not_the_networks(points).unwrap().snap(&query).unwrap()
    }

    #[test]
    fn only_disagreeing_steps_count_and_by_either_margin() {
        let mut comparison = Comparison::default();
        comparison.take(&snap(), 3);
        assert_eq!((comparison.disagreeing, comparison.claimed_margin_max), (0, 0.0));
        comparison.take(&snap(), 9);
        comparison.take(&snap(), 5);
        assert_eq!((comparison.steps, comparison.disagreeing), (3, 2));
        assert!((comparison.margin_max(MarginKind::Claimed) - 0.8).abs() < 1e-6);
        assert!((comparison.margin_max(MarginKind::Own) - 0.2).abs() < 1e-6);
        comparison.take(&snap(), 200);
        assert_eq!(comparison.margin_max(MarginKind::Claimed), MARGIN_OUT_OF_RANGE);
    }

    #[test]
    fn a_nonce_mismatches_above_the_margin_and_many_are_fraud() {
        let test = StatTest { dist_threshold: 0.05, p_mismatch: 0.1, fraud_threshold: 0.05 };
        let of =
            |margin: f64| Some(Comparison { claimed_margin_max: margin, ..Comparison::default() });
        let honest = [(1, of(0.0)), (2, of(0.05)), (3, None), (4, of(0.051))];
        let verdict = judge_trajectories(&honest, MarginKind::Claimed, test);
        assert_eq!((verdict.n_total, verdict.mismatch_nonces.as_slice()), (4, [4].as_slice()));
        assert!(!verdict.fraud_detected);
        let wrong = [(1, Some(Comparison::MALFORMED)), (2, of(0.3)), (3, None)];
        assert!(judge_trajectories(&wrong, MarginKind::Claimed, test).fraud_detected);
        assert!(!judge_trajectories(&[], MarginKind::Own, test).fraud_detected);
    }
}
