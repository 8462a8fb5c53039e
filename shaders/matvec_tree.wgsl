// out[r, n] (+)= sum_k weights[n, k] * x[r, k], one row of x at a time: decoding on a GPU.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// z counts rows of x. One workgroup computes WORKGROUP / LANES rows; LANES neighbouring invocations share a row, take
// every LANES-th block of it, so that their loads touch neighbouring memory, and add up in a tree.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 64u;
override LANES: u32 = 16u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % LANES;
    let row = (group.x + group.y * groups.x) * (WORKGROUP / LANES) + local / LANES;
    let from_x = group.z * (matrix.columns >> 2u);
    var sum = 0.0;
    if (row < matrix.rows) {
        for (var block = lane; block < (matrix.columns >> 5u); block += LANES) {
            var levels_dot = 0.0;
            var total = vec4<f32>(0.0);
            for (var part = 0u; part < 4u; part++) {
                let at = from_x + block * 8u + part * 2u;
                let low = x[at];
                let high = x[at + 1u];
                let levels = levels8(row, block, part);
                total += low + high;
                levels_dot += dot(levels.a, low) + dot(levels.b, high);
            }
            let scale = scale_of(row, block);
            sum += scale.x * levels_dot + scale.y * (total.x + total.y + total.z + total.w);
        }
    }
    partial[local] = sum;
    for (var width = LANES / 2u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if (lane < width) {
            partial[local] += partial[local + width];
        }
    }
    if (lane == 0u && row < matrix.rows) {
        let at = group.z * matrix.out_stride + matrix.out_first + matrix.row_first + row;
        if (matrix.accumulate == 1u) {
            out[at] += partial[local];
        } else {
            out[at] = partial[local];
        }
    }
}
