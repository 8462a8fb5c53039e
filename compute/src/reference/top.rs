//! Twin of `top_strands.wgsl` and `top_k.wgsl`: the record of a row of logits.

use crate::kernels::top::{CAPACITY, KEPT, RECORD_FLOATS, STRANDS, Wish};

/// What the kernels leave of a row; the logits kept come in the order of their tokens.
#[must_use]
pub fn record(logits: &[f32], wish: Wish) -> Vec<f32> {
    let mut record = vec![0.0; RECORD_FLOATS];
    record[4] = logits[(wish.token as usize).min(logits.len() - 1)];
    let odd = logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY);
    if odd {
        record[0] = -1.0;
        return record;
    }
    let mut strands = vec![f32::NEG_INFINITY; STRANDS.min(logits.len())];
    for (id, logit) in logits.iter().enumerate() {
        let strand = &mut strands[id % STRANDS];
        *strand = strand.max(*logit);
    }
    strands.sort_by(|a, b| b.total_cmp(a));
    let bound = strands.get(KEPT - 1).copied().unwrap_or(f32::NEG_INFINITY);
    let kept: Vec<usize> = (0..logits.len()).filter(|id| logits[*id] >= bound).collect();
    let largest = strands[0];
    let sum = |power: f64| -> f64 {
        let finite = logits.iter().filter(|logit| logit.is_finite());
        finite.map(|logit| (f64::from(logit - largest) * power).exp()).sum()
    };
    record[0] = kept.len() as f32;
    record[1] = largest;
    record[2] = sum(1.0) as f32;
    record[3] = sum(f64::from(wish.inverse_temperature)) as f32;
    for (pair, id) in record[8..].chunks_exact_mut(2).zip(kept).take(CAPACITY) {
        pair.copy_from_slice(&[logits[id], id as f32]);
    }
    record
}
