//! The encoders' kernels against their twins, on every adapter.

use roadbed_compute::Gpu;
use roadbed_compute::embedding::params::{AttendShape, TextRows};
use roadbed_compute::kernels::encoder::{self, Activation, Pooling};
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::llm::params::{NormShape, RowShape, Step};
use roadbed_compute::reference::encoder as twin;

use crate::adapters;
use crate::kernels_equal::{METHODS, check, floats, row_groups, run};
use crate::random::Random;

/// Texts of these lengths, packed, and the step that says so.
fn packed(gpu: &Gpu, lengths: &[usize]) -> [wgpu::Buffer; 2] {
    let mut places = Vec::new();
    let mut texts = Vec::new();
    for length in lengths {
        let rows = TextRows { first: places.len() as u32, count: *length as u32 };
        places.resize(places.len() + length, rows);
        texts.push(rows);
    }
    let step = Step { rows: places.len() as u32, selected: texts.len() as u32, ..Step::default() };
    places.extend(texts);
    [
        gpu.uniform("step", &step).unwrap(),
        gpu.storage_with("texts", bytemuck::cast_slice(&places)).unwrap(),
    ]
}

fn row_shape(gpu: &Gpu, columns: usize) -> wgpu::Buffer {
    gpu.uniform("shape", &RowShape { columns: columns as u32, ..RowShape::default() }).unwrap()
}

fn step(gpu: &Gpu, rows: usize) -> wgpu::Buffer {
    gpu.uniform("step", &Step { rows: rows as u32, ..Step::default() }).unwrap()
}

#[test]
fn activations_match_from_tiny_to_huge() {
    use Activation::{GeluErf, GeluTanh, Relu, Silu};
    for gpu in adapters::all() {
        let mut random = Random::new(51);
        for (rows, columns, size) in [(1, 4, 1e-3), (7, 164, 5.0), (3, 1536, 50.0)] {
            let x: Vec<f32> = random.floats(rows * columns).iter().map(|v| v * size).collect();
            let bias = random.floats(columns);
            for activation in [GeluErf, GeluTanh, Relu, Silu] {
                let kernel = encoder::activate(activation);
                let buffers = [
                    &step(gpu, rows),
                    &row_shape(gpu, columns),
                    &floats(gpu, &bias),
                    &floats(gpu, &x),
                ];
                let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
                let found = run(gpu, kernel, &[], &buffers, groups);
                let mut expected = x.clone();
                twin::activate(&mut expected, &bias, activation);
                check(kernel, &found, &expected, "activation");
            }
        }
    }
}

#[test]
fn layer_norms_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(52);
        for (rows, columns) in [(1, 32), (9, 96), (70, 1024)] {
            let x: Vec<f32> = random.floats(rows * columns).iter().map(|v| v * 3.0 + 2.0).collect();
            let branch = random.floats(rows * columns);
            let vectors = random.floats(3 * columns);
            let mut expected = x.clone();
            twin::layer_norm(&mut expected, &branch, &vectors, 1e-12);
            let shape =
                NormShape { columns: columns as u32, epsilon: 1e-12, ..NormShape::default() };
            for method in METHODS {
                let kernel = encoder::layer_norm(method);
                let buffers = [
                    &step(gpu, rows),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &floats(gpu, &branch),
                    &floats(gpu, &vectors),
                    &floats(gpu, &x),
                ];
                let found = run(gpu, kernel, &[], &buffers, row_groups(method, rows));
                check(kernel, &found, &expected, "layer norm");
            }
        }
    }
}

/// Attention and the pooling behind it over texts of all lengths side by side.
#[test]
fn texts_attend_to_themselves_alone() {
    for gpu in adapters::all() {
        let mut random = Random::new(53);
        let cases: [(&[usize], usize, usize); 4] =
            [(&[1], 1, 4), (&[7, 1, 30, 2], 3, 16), (&[65, 3], 12, 32), (&[9, 130], 2, 128)];
        for (lengths, heads, head) in cases {
            let width = heads * head;
            let rows: usize = lengths.iter().sum();
            let qkv: Vec<f32> = random.floats(rows * 3 * width).iter().map(|v| v * 4.0).collect();
            let [step, texts] = packed(gpu, lengths);
            let shape = AttendShape {
                heads: heads as u32,
                head: head as u32,
                score_scale: 1.0 / (head as f32).sqrt(),
                padding: 0,
            };
            let mut expected = Vec::new();
            let mut rest = qkv.as_slice();
            for length in lengths {
                let (text, behind) = rest.split_at(length * 3 * width);
                expected.extend(twin::attend(text, heads, head));
                rest = behind;
            }
            for method in [Method::Lane, Method::Group] {
                let buffers = [
                    &step,
                    &gpu.uniform("shape", &shape).unwrap(),
                    &texts,
                    &floats(gpu, &qkv),
                    &floats(gpu, &vec![0.0; rows * width]),
                ];
                let tiles = (rows as u32).div_ceil(encoder::attend_rows(method));
                let constants = encoder::attend_constants(method, head as u32);
                let found =
                    run(gpu, &encoder::ATTEND, &constants, &buffers, [heads as u32, tiles, 1]);
                check(
                    &encoder::ATTEND,
                    &found,
                    &expected,
                    &format!("{lengths:?} {heads} x {head}"),
                );
            }
            for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Max] {
                let mut pooled = Vec::new();
                let mut rest = expected.as_slice();
                for length in lengths {
                    let (text, behind) = rest.split_at(length * width);
                    pooled.extend(twin::pool(text, width, pooling));
                    rest = behind;
                }
                let buffers = [
                    &step,
                    &row_shape(gpu, width),
                    &texts,
                    &floats(gpu, &expected),
                    &floats(gpu, &vec![0.0; lengths.len() * width]),
                ];
                let groups = [(width as u32 / 4).div_ceil(64), lengths.len() as u32, 1];
                let constants = encoder::pool_constants(pooling);
                let found = run(gpu, &encoder::POOL, &constants, &buffers, groups);
                check(&encoder::POOL, &found, &pooled, &format!("{pooling:?}"));
            }
        }
    }
}
