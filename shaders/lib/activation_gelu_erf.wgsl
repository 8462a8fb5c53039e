// gelu(x) = x / 2 * (1 + erf(x / sqrt(2))).
//
// erf is a ratio of polynomials in x (Eigen, `generic_fast_erf_float`), 4.2e-7 off at most; beyond 4 it
// is 1 to the last bit.
fn erf(value: vec4<f32>) -> vec4<f32> {
    let x = clamp(value, vec4<f32>(-4.0), vec4<f32>(4.0));
    let s = x * x;
    var above = s * -2.72614225801306e-10 + 2.77068142495902e-8;
    above = above * s - 2.10102402082508e-6;
    above = above * s - 5.69250639462346e-5;
    above = above * s - 7.34990630326855e-4;
    above = above * s - 2.95459980854025e-3;
    above = above * s - 1.60960333262415e-2;
    var below = s * -1.45660718464996e-5 - 2.13374055278905e-4;
    below = below * s - 1.68282697438203e-3;
    below = below * s - 7.37332916720468e-3;
    below = below * s - 1.42647390514189e-2;
    return x * above / below;
}

fn activation(x: vec4<f32>) -> vec4<f32> {
    return 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
}
