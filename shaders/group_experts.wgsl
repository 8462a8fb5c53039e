// Sorts the slots of all rows by expert, so that rows with the same expert share a reading of its weights.
//
// Shapes: chosen [rows, used] as (expert, bits of the share), pairs [rows * used]: the numbers
// row * used + slot, expert by expert and rising within each; tiles: first (how many, 0, 0, 0), then
// (expert, where in pairs, how many pairs up to TILE, 0). One workgroup does it all: each invocation
// counts and places the pairs of every WORKGROUP-th expert, so that their order is always the same.
// CPU twin: compute/src/reference/ops.rs, group_experts.
override WORKGROUP: u32 = 64u;
override EXPERTS: u32 = 8u;
override TILE: u32 = 8u;

@group(0) @binding(1) var<uniform> route: Route;
@group(0) @binding(2) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> pairs: array<u32>;
@group(0) @binding(4) var<storage, read_write> tiles: array<vec4<u32>>;

var<workgroup> counts: array<u32, EXPERTS>;

fn tiles_of(count: u32) -> u32 {
    return (count + TILE - 1u) / TILE;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
    let all = step_now.rows * route.used;
    for (var expert = local; expert < EXPERTS; expert += WORKGROUP) {
        var count = 0u;
        for (var pair = 0u; pair < all; pair++) {
            count += select(0u, 1u, chosen[pair].x == expert);
        }
        counts[expert] = count;
    }
    workgroupBarrier();
    for (var expert = local; expert < EXPERTS; expert += WORKGROUP) {
        var first = 0u;
        var first_tile = 0u;
        for (var before = 0u; before < expert; before++) {
            first += counts[before];
            first_tile += tiles_of(counts[before]);
        }
        var to = first;
        for (var pair = 0u; pair < all; pair++) {
            if (chosen[pair].x == expert) {
                pairs[to] = pair;
                to++;
            }
        }
        let own = tiles_of(counts[expert]);
        for (var tile = 0u; tile < own; tile++) {
            let done = tile * TILE;
            let count = min(TILE, counts[expert] - done);
            tiles[1u + first_tile + tile] = vec4<u32>(expert, first + done, count, 0u);
        }
        if (expert == EXPERTS - 1u) {
            tiles[0] = vec4<u32>(first_tile + own, 0u, 0u, 0u);
        }
    }
}
