//! Which hidden dimensions a nonce reveals, in the order the network lists them.
//!
//! The `k` smallest hashes win. Their order is an artefact of the CUDA top-k kernel with
//! `sorted=false` and it matters, because the rotation mixes positions: first the `k - 1` strictly
//! smaller ones in ascending *index* order, then the index that holds the k-th smallest
//! (pytorch `aten/src/ATen/native/cuda/TensorTopK.cu`). A CPU top-k returns the same set in
//! another order, and such artifacts fail validation.

use super::seed::Seed;

/// Indices of the `k` picked dimensions of `0..dim`; fewer if `dim < k`.
#[must_use]
pub fn pick(seed: Seed, dim: u32, k: usize) -> Vec<usize> {
    let scores: Vec<u32> = (0..dim).map(|index| seed.hash(index)).collect();
    let k = k.min(scores.len());
    if k == 0 {
        return Vec::new();
    }
    let mut ordered = scores.clone();
    let threshold = *ordered.select_nth_unstable(k - 1).1;
    let below = (0..scores.len()).filter(|&index| scores[index] < threshold);
    // Equal hashes at the threshold are taken in index order until `k` are listed.
    let level = (0..scores.len()).filter(|&index| scores[index] == threshold);
    below.chain(level).take(k).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn picks_match_in_order() {
        for case in vectors::cases("pick.json") {
            let (dim, k) = (vectors::word(&case["dim"]), vectors::count(&case["k"]));
            let nonce = vectors::word(&case["nonce"]);
            let seed = vectors::identity(&case).pick_seed(nonce, k);
            assert_eq!(seed.0, vectors::word(&case["seed"]));
            let picked = pick(seed, dim, k);
            assert_eq!(picked, vectors::counts(&case["indices"]), "nonce {nonce} dim {dim} k {k}");
            assert_eq!(seed.hash(picked[k - 1] as u32), vectors::word(&case["kth_score"]));
        }
    }

    #[test]
    fn a_pick_never_asks_for_more_than_there_is() {
        assert_eq!(pick(Seed(1), 0, 12), Vec::<usize>::new());
        assert_eq!(pick(Seed(1), 5, 0), Vec::<usize>::new());
        let mut all = pick(Seed(1), 5, 12);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }
}
