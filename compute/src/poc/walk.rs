//! Nonces of a DECODE round on their way: a prefill each, then steps of all of them side by side.
//!
//! A walk takes as many forward passes as it has steps, and an engine has other work. So it is a value: whoever walks it
//! makes one pass at a time ([`super::Prover::walk_on`]) and may chat in between. What he may not do is prove or replay
//! anything else on that engine, because the keys and values of the steps lie where these put theirs.

use super::artifact::Artifact;
use super::codebook::Codebook;
use super::inputs::InputStreams;
use super::seed::Identity;
use super::steps::{ForcedExperts, NonceSteps};
use super::trajectory::Comparison;

/// See the module head.
pub struct Walks {
    /// Every nonce that was asked for, and whether it is walked: a claim of the wrong length is not.
    asked: Vec<(u32, bool)>,
    /// The nonces that are walked.
    pub(super) nonces: Vec<u32>,
    walks: Vec<Walk>,
    /// What is claimed for each of them, if anything.
    claims: Option<Vec<Vec<u8>>>,
    /// Nonces whose prefill is done.
    pub(super) prefilled: usize,
    /// The last step that was done; 0 is the prefill.
    pub(super) step: usize,
}

/// What the nonces of a round have in common.
pub(super) struct Ground<'r> {
    pub identity: &'r Identity,
    pub layers: usize,
    /// Experts of a layer, where there are any.
    pub experts: Option<u32>,
}

impl Walks {
    /// Of nonces, each once.
    pub(super) fn new(ground: &Ground<'_>, nonces: &[u32]) -> Self {
        let asked = nonces.iter().map(|&nonce| (nonce, true)).collect();
        Self::over(ground, asked, nonces.to_vec(), None)
    }

    /// Along what is claimed for them, where that is `length` points.
    pub(super) fn comparing(ground: &Ground<'_>, claimed: &[(u32, &[u8])], length: usize) -> Self {
        let is_sound = |points: &[u8]| points.len() == length;
        let asked = claimed.iter().map(|(nonce, points)| (*nonce, is_sound(points))).collect();
        let sound = claimed.iter().filter(|(_, points)| is_sound(points));
        let (nonces, claims) = sound.map(|(nonce, points)| (*nonce, points.to_vec())).unzip();
        Self::over(ground, asked, nonces, Some(claims))
    }

    fn over(
        ground: &Ground<'_>,
        asked: Vec<(u32, bool)>,
        nonces: Vec<u32>,
        claims: Option<Vec<Vec<u8>>>,
    ) -> Self {
        let walk = |&nonce: &u32| Walk::new(ground, nonce, claims.is_some());
        let walks = nonces.iter().map(walk).collect();
        Self { asked, nonces, walks, claims, prefilled: 0, step: 0 }
    }

    /// Every nonce that was asked for, in order.
    pub fn asked(&self) -> impl Iterator<Item = u32> + '_ {
        self.asked.iter().map(|(nonce, _)| *nonce)
    }

    /// The next `most` nonces that wait for their prefill.
    pub(super) fn next_prefill(&self, most: usize) -> &[u32] {
        let end = self.nonces.len().min(self.prefilled + most);
        &self.nonces[self.prefilled..end]
    }

    /// The first of the experts that the rows of a step meet, for `count` nonces from `first` on; empty without experts.
    pub(super) fn experts(&self, first: usize, count: usize, step: usize) -> Vec<Vec<u32>> {
        let walks = self.walks[first..first + count].iter();
        walks.filter_map(|walk| Some(walk.experts.as_ref()?.firsts(step as u32))).collect()
    }

    /// The input rows of the next step, one a nonce.
    pub(super) fn rows(&self, hidden: u32) -> Vec<InputStreams> {
        // The tokens of a scheme fit a context, so a step fits 32 bits.
        let step = self.step as u32 + 1;
        self.walks.iter().map(|walk| walk.seeds.input(step, walk.before, hidden)).collect()
    }

    /// Takes the hidden states of the next prefills.
    pub(super) fn prefills(&mut self, codebook: &Codebook, width: u32, hidden: &[Vec<f32>]) {
        for hidden in hidden {
            let number = self.prefilled;
            let picked = self.walks[number].seeds.first_pick(width);
            let claimed = self.claim(number, 0);
            self.walks[number].take(codebook, &picked, hidden, claimed);
            self.prefilled += 1;
        }
    }

    /// Takes the hidden states of the next step.
    pub(super) fn steps(&mut self, codebook: &Codebook, width: u32, hidden: &[Vec<f32>]) {
        self.step += 1;
        for (number, hidden) in hidden.iter().enumerate() {
            let claimed = self.claim(number, self.step);
            let walk = &mut self.walks[number];
            let picked = walk.seeds.pick(self.step as u32, walk.before, width);
            walk.take(codebook, &picked, hidden, claimed);
        }
    }

    fn claim(&self, number: usize, step: usize) -> Option<u8> {
        Some(*self.claims.as_ref()?.get(number)?.get(step)?)
    }

    /// What became of every nonce that was asked for, in order.
    pub(super) fn finish(&mut self) -> Vec<Option<Artifact>> {
        let mut walked = std::mem::take(&mut self.walks).into_iter();
        let artifact = |&(nonce, is_walked): &(u32, bool)| match is_walked {
            true => walked.next().and_then(|walk| walk.finish(nonce)),
            false => Some(Artifact::of_trajectory(nonce, vec![], Some(Comparison::MALFORMED))),
        };
        self.asked.iter().map(artifact).collect()
    }
}

/// One nonce under way.
struct Walk {
    seeds: NonceSteps,
    experts: Option<ForcedExperts>,
    points: Vec<u8>,
    /// The point that the next step goes on from: its own, or the claimed one.
    before: u8,
    comparison: Option<Comparison>,
    /// A hidden state was no number: a fault of ours, for which nobody is accused.
    lost: bool,
}

impl Walk {
    fn new(ground: &Ground<'_>, nonce: u32, compares: bool) -> Self {
        let Ground { identity, layers, experts } = ground;
        Self {
            seeds: NonceSteps::new(identity, nonce),
            experts: experts.map(|count| ForcedExperts::new(identity, nonce, *layers, count)),
            points: vec![],
            before: 0,
            comparison: compares.then(Comparison::default),
            lost: false,
        }
    }

    /// Snaps a step's hidden state. One that is lost is stepped on beside the others and dropped in the end.
    fn take(&mut self, codebook: &Codebook, picked: &[usize], hidden: &[f32], claimed: Option<u8>) {
        let query: Vec<f64> = picked.iter().map(|&index| f64::from(hidden[index])).collect();
        let Some(snap) = codebook.snap(&query).filter(|_| hidden.iter().all(|v| !v.is_nan()))
        else {
            self.lost = true;
            return;
        };
        self.points.push(snap.point);
        if let (Some(comparison), Some(claimed)) = (&mut self.comparison, claimed) {
            comparison.take(&snap, claimed);
        }
        self.before = claimed.unwrap_or(snap.point);
    }

    fn finish(self, nonce: u32) -> Option<Artifact> {
        (!self.lost).then(|| Artifact::of_trajectory(nonce, self.points, self.comparison))
    }
}
