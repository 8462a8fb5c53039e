// out[r, n] (+)= sum_k weights[n, k] * x[r, k], for several rows of x: prefill on a CPU adapter.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// One invocation computes one weight row (x) against eight rows of x (y): a block is decoded once for
// eight products. No barrier, no shared memory; all lanes read the same x.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 8u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn product(w: Eight, at: u32) -> f32 {
    return dot(w.a, x[at]) + dot(w.b, x[at + 1u]);
}

fn store(row: u32, weight_row: u32, value: f32) {
    if (row >= x_rows()) {
        return;
    }
    let at = row * matrix.out_stride + matrix.out_first + matrix.row_first + weight_row;
    if (matrix.accumulate == 1u) {
        out[at] += value;
    } else {
        out[at] = value;
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let weight_row = id.x;
    if (weight_row >= matrix.rows) {
        return;
    }
    let first = id.y * 8u;
    let row_vectors = matrix.columns >> 2u;
    // Rows beyond the end repeat the last one; their results are not stored.
    let starts_a = min(vec4<u32>(0u, 1u, 2u, 3u) + first, vec4<u32>(x_rows() - 1u)) * row_vectors;
    let starts_b = min(vec4<u32>(4u, 5u, 6u, 7u) + first, vec4<u32>(x_rows() - 1u)) * row_vectors;
    var sums_a = vec4<f32>(0.0);
    var sums_b = vec4<f32>(0.0);
    for (var block = 0u; block < (matrix.columns >> 5u); block++) {
        let scale = scale_of(weight_row, block);
        for (var part = 0u; part < 4u; part++) {
            let levels = levels8(weight_row, block, part);
            let w = Eight(levels.a * scale.x + scale.y, levels.b * scale.x + scale.y);
            let at = block * 8u + part * 2u;
            sums_a += vec4<f32>(
                product(w, starts_a.x + at),
                product(w, starts_a.y + at),
                product(w, starts_a.z + at),
                product(w, starts_a.w + at),
            );
            sums_b += vec4<f32>(
                product(w, starts_b.x + at),
                product(w, starts_b.y + at),
                product(w, starts_b.z + at),
                product(w, starts_b.w + at),
            );
        }
    }
    for (var i = 0u; i < 4u; i++) {
        store(first + i, weight_row, sums_a[i]);
        store(first + 4u + i, weight_row, sums_b[i]);
    }
}
