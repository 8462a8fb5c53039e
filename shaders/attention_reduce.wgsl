// out[r, h] = sum_s w_s sums[r, s, h] / sum_s w_s totals[r, s, h], w_s = exp(largest_s - max largest):
// the spans of attention.wgsl become one.
//
// Shapes: spans [rows, spans, heads, head + 4], out [rows, heads, head]. One invocation computes four
// neighbouring floats: x counts them over the heads of a row, y counts rows.
// CPU twin: compute/src/reference/ops.rs, attention.
override WORKGROUP: u32 = 64u;
override SPAN: u32 = 256u;

@group(0) @binding(3) var<storage, read> spans: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = attention.head >> 2u;
    let head = id.x / vectors;
    let row = id.y;
    if (row >= step_now.rows || head >= attention.heads) {
        return;
    }
    let own = position_of(row);
    let first = first_seen(own) / SPAN;
    let last = own / SPAN;
    // As many as attention.wgsl was dispatched for.
    let all = (step_now.kv_length + SPAN - 1u) / SPAN;
    let stride = attention.heads * (vectors + 1u);
    let at_row = (row * all * attention.heads + head) * (vectors + 1u);
    var largest = spans[at_row + first * stride + vectors].x;
    for (var span = first + 1u; span <= last; span++) {
        largest = max(largest, spans[at_row + span * stride + vectors].x);
    }
    var total = 0.0;
    var sum = vec4<f32>(0.0);
    for (var span = first; span <= last; span++) {
        let at = at_row + span * stride;
        let state = spans[at + vectors];
        let weight = exp(state.x - largest);
        total += weight * state.y;
        sum += weight * spans[at + id.x % vectors];
    }
    out[row * attention.heads * vectors + id.x] = sum / total;
}
