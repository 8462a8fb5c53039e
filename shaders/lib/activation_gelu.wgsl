// gelu(g) = g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 g^3))).
fn activation(gate: vec4<f32>) -> vec4<f32> {
    let inner = 0.7978845608 * gate * (1.0 + 0.044715 * gate * gate);
    // tanh is 1 to the last bit beyond 9, and some drivers make it of exponentials that overflow.
    let bent = tanh(clamp(inner, vec4<f32>(-10.0), vec4<f32>(10.0)));
    return 0.5 * gate * (1.0 + bent);
}
