//! One function per kernel; shapes as in the WGSL heads, all matrices row-major.

use std::thread;

/// Products below this many multiplications are not worth a thread.
const PARALLEL_WORK_MIN: usize = 1 << 20;

/// `out[r] = table[ids[r]]`, table `[_, columns]`.
#[must_use]
pub fn embed(table: &[f32], columns: usize, ids: &[u32]) -> Vec<f32> {
    ids.iter().flat_map(|id| &table[*id as usize * columns..][..columns]).copied().collect()
}

/// `out[r] = x[r] * weight / sqrt(mean(x[r]^2) + epsilon)`, x `[_, weight.len()]`.
#[must_use]
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let mean = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
        let scale = 1.0 / (mean + epsilon).sqrt();
        out.extend(row.iter().zip(weight).map(|(v, w)| v * scale * w));
    }
    out
}

/// Sums in eight strands, so that the compiler can use vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut strands = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            strands[i] += x[i] * y[i];
        }
    }
    strands.iter().sum::<f32>() + tail
}

/// `out[r, n] = sum_k weights[n, k] * x[r, k]`, weights `[_, columns]`, x `[_, columns]`.
#[must_use]
pub fn matmul(weights: &[f32], columns: usize, x: &[f32]) -> Vec<f32> {
    let (rows, x_rows) = (weights.len() / columns, x.len() / columns);
    let mut out = vec![0.0; rows * x_rows];
    let threads = match weights.len() * x_rows < PARALLEL_WORK_MIN {
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from),
    };
    let share = rows.div_ceil(threads).max(1);
    // Weight rows are shared out; each thread fills its columns of a transposed result.
    let mut transposed = vec![0.0; rows * x_rows];
    thread::scope(|scope| {
        for (weights, out) in
            weights.chunks(share * columns).zip(transposed.chunks_mut(share * x_rows.max(1)))
        {
            scope.spawn(move || {
                for (w, out) in
                    weights.chunks_exact(columns).zip(out.chunks_exact_mut(x_rows.max(1)))
                {
                    for (v, out) in x.chunks_exact(columns).zip(out) {
                        *out = dot(w, v);
                    }
                }
            });
        }
    });
    for n in 0..rows {
        for r in 0..x_rows {
            out[r * rows + n] = transposed[n * x_rows + r];
        }
    }
    out
}

/// Turns neighbouring pairs of each head of one row in place: `(a, b)` by `angles[pair] = (cos, sin)`.
/// `half_split` pairs i with i + rope / 2 instead of 2i with 2i + 1.
pub fn rope(row: &mut [f32], head: usize, angles: &[[f32; 2]], half_split: bool) {
    let pairs = angles.len();
    for head in row.chunks_exact_mut(head) {
        for (pair, [cos, sin]) in angles.iter().enumerate() {
            let (i, j) = match half_split {
                true => (pair, pair + pairs),
                false => (2 * pair, 2 * pair + 1),
            };
            let (a, b) = (head[i], head[j]);
            head[i] = a * cos - b * sin;
            head[j] = a * sin + b * cos;
        }
    }
}

/// Softmax in place.
pub fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// Shape of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    /// Floats per head.
    pub head: usize,
}

/// How products of queries and keys become scores.
#[derive(Clone, Copy, Debug)]
pub struct Scoring {
    /// Usually `1 / sqrt(head)`.
    pub scale: f32,
    /// Positions a row sees, its own included; 0 is all of them.
    pub window: usize,
    /// A score s becomes `softcap * tanh(s / softcap)`; 0 leaves it.
    pub softcap: f32,
}

impl Scoring {
    /// The usual one of a head size: no window, no bound.
    #[must_use]
    pub fn of_head(head: usize) -> Self {
        Self { scale: 1.0 / (head as f32).sqrt(), window: 0, softcap: 0.0 }
    }

    fn score(&self, product: f32) -> f32 {
        let score = product * self.scale;
        if self.softcap == 0.0 { score } else { self.softcap * (score / self.softcap).tanh() }
    }
}

/// Attention of one row's queries `[heads * head]` over `keys` and `values`
/// `[positions, kv_heads * head]`, the last position being the row's own: query head h uses KV head
/// `h / (heads / kv_heads)`.
#[must_use]
pub fn attention(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: Heads,
    scoring: Scoring,
) -> Vec<f32> {
    let Heads { heads, kv_heads, head } = shape;
    let kv_width = kv_heads * head;
    let unseen = match scoring.window {
        0 => 0,
        window => (keys.len() / kv_width).saturating_sub(window) * kv_width,
    };
    let (keys, values) = (&keys[unseen..], &values[unseen..]);
    let mut out = Vec::with_capacity(heads * head);
    for (h, q) in q.chunks_exact(head).enumerate() {
        let first = h / (heads / kv_heads) * head;
        let of = move |cache: &[f32], i: usize| -> f32 { cache[first + i] };
        let mut weights: Vec<f32> = keys
            .chunks_exact(kv_width)
            .map(|k| scoring.score(dot(q, &k[first..first + head])))
            .collect();
        softmax(&mut weights);
        out.extend((0..head).map(|i| {
            let positions = values.chunks_exact(kv_width);
            weights.iter().zip(positions).map(|(w, v)| w * of(v, i)).sum::<f32>()
        }));
    }
    out
}

/// `silu(gate) * up` of rows `[gate | up]`, each `columns` wide.
#[must_use]
pub fn silu_mul(gate_up: &[f32], columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks_exact(2 * columns) {
        let (gate, up) = row.split_at(columns);
        out.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
    }
    out
}

/// `gelu(gate) * up` of rows `[gate | up]`, each `columns` wide; gelu by its approximation with tanh.
#[must_use]
pub fn gelu_mul(gate_up: &[f32], columns: usize) -> Vec<f32> {
    let gelu = |g: f32| {
        let inner = (2.0 / std::f32::consts::PI).sqrt() * (g + 0.044_715 * g * g * g);
        0.5 * g * (1.0 + inner.tanh())
    };
    let mut out = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks_exact(2 * columns) {
        let (gate, up) = row.split_at(columns);
        out.extend(gate.iter().zip(up).map(|(g, u)| gelu(*g) * u));
    }
    out
}

/// The `used` experts with the largest logits of each row, largest first, with their shares: the softmax
/// over the chosen. Of equal logits the first is taken.
#[must_use]
pub fn route_experts(logits: &[f32], experts: usize, used: usize) -> Vec<Vec<(usize, f32)>> {
    logits
        .chunks_exact(experts)
        .map(|row| {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            let chosen = &order[..used];
            let mut shares: Vec<f32> = chosen.iter().map(|e| row[*e]).collect();
            softmax(&mut shares);
            chosen.iter().copied().zip(shares).collect()
        })
        .collect()
}

/// The `used` experts from each row's first on, around the end, with the softmax of logits that fall by one: how the
/// network's scheme DECODE routes.
#[must_use]
pub fn forced_routes(firsts: &[u32], experts: usize, used: usize) -> Vec<Vec<(usize, f32)>> {
    let mut shares: Vec<f32> = (0..used).map(|slot| (used - slot) as f32).collect();
    softmax(&mut shares);
    let of = |first: &u32| {
        let chosen = (0..used).map(|slot| (*first as usize + slot) % experts);
        chosen.zip(shares.iter().copied()).collect()
    };
    firsts.iter().map(of).collect()
}

/// Slots of all rows (row * used + slot) by expert, each expert's rising, cut into tiles of at most `tile`:
/// (expert, slots).
#[must_use]
pub fn group_experts(
    routes: &[Vec<(usize, f32)>],
    experts: usize,
    tile: usize,
) -> Vec<(usize, Vec<usize>)> {
    let slots: Vec<usize> = routes.iter().flatten().map(|(expert, _)| *expert).collect();
    let mut tiles = Vec::new();
    for expert in 0..experts {
        let own: Vec<usize> = (0..slots.len()).filter(|slot| slots[*slot] == expert).collect();
        tiles.extend(own.chunks(tile).map(|slots| (expert, slots.to_vec())));
    }
    tiles
}

/// `x[r] += sum_s share(r, s) * parts[r, s]`, parts `[rows, used, columns]`.
pub fn combine_experts(x: &mut [f32], parts: &[f32], routes: &[Vec<(usize, f32)>], columns: usize) {
    let mut parts = parts.chunks_exact(columns);
    for (row, route) in x.chunks_exact_mut(columns).zip(routes) {
        for ((_, share), part) in route.iter().zip(&mut parts) {
            row.iter_mut().zip(part).for_each(|(x, part)| *x += share * part);
        }
    }
}

/// `x[r] += bias` for every row.
pub fn bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        add(row, bias);
    }
}

/// `x *= factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    for value in x {
        *value *= factor;
    }
}

/// `x = cap * tanh(x / cap)`.
pub fn softcap(x: &mut [f32], cap: f32) {
    for value in x {
        *value = cap * (*value / cap).tanh();
    }
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x[r] -= 2 (x[r] . v) v` for every row.
pub fn reflect(x: &mut [f32], v: &[f32]) {
    for row in x.chunks_exact_mut(v.len()) {
        let twice = 2.0 * dot(row, v);
        for (x, v) in row.iter_mut().zip(v) {
            *x -= twice * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_by_hand() {
        assert_eq!(embed(&[1., 2., 3., 4.], 2, &[1, 0]), [3., 4., 1., 2.]);
        assert_eq!(rms_norm(&[3., 4.], &[1., 2.], 0.0)[1], 8.0 / 12.5_f32.sqrt());
        assert_eq!(
            matmul(&[1., 2., 3., 4., 5., 6.], 2, &[1., 1., 0., 2.]),
            [3., 7., 11., 4., 8., 12.]
        );
        let mut row = [1., 2., 3., 4.];
        rope(&mut row, 4, &[[0., 1.]], false);
        assert_eq!(row, [-2., 1., 3., 4.]);
        let mut row = [1., 2., 3., 4.];
        rope(&mut row, 4, &[[0., 1.], [1., 0.]], true);
        assert_eq!(row, [-3., 2., 1., 4.]);
        let mut x = [3., 4., 0., 1.];
        reflect(&mut x, &[0., 1.]);
        assert_eq!(x, [3., -4., 0., -1.]);
        assert_eq!(silu_mul(&[0., 5.], 1), [0.]);
        assert_eq!(gelu_mul(&[0., 5., 20., 2.], 1), [0., 40.]);
        assert_eq!(route_experts(&[1., 3., 3.], 3, 2), [[(1, 0.5), (2, 0.5)]]);
        bias(&mut x, &[1., 2.]);
        assert_eq!(x, [4., -2., 1., 1.]);
        scale(&mut x, 2.);
        assert_eq!(x, [8., -4., 2., 2.]);
        softcap(&mut x, 1e-3);
        assert_eq!(x, [1e-3, -1e-3, 1e-3, 1e-3]);
    }

    #[test]
    fn equal_keys_average_the_values() {
        let shape = Heads { heads: 2, kv_heads: 1, head: 2 };
        let attend = |scoring| {
            attention(&[1., 0., 0., 1.], &[1., 1., 1., 1.], &[2., 0., 4., 2.], shape, scoring)
        };
        assert_eq!(attend(Scoring::of_head(2)), [3., 1., 3., 1.]);
        // A window of one sees its own position only.
        assert_eq!(attend(Scoring { window: 1, ..Scoring::of_head(2) }), [4., 2., 4., 2.]);
    }
}
