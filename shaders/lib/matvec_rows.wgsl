// What the matrix-vector kernels share: which rows an invocation works on, and where its sums go.
//
// LANES invocations (lib/sum_*.wgsl) compute four neighbouring weight rows (x, folded into y) against
// X_ROWS = 1, 2, 4 or 8 rows of x (z), so that weights are read once for all of these and each x
// serves four weight rows. Each takes every LANES-th piece of PARTS * 8 columns.
override X_ROWS: u32 = 1u;
override PARTS: u32 = 4u;

// The first of the four weight rows.
fn first_row(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return ((group.x + group.y * groups.x) * (WORKGROUP / LANES) + local / LANES) * 4u;
}

// Four numbers from `first` on; those beyond the end repeat the last, and their results are not kept.
fn four_of(first: u32, count: u32) -> vec4<u32> {
    return min(vec4<u32>(0u, 1u, 2u, 3u) + first, vec4<u32>(count - 1u));
}

// Adds up a row of x over the lanes and stores its four sums.
fn store(x_row: u32, first: u32, sums: vec4<f32>, local: u32) {
    let values = whole_sum(sums, local);
    if (local % LANES == 0u) {
        store_four(x_row, first, values);
    }
}
