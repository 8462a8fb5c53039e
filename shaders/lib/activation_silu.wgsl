// silu(g) = g / (1 + exp(-g)).
fn activation(gate: vec4<f32>) -> vec4<f32> {
    return gate / (1.0 + exp(-gate));
}
