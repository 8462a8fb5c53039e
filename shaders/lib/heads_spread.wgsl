// Four heads of a query or a sum, spread over eight invocations of one subgroup: each holds four floats of every
// 32 of a head, and hands them to the others when these are due.

// Of four heads.
struct Heads {
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
    w: vec4<f32>,
}

fn dots(heads: Heads, k: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(heads.x, k), dot(heads.y, k), dot(heads.z, k), dot(heads.w, k));
}

// Scores of four heads over 32 floats of the key.
fn scored(own: Heads, record: u32, piece: u32) -> vec4<f32> {
    let at = piece * 8u;
    var sum = vec4<f32>(0.0);
    sum += dots(handed_0(own), key4(record, at + 0u));
    sum += dots(handed_1(own), key4(record, at + 1u));
    sum += dots(handed_2(own), key4(record, at + 2u));
    sum += dots(handed_3(own), key4(record, at + 3u));
    sum += dots(handed_4(own), key4(record, at + 4u));
    sum += dots(handed_5(own), key4(record, at + 5u));
    sum += dots(handed_6(own), key4(record, at + 6u));
    sum += dots(handed_7(own), key4(record, at + 7u));
    return sum;
}

fn handed_0(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 0u),
        subgroupBroadcast(h.y, 0u),
        subgroupBroadcast(h.z, 0u),
        subgroupBroadcast(h.w, 0u),
    );
}

fn handed_1(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 1u),
        subgroupBroadcast(h.y, 1u),
        subgroupBroadcast(h.z, 1u),
        subgroupBroadcast(h.w, 1u),
    );
}

fn handed_2(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 2u),
        subgroupBroadcast(h.y, 2u),
        subgroupBroadcast(h.z, 2u),
        subgroupBroadcast(h.w, 2u),
    );
}

fn handed_3(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 3u),
        subgroupBroadcast(h.y, 3u),
        subgroupBroadcast(h.z, 3u),
        subgroupBroadcast(h.w, 3u),
    );
}

fn handed_4(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 4u),
        subgroupBroadcast(h.y, 4u),
        subgroupBroadcast(h.z, 4u),
        subgroupBroadcast(h.w, 4u),
    );
}

fn handed_5(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 5u),
        subgroupBroadcast(h.y, 5u),
        subgroupBroadcast(h.z, 5u),
        subgroupBroadcast(h.w, 5u),
    );
}

fn handed_6(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 6u),
        subgroupBroadcast(h.y, 6u),
        subgroupBroadcast(h.z, 6u),
        subgroupBroadcast(h.w, 6u),
    );
}

fn handed_7(h: Heads) -> Heads {
    return Heads(
        subgroupBroadcast(h.x, 7u),
        subgroupBroadcast(h.y, 7u),
        subgroupBroadcast(h.z, 7u),
        subgroupBroadcast(h.w, 7u),
    );
}

fn grown(heads: Heads, weight: vec4<f32>, value: vec4<f32>) -> Heads {
    return Heads(
        heads.x + weight.x * value,
        heads.y + weight.y * value,
        heads.z + weight.z * value,
        heads.w + weight.w * value,
    );
}

fn shrunk(h: Heads, by: vec4<f32>) -> Heads {
    return Heads(h.x * by.x, h.y * by.y, h.z * by.z, h.w * by.w);
}

// Over the eight invocations.
fn largest_of(own: vec4<f32>) -> vec4<f32> {
    var found = subgroupBroadcast(own, 0u);
    found = max(found, subgroupBroadcast(own, 1u));
    found = max(found, subgroupBroadcast(own, 2u));
    found = max(found, subgroupBroadcast(own, 3u));
    found = max(found, subgroupBroadcast(own, 4u));
    found = max(found, subgroupBroadcast(own, 5u));
    found = max(found, subgroupBroadcast(own, 6u));
    found = max(found, subgroupBroadcast(own, 7u));
    return found;
}

fn sum_of(own: vec4<f32>) -> vec4<f32> {
    var sum = subgroupBroadcast(own, 0u);
    sum += subgroupBroadcast(own, 1u);
    sum += subgroupBroadcast(own, 2u);
    sum += subgroupBroadcast(own, 3u);
    sum += subgroupBroadcast(own, 4u);
    sum += subgroupBroadcast(own, 5u);
    sum += subgroupBroadcast(own, 6u);
    sum += subgroupBroadcast(own, 7u);
    return sum;
}
