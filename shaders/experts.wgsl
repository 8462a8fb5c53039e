// Products with the matrices of the experts that were chosen for each row: decoding.
//
// Spreading: out[r, s, n] = sum_k weights[e(r, s), n, k] * x[r, k].
// Gathering: out[r, n] += sum_s share(r, s) * sum_k weights[e(r, s), n, k] * x[r, s, k].
//
// Shapes: weights [experts * expert_rows, columns] in any format, a shard of them; chosen [rows, used];
// x [rows, columns] or [rows, used, columns]; out [rows, out_stride] at out_first. LANES neighbouring
// invocations share row n (x) of one slot or of all slots of a row of x (y), and add up in a tree;
// with one lane the tree is empty: CPU adapters.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 64u;
override LANES: u32 = 16u;

@group(0) @binding(5) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, WORKGROUP>;

// This lane's part of the product of row n of the slot's expert; nothing if the row is in another shard.
fn part_of_row(slot: u32, n: u32, x_row: u32, lane: u32) -> f32 {
    let whole_row = chosen[slot].x * experts.expert_rows + n;
    if (!in_shard(whole_row)) {
        return 0.0;
    }
    let row = whole_row - matrix.row_first;
    let x_first = x_row * (matrix.columns >> 2u);
    var sum = 0.0;
    for (var block = lane; block < (matrix.columns >> 5u); block += LANES) {
        let scale = scale_of(row, block);
        for (var part = 0u; part < 4u; part++) {
            let at = x_first + block * 8u + part * 2u;
            let levels = levels8(row, block, part);
            sum += dot(levels.a * scale.x + scale.y, x[at]);
            sum += dot(levels.b * scale.x + scale.y, x[at + 1u]);
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % LANES;
    let n = group.x * (WORKGROUP / LANES) + local / LANES;
    let gathering = experts.gathering == 1u;
    let row = select(group.y / experts.used, group.y, gathering);
    let slot = select(group.y, group.y * experts.used, gathering);
    var sum = 0.0;
    if (n < experts.expert_rows) {
        if (gathering) {
            for (var s = 0u; s < experts.used; s++) {
                let share = bitcast<f32>(chosen[slot + s].y);
                sum += share * part_of_row(slot + s, n, slot + s, lane);
            }
        } else {
            sum = part_of_row(slot, n, row, lane);
        }
    }
    partial[local] = sum;
    for (var width = LANES / 2u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if (lane < width) {
            partial[local] += partial[local + width];
        }
    }
    if (lane != 0u || n >= experts.expert_rows) {
        return;
    }
    let to = row * matrix.out_stride + matrix.out_first + n;
    if (gathering) {
        out[to] += partial[local];
    } else if (in_shard(chosen[slot].x * experts.expert_rows + n)) {
        out[to + (group.y % experts.used) * experts.expert_rows] = partial[local];
    }
}
