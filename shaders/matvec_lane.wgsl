// out[n] (+)= sum_k weights[n, k] * x[k], for one row of x: the decode step on a CPU adapter.
//
// Shapes: weights [rows, columns], x [columns], out [.., out_stride] at out_first.
// One invocation computes LANE_ROWS neighbouring rows alone, block by block. No barrier and no shared
// memory: on lavapipe those cost more than they save (specs/wgpu-inference section 1), while x is
// read uniformly by all lanes and costs one broadcast.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 8u;
const LANE_ROWS: u32 = 2u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn store(row: u32, value: f32) {
    if (row >= matrix.rows) {
        return;
    }
    let at = matrix.out_first + matrix.row_first + row;
    if (matrix.accumulate == 1u) {
        out[at] += value;
    } else {
        out[at] = value;
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let first = (id.x + id.y * groups.x * WORKGROUP) * LANE_ROWS;
    if (first >= matrix.rows) {
        return;
    }
    // A ragged last pair computes its row twice rather than branch in the loop.
    let second = min(first + 1u, matrix.rows - 1u);
    var sum_a = 0.0;
    var sum_b = 0.0;
    for (var block = 0u; block < (matrix.columns >> 5u); block++) {
        var dot_a = 0.0;
        var dot_b = 0.0;
        var total = vec4<f32>(0.0);
        for (var part = 0u; part < 4u; part++) {
            let at = block * 8u + part * 2u;
            let low = x[at];
            let high = x[at + 1u];
            total += low + high;
            let a = levels8(first, block, part);
            let b = levels8(second, block, part);
            dot_a += dot(a.a, low) + dot(a.b, high);
            dot_b += dot(b.a, low) + dot(b.b, high);
        }
        let x_sum = total.x + total.y + total.z + total.w;
        let scale_a = scale_of(first, block);
        let scale_b = scale_of(second, block);
        sum_a += scale_a.x * dot_a + scale_a.y * x_sum;
        sum_b += scale_b.x * dot_b + scale_b.y * x_sum;
    }
    store(first, sum_a);
    if (first + 1u < matrix.rows) {
        store(first + 1u, sum_b);
    }
}
