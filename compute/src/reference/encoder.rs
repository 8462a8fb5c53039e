//! Twins of the kernels that only encoders have; shapes as in the WGSL heads.

use super::ops::softmax;
use crate::kernels::encoder::{Activation, Pooling};

/// The error function by its series, which converges for every x and is exact to an f64's last digits
/// where f32 differs from 1.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    // erf(x) = 2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2n + 1) / (2n + 1)!!: all terms have one sign.
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

fn bend(activation: Activation, x: f32) -> f32 {
    let wide = f64::from(x);
    match activation {
        Activation::GeluErf => {
            (0.5 * wide * (1.0 + erf(wide * std::f64::consts::FRAC_1_SQRT_2))) as f32
        }
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// `x[r] = activation(x[r] + bias)`.
pub fn activate(x: &mut [f32], bias: &[f32], activation: Activation) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (x, b) in row.iter_mut().zip(bias) {
            *x = bend(activation, *x + b);
        }
    }
}

/// `x[r] = layer_norm(x[r] + branch[r] + bias)`, `vectors` being bias, gain and shift one after the other.
pub fn layer_norm(x: &mut [f32], branch: &[f32], vectors: &[f32], epsilon: f32) {
    let columns = vectors.len() / 3;
    let (bias, rest) = vectors.split_at(columns);
    let (gain, shift) = rest.split_at(columns);
    for (row, branch) in x.chunks_exact_mut(columns).zip(branch.chunks_exact(columns)) {
        for ((x, y), b) in row.iter_mut().zip(branch).zip(bias) {
            *x += y + b;
        }
        let mean = row.iter().sum::<f32>() / columns as f32;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / columns as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((x, g), s) in row.iter_mut().zip(gain).zip(shift) {
            *x = (*x - mean) * scale * g + s;
        }
    }
}

/// Attention of all rows of one text to each other: `qkv [rows, 3, heads, head]` to `[rows, heads, head]`.
#[must_use]
pub fn attend(qkv: &[f32], heads: usize, head: usize) -> Vec<f32> {
    let width = heads * head;
    let part =
        |row: usize, which: usize, h: usize| &qkv[(row * 3 + which) * width + h * head..][..head];
    let rows = qkv.len() / (3 * width);
    let mut out = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for h in 0..heads {
            let q = part(row, 0, h);
            let score = |j: usize| {
                let product: f32 = q.iter().zip(part(j, 1, h)).map(|(a, b)| a * b).sum();
                product / (head as f32).sqrt()
            };
            let mut weights: Vec<f32> = (0..rows).map(score).collect();
            softmax(&mut weights);
            out.extend((0..head).map(|i| {
                weights.iter().enumerate().map(|(j, w)| w * part(j, 2, h)[i]).sum::<f32>()
            }));
        }
    }
    out
}

/// One vector of the rows `x [_, columns]` of one text.
#[must_use]
pub fn pool(x: &[f32], columns: usize, pooling: Pooling) -> Vec<f32> {
    let rows = x.len() / columns;
    let column = |c: usize| (0..rows).map(move |r| x[r * columns + c]);
    (0..columns)
        .map(|c| match pooling {
            Pooling::Cls => x[c],
            Pooling::Mean => column(c).sum::<f32>() / rows as f32,
            Pooling::Max => column(c).fold(f32::NEG_INFINITY, f32::max),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_by_hand() {
        // Abramowitz and Stegun, table 7.1.
        for (x, value) in
            [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)]
        {
            assert!((erf(x) - value).abs() < 1e-10 && (erf(-x) + value).abs() < 1e-10, "{x}");
        }
        let mut x = [1., 3.];
        layer_norm(&mut x, &[1., 1.], &[0., 2., 1., 2., 0., 1.], 0.0);
        assert_eq!(x, [-1., 3.]);
        // Equal keys: the mean of the values, whatever is asked.
        assert_eq!(attend(&[5., 1., 2., 7., 1., 4.], 1, 1), [3., 3.]);
        let rows = [1., 8., 3., 2.];
        assert_eq!(pool(&rows, 2, Pooling::Cls), [1., 8.]);
        assert_eq!(pool(&rows, 2, Pooling::Mean), [2., 5.]);
        assert_eq!(pool(&rows, 2, Pooling::Max), [3., 8.]);
        let mut x = [-2., 1.];
        activate(&mut x, &[1., 1.], Activation::Relu);
        assert_eq!(x, [0., 2.]);
    }
}
