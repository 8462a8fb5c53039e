// Rows of floats and one number for all of them.
struct Scale {
    columns: u32,
    factor: f32,
    padding_a: u32,
    padding_b: u32,
}

@group(0) @binding(1) var<uniform> shape: Scale;
