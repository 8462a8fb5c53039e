// out[t, c] = one vector for every text t out of its rows of x: the first row (MODE 0), the mean (1) or
// the largest value (2) of every column.
//
// Shapes: x [rows, columns], out [texts, columns]. One invocation computes four neighbouring floats: x
// counts them in a row, y counts texts, of which the step's `selected` says the number.
// CPU twin: compute/src/reference/encoder.rs, pool.
override WORKGROUP: u32 = 64u;
override MODE: u32 = 1u;

struct Pool {
    columns: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

@group(0) @binding(1) var<uniform> shape: Pool;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = shape.columns >> 2u;
    if (id.y >= step_now.selected || id.x >= vectors) {
        return;
    }
    let text = text_at(id.y);
    var pooled = x[text.first * vectors + id.x];
    if (MODE != 0u) {
        for (var r = text.first + 1u; r < text.first + text.count; r++) {
            let v = x[r * vectors + id.x];
            pooled = select(pooled + v, max(pooled, v), MODE == 2u);
        }
    }
    if (MODE == 1u) {
        pooled /= f32(text.count);
    }
    out[id.y * vectors + id.x] = pooled;
}
