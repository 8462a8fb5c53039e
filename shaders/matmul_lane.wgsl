// out[r, n] (+)= sum_k weights[n, k] * x[r, k], for several rows of x: prefill on a CPU adapter.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// One invocation computes four weight rows (x) against eight rows of x (y): eight weights of each row
// are decoded once for eight products, and each x serves four rows. No barrier, no shared memory;
// written out by hand because lavapipe keeps vectors in registers but not arrays.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 8u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;

fn products(w: Four, at: u32) -> vec4<f32> {
    let low = x[at];
    let high = x[at + 1u];
    return vec4<f32>(
        dot(w.a.a, low) + dot(w.a.b, high),
        dot(w.b.a, low) + dot(w.b.b, high),
        dot(w.c.a, low) + dot(w.c.b, high),
        dot(w.d.a, low) + dot(w.d.b, high),
    );
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = id.x * 4u;
    if (first >= matrix.rows) {
        return;
    }
    // Rows beyond an end repeat the last one; their results are not stored.
    let rows = min(vec4<u32>(0u, 1u, 2u, 3u) + first, vec4<u32>(matrix.rows - 1u));
    let x_first = id.y * 8u;
    let x_last = vec4<u32>(x_rows() - 1u);
    let from_a = min(vec4<u32>(0u, 1u, 2u, 3u) + x_first, x_last) * (matrix.columns >> 2u);
    let from_b = min(vec4<u32>(4u, 5u, 6u, 7u) + x_first, x_last) * (matrix.columns >> 2u);
    var sums_0 = vec4<f32>(0.0);
    var sums_1 = vec4<f32>(0.0);
    var sums_2 = vec4<f32>(0.0);
    var sums_3 = vec4<f32>(0.0);
    var sums_4 = vec4<f32>(0.0);
    var sums_5 = vec4<f32>(0.0);
    var sums_6 = vec4<f32>(0.0);
    var sums_7 = vec4<f32>(0.0);
    for (var eight = 0u; eight < (matrix.columns >> 3u); eight++) {
        let block = eight >> 2u;
        let part = eight & 3u;
        let w = Four(
            decode(rows.x, block, part),
            decode(rows.y, block, part),
            decode(rows.z, block, part),
            decode(rows.w, block, part),
        );
        let at = eight * 2u;
        sums_0 += products(w, from_a.x + at);
        sums_1 += products(w, from_a.y + at);
        sums_2 += products(w, from_a.z + at);
        sums_3 += products(w, from_a.w + at);
        sums_4 += products(w, from_b.x + at);
        sums_5 += products(w, from_b.y + at);
        sums_6 += products(w, from_b.z + at);
        sums_7 += products(w, from_b.w + at);
    }
    store_four(x_first, first, sums_0);
    store_four(x_first + 1u, first, sums_1);
    store_four(x_first + 2u, first, sums_2);
    store_four(x_first + 3u, first, sums_3);
    store_four(x_first + 4u, first, sums_4);
    store_four(x_first + 5u, first, sums_5);
    store_four(x_first + 6u, first, sums_6);
    store_four(x_first + 7u, first, sums_7);
}
