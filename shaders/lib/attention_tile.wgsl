// What an invocation of attention.wgsl does with one position: its scores by four queries, `q` being
// [rows, heads, head], and its values added up for four heads. Four loads are asked for before the first is
// used; they are added in their order all the same.

// The weights of four heads, and each head's values by its weights.
struct Sums {
    total: vec4<f32>,
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
    w: vec4<f32>,
}

fn plus(to: Sums, weight: vec4<f32>, value: vec4<f32>) -> Sums {
    return Sums(
        to.total + weight,
        to.x + weight.x * value,
        to.y + weight.y * value,
        to.z + weight.z * value,
        to.w + weight.w * value,
    );
}

// Four floats of a key by those of four queries.
fn products(at: vec4<u32>, k: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(q[at.x], k), dot(q[at.y], k), dot(q[at.z], k), dot(q[at.w], k));
}

fn scores_of(from_q: vec4<u32>, record: u32) -> vec4<f32> {
    var sums = vec4<f32>(0.0);
    let vectors = attention.head >> 2u;
    var i = 0u;
    for (; i + 4u <= vectors; i += 4u) {
        let k_0 = key4(record, i);
        let k_1 = key4(record, i + 1u);
        let k_2 = key4(record, i + 2u);
        let k_3 = key4(record, i + 3u);
        sums += products(from_q + i, k_0);
        sums += products(from_q + i + 1u, k_1);
        sums += products(from_q + i + 2u, k_2);
        sums += products(from_q + i + 3u, k_3);
    }
    for (; i < vectors; i++) {
        sums += products(from_q + i, key4(record, i));
    }
    return vec4<f32>(score_of(sums.x), score_of(sums.y), score_of(sums.z), score_of(sums.w));
}
