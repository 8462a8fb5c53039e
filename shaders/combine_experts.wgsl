// x[r, n] += sum_s share(r, s) * parts[r, s, n]: what the experts of a row have made goes onto the residual
// stream, in the order of the slots.
//
// Shapes: chosen [rows, used] as (expert, bits of the share), parts [rows, used, columns], x [rows,
// columns]. One invocation makes four neighbouring floats (x) of a row (y).
// CPU twin: compute/src/reference/ops.rs, combine_experts.
override WORKGROUP: u32 = 64u;

@group(0) @binding(1) var<uniform> route: Route;
@group(0) @binding(2) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = route.columns >> 2u;
    let row = id.y;
    if (row >= step_now.rows || id.x >= vectors) {
        return;
    }
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < route.used; s++) {
        let slot = row * route.used + s;
        sum += bitcast<f32>(chosen[slot].y) * parts[slot * vectors + id.x];
    }
    x[row * vectors + id.x] += sum;
}
