// Reads keys and values kept as signed bytes: a record is its levels, four to a word, then a word for
// every 32 levels (the last may have fewer) with the scales of its two blocks of 16, each the upper half
// of a float.
@group(0) @binding(5) var<storage, read> keys: array<u32>;
@group(0) @binding(6) var<storage, read> values: array<u32>;

fn unpacked(word: u32, scales: u32, vector: u32) -> vec4<f32> {
    let levels = (vec4<i32>(bitcast<i32>(word)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
    let bits = select(scales << 16u, scales & 0xffff0000u, (vector & 4u) == 4u);
    return vec4<f32>(levels) * bitcast<f32>(bits);
}

fn key4(record: u32, vector: u32) -> vec4<f32> {
    let vectors = attention.head >> 2u;
    let first = record * (vectors + ((vectors + 7u) >> 3u));
    return unpacked(keys[first + vector], keys[first + vectors + (vector >> 3u)], vector);
}

fn value4(record: u32, vector: u32) -> vec4<f32> {
    let vectors = attention.head >> 2u;
    let first = record * (vectors + ((vectors + 7u) >> 3u));
    return unpacked(values[first + vector], values[first + vectors + (vector >> 3u)], vector);
}
