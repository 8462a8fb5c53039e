// A norm over rows: four columns at a time, so columns is a multiple of 4.
struct Norm {
    columns: u32,
    selecting: u32,
    epsilon: f32,
    padding: u32,
}

@group(0) @binding(1) var<uniform> norm: Norm;
