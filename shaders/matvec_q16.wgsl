// out[r, n] (+)= sum_k weights[n, k] * x[r, k], x being rows of whole numbers with a scale per
// block (quantise_q16.wgsl): four products at a time, for weights whose levels are whole numbers too.
// Sums of a block are exact: the largest, of Q6_K, is just below 2^31.
//
// Shapes: weights [rows, columns], x [x_rows(), columns / 16, 2] words, x_scales [x_rows(), columns / 32],
// out [x_rows(), out_stride] at out_first. Who computes what is in lib/matvec_rows.wgsl (PARTS is 2 or
// 4); a row's sums are added in the same order whatever X_ROWS is. Written out by hand as in
// matvec.wgsl.
// CPU twin: compute/src/reference/ops.rs, matmul, of the quantised x.
@group(0) @binding(4) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> x_scales: array<vec2<f32>>;

// The same sixteen columns, half a block, of four weight rows.
struct Four {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
    factors: vec4<i32>,
}

fn sixteen(row: u32, block: u32, half: u32) -> vec4<u32> {
    return vec4<u32>(packed8(row, block, half * 2u), packed8(row, block, half * 2u + 1u));
}

fn product(w: vec4<u32>, v: vec4<u32>) -> i32 {
    return dot4I8Packed(w.x, v.x) + dot4I8Packed(w.y, v.y)
        + dot4I8Packed(w.z, v.z) + dot4I8Packed(w.w, v.w);
}

fn products(w: Four, at: u32) -> vec4<i32> {
    let high = x[at * 2u];
    let low = x[at * 2u + 1u];
    let high_sums =
        vec4<i32>(product(w.a, high), product(w.b, high), product(w.c, high), product(w.d, high));
    let low_sums =
        vec4<i32>(product(w.a, low), product(w.b, low), product(w.c, low), product(w.d, low));
    return w.factors * ((high_sums << vec4<u32>(7u)) + low_sums);
}

fn scaled(dots: vec4<i32>, scale: vec4<f32>, offset: vec4<f32>, at: u32) -> vec4<f32> {
    let x_scale = x_scales[at];
    return scale * (x_scale.x * vec4<f32>(dots)) + offset * x_scale.y;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_row(group, groups, local);
    let x_first = group.z * X_ROWS;
    let rows = four_of(first, matrix.rows);
    let blocks = matrix.columns >> 5u;
    let from_a = four_of(x_first, x_rows()) * blocks;
    let from_b = four_of(x_first + 4u, x_rows()) * blocks;
    var sums_0 = vec4<f32>(0.0);
    var sums_1 = vec4<f32>(0.0);
    var sums_2 = vec4<f32>(0.0);
    var sums_3 = vec4<f32>(0.0);
    var sums_4 = vec4<f32>(0.0);
    var sums_5 = vec4<f32>(0.0);
    var sums_6 = vec4<f32>(0.0);
    var sums_7 = vec4<f32>(0.0);
    let halves = PARTS >> 1u;
    // Lanes without rows skip the work but not the barriers.
    let end = select(0u, (blocks * 2u) / halves, first < matrix.rows);
    for (var unit = local % LANES; unit < end; unit += LANES) {
        let block = unit * halves >> 1u;
        let half_first = unit * halves & 1u;
        var dots_0 = vec4<i32>(0);
        var dots_1 = vec4<i32>(0);
        var dots_2 = vec4<i32>(0);
        var dots_3 = vec4<i32>(0);
        var dots_4 = vec4<i32>(0);
        var dots_5 = vec4<i32>(0);
        var dots_6 = vec4<i32>(0);
        var dots_7 = vec4<i32>(0);
        for (var half = half_first; half < half_first + halves; half++) {
            let at = block * 2u + half;
            let w = Four(
                sixteen(rows.x, block, half),
                sixteen(rows.y, block, half),
                sixteen(rows.z, block, half),
                sixteen(rows.w, block, half),
                vec4<i32>(
                    part_factor(rows.x, block, half * 2u),
                    part_factor(rows.y, block, half * 2u),
                    part_factor(rows.z, block, half * 2u),
                    part_factor(rows.w, block, half * 2u),
                ),
            );
            dots_0 += products(w, from_a.x * 2u + at);
            if (X_ROWS > 1u) {
                dots_1 += products(w, from_a.y * 2u + at);
            }
            if (X_ROWS > 2u) {
                dots_2 += products(w, from_a.z * 2u + at);
                dots_3 += products(w, from_a.w * 2u + at);
            }
            if (X_ROWS > 4u) {
                dots_4 += products(w, from_b.x * 2u + at);
                dots_5 += products(w, from_b.y * 2u + at);
                dots_6 += products(w, from_b.z * 2u + at);
                dots_7 += products(w, from_b.w * 2u + at);
            }
        }
        let a = scale_of(rows.x, block);
        let b = scale_of(rows.y, block);
        let c = scale_of(rows.z, block);
        let d = scale_of(rows.w, block);
        let scale = vec4<f32>(a.x, b.x, c.x, d.x);
        // A block's offset counts once, with its first half.
        let offset = select(vec4<f32>(0.0), vec4<f32>(a.y, b.y, c.y, d.y), half_first == 0u);
        sums_0 += scaled(dots_0, scale, offset, from_a.x + block);
        if (X_ROWS > 1u) {
            sums_1 += scaled(dots_1, scale, offset, from_a.y + block);
        }
        if (X_ROWS > 2u) {
            sums_2 += scaled(dots_2, scale, offset, from_a.z + block);
            sums_3 += scaled(dots_3, scale, offset, from_a.w + block);
        }
        if (X_ROWS > 4u) {
            sums_4 += scaled(dots_4, scale, offset, from_b.x + block);
            sums_5 += scaled(dots_5, scale, offset, from_b.y + block);
            sums_6 += scaled(dots_6, scale, offset, from_b.z + block);
            sums_7 += scaled(dots_7, scale, offset, from_b.w + block);
        }
    }
    store(x_first, first, sums_0, local);
    if (X_ROWS > 1u) {
        store(x_first + 1u, first, sums_1, local);
    }
    if (X_ROWS > 2u) {
        store(x_first + 2u, first, sums_2, local);
        store(x_first + 3u, first, sums_3, local);
    }
    if (X_ROWS > 4u) {
        store(x_first + 4u, first, sums_4, local);
        store(x_first + 5u, first, sums_5, local);
        store(x_first + 6u, first, sums_6, local);
        store(x_first + 7u, first, sums_7, local);
    }
}
