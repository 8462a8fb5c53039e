// out[r, n] (+)= sum_k weights[n, k] * x[r, k], one row of x at a time: decoding on a CPU adapter.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// z counts rows of x. One invocation computes four neighbouring rows alone, block by block. No barrier and no shared
// memory: on lavapipe they cost more than they save. There every float loaded costs more than a
// product, so four rows share each x. Written out by hand: loops over arrays are not unrolled there.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 8u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn store(x_row: u32, row: u32, value: f32) {
    if (row >= matrix.rows) {
        return;
    }
    let at = x_row * matrix.out_stride + matrix.out_first + matrix.row_first + row;
    if (matrix.accumulate == 1u) {
        out[at] += value;
    } else {
        out[at] = value;
    }
}

fn product(levels: Eight, low: vec4<f32>, high: vec4<f32>) -> f32 {
    return dot(levels.a, low) + dot(levels.b, high);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let first = (id.x + id.y * groups.x * WORKGROUP) * 4u;
    if (first >= matrix.rows) {
        return;
    }
    // Rows beyond the end repeat the last one rather than branch in the loop.
    let rows = min(vec4<u32>(0u, 1u, 2u, 3u) + first, vec4<u32>(matrix.rows - 1u));
    let from_x = id.z * (matrix.columns >> 2u);
    var sums = vec4<f32>(0.0);
    for (var block = 0u; block < (matrix.columns >> 5u); block++) {
        var dots = vec4<f32>(0.0);
        var total = vec4<f32>(0.0);
        for (var part = 0u; part < 4u; part++) {
            let at = from_x + block * 8u + part * 2u;
            let low = x[at];
            let high = x[at + 1u];
            total += low + high;
            dots += vec4<f32>(
                product(levels8(rows.x, block, part), low, high),
                product(levels8(rows.y, block, part), low, high),
                product(levels8(rows.z, block, part), low, high),
                product(levels8(rows.w, block, part), low, high),
            );
        }
        let a = scale_of(rows.x, block);
        let b = scale_of(rows.y, block);
        let c = scale_of(rows.z, block);
        let d = scale_of(rows.w, block);
        let x_sum = total.x + total.y + total.z + total.w;
        sums += vec4<f32>(a.x, b.x, c.x, d.x) * dots + vec4<f32>(a.y, b.y, c.y, d.y) * x_sum;
    }
    store(id.z, first, sums.x);
    store(id.z, first + 1u, sums.y);
    store(id.z, first + 2u, sums.z);
    store(id.z, first + 3u, sums.w);
}
