// Reads keys and values kept as floats.
@group(0) @binding(5) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> values: array<vec4<f32>>;

fn key4(record: u32, vector: u32) -> vec4<f32> {
    return keys[record * (attention.head >> 2u) + vector];
}

fn value4(record: u32, vector: u32) -> vec4<f32> {
    return values[record * (attention.head >> 2u) + vector];
}
