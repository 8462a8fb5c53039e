// chosen[r, s] = (e, w): the `used` experts with the largest logits[r, e], largest first, and their shares
// of the row: w = exp(logit) / sum of exp over the chosen.
//
// Where the experts are given, the row's are the `used` ones from firsts[r, layer] on, around the end, with the shares of
// logits that fall by one: what the network's scheme DECODE forces (Gonka PoC v2, section 7).
//
// Shapes: firsts [rows, layers], logits [rows, experts], chosen [rows, used] as (expert, bits of the share). Of equal logits
// the first is taken. One invocation serves one row.
// CPU twins: compute/src/reference/ops.rs, route_experts and forced_routes.
override WORKGROUP: u32 = 64u;

@group(0) @binding(1) var<uniform> route: Route;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> firsts: array<u32>;
@group(0) @binding(4) var<storage, read_write> chosen: array<vec2<u32>>;

fn force(row: u32) {
    let first = firsts[row * route.layers + route.layer];
    var sum = 0.0;
    for (var s = 0u; s < route.used; s++) {
        sum += exp(-f32(s));
    }
    for (var s = 0u; s < route.used; s++) {
        let share = exp(-f32(s)) / sum;
        let expert = (first + s) % route.experts;
        chosen[row * route.used + s] = vec2<u32>(expert, bitcast<u32>(share));
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= step_now.rows) {
        return;
    }
    if (step_now.forced == 1u) {
        force(row);
        return;
    }
    var largest = 0.0;
    var last = 0.0;
    var last_expert = 0u;
    var sum = 0.0;
    for (var s = 0u; s < route.used; s++) {
        var best = 0.0;
        var best_expert = route.experts;
        for (var e = 0u; e < route.experts; e++) {
            let logit = logits[row * route.experts + e];
            // Behind the one taken before, in the order of logits, then of numbers.
            let behind = s == 0u || logit < last || (logit == last && e > last_expert);
            if (behind && (best_expert == route.experts || logit > best)) {
                best = logit;
                best_expert = e;
            }
        }
        // Only where logits are no numbers: any expert is as good as another.
        best_expert = min(best_expert, route.experts - 1u);
        largest = select(largest, best, s == 0u);
        last = best;
        last_expert = best_expert;
        let share = exp(best - largest);
        sum += share;
        chosen[row * route.used + s] = vec2<u32>(best_expert, bitcast<u32>(share));
    }
    for (var s = 0u; s < route.used; s++) {
        let at = row * route.used + s;
        chosen[at].y = bitcast<u32>(bitcast<f32>(chosen[at].y) / sum);
    }
}
