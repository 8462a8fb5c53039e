// Reads keys and values kept as halves, two to a word.
@group(0) @binding(5) var<storage, read> keys: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> values: array<vec2<u32>>;

fn unpacked(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn key4(record: u32, vector: u32) -> vec4<f32> {
    return unpacked(keys[record * (attention.head >> 2u) + vector]);
}

fn value4(record: u32, vector: u32) -> vec4<f32> {
    return unpacked(values[record * (attention.head >> 2u) + vector]);
}
