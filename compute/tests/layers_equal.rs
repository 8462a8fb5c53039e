//! The small kernels that only some families have, against their twins, on every adapter.

use roadbed_compute::Gpu;
use roadbed_compute::kernels::llm;
use roadbed_compute::llm::params::{HeadNormShape, NormShape, RowShape, ScaleShape, Step};
use roadbed_compute::reference::ops;

use crate::adapters;
use crate::kernels_equal::{METHODS, check, floats, row_groups, run};
use crate::random::Random;

fn step(gpu: &Gpu, rows: usize) -> wgpu::Buffer {
    // Selected rows and all rows are the same number here.
    let step = Step { rows: rows as u32, selected: rows as u32, ..Step::default() };
    gpu.uniform("step", &step).unwrap()
}

fn row_shape(gpu: &Gpu, columns: usize) -> wgpu::Buffer {
    gpu.uniform("shape", &RowShape { columns: columns as u32, ..RowShape::default() }).unwrap()
}

#[test]
fn gelu_gates_match_from_tiny_to_huge() {
    for gpu in adapters::all() {
        let mut random = Random::new(21);
        for (rows, columns) in [(1, 32), (7, 160), (3, 1536)] {
            // Up to 1000: the cube inside tanh must not overflow.
            let size = [0.01, 3.0, 1000.0][rows % 3];
            let gate_up: Vec<f32> =
                random.floats(rows * 2 * columns).iter().map(|v| v * size).collect();
            let buffers = [
                &step(gpu, rows),
                &row_shape(gpu, columns),
                &floats(gpu, &gate_up),
                &floats(gpu, &vec![0.0; rows * columns]),
            ];
            let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
            let found = run(gpu, &llm::GELU_MUL, &[], &buffers, groups);
            check(&llm::GELU_MUL, &found, &ops::gelu_mul(&gate_up, columns), "gate");
        }
    }
}

#[test]
fn biases_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(22);
        for (rows, columns) in [(1, 4), (7, 164), (3, 1536)] {
            let (x, bias) = (random.floats(rows * columns), random.floats(columns));
            let buffers =
                [&step(gpu, rows), &row_shape(gpu, columns), &floats(gpu, &bias), &floats(gpu, &x)];
            let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
            let found = run(gpu, &llm::BIAS, &[], &buffers, groups);
            let mut expected = x.clone();
            ops::bias(&mut expected, &bias);
            check(&llm::BIAS, &found, &expected, "bias");
        }
    }
}

#[test]
fn scales_and_softcaps_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(23);
        for (rows, columns, factor) in [(1, 61, 30.0), (7, 64, 5.0), (3, 1531, 0.5)] {
            let x: Vec<f32> = random.floats(rows * columns).iter().map(|v| v * 100.0).collect();
            let shape = ScaleShape { columns: columns as u32, factor, padding: [0; 2] };
            let shape = gpu.uniform("shape", &shape).unwrap();
            let groups = [(columns as u32).div_ceil(64), rows as u32, 1];
            let on_gpu = |kernel| {
                run(gpu, kernel, &[], &[&step(gpu, rows), &shape, &floats(gpu, &x)], groups)
            };
            let mut expected = x.clone();
            ops::scale(&mut expected, factor);
            check(&llm::SCALE, &on_gpu(&llm::SCALE), &expected, "scale");
            let mut expected = x.clone();
            ops::softcap(&mut expected, factor);
            check(&llm::SOFTCAP, &on_gpu(&llm::SOFTCAP), &expected, "softcap");
        }
    }
}

#[test]
fn post_norms_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(24);
        for (rows, columns) in [(1, 32), (9, 96), (70, 1024)] {
            let (branch, x) = (random.floats(rows * columns), random.floats(rows * columns));
            let weight = random.floats(columns);
            let mut expected = x.clone();
            ops::add(&mut expected, &ops::rms_norm(&branch, &weight, 1e-6));
            let shape =
                NormShape { columns: columns as u32, selecting: 0, epsilon: 1e-6, padding: 0 };
            for method in METHODS {
                let buffers = [
                    &step(gpu, rows),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &floats(gpu, &branch),
                    &floats(gpu, &weight),
                    &floats(gpu, &x),
                ];
                let kernel = llm::post_norm(method);
                let found = run(gpu, kernel, &[], &buffers, row_groups(method, rows));
                check(kernel, &found, &expected, &format!("{rows}x{columns}"));
            }
        }
    }
}

#[test]
fn head_norms_match_and_leave_values_alone() {
    for gpu in adapters::all() {
        let mut random = Random::new(25);
        for (rows, heads, kv_heads, head) in [(1, 1, 1, 4), (5, 6, 3, 24), (3, 8, 2, 128)] {
            let width = (heads + 2 * kv_heads) * head;
            let (qkv, weights) = (random.floats(rows * width), random.floats(2 * head));
            let (of_q, of_k) = weights.split_at(head);
            let mut expected = Vec::new();
            for row in qkv.chunks_exact(width) {
                let (q, rest) = row.split_at(heads * head);
                let (k, v) = rest.split_at(kv_heads * head);
                expected.extend(ops::rms_norm(q, of_q, 1e-6));
                expected.extend(ops::rms_norm(k, of_k, 1e-6));
                expected.extend(v);
            }
            let shape = HeadNormShape {
                heads: heads as u32,
                kv_heads: kv_heads as u32,
                head: head as u32,
                epsilon: 1e-6,
            };
            for method in METHODS {
                let buffers = [
                    &step(gpu, rows),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &floats(gpu, &weights),
                    &floats(gpu, &qkv),
                ];
                let kernel = llm::head_norm(method);
                let groups = row_groups(method, rows * (heads + kv_heads));
                let found = run(gpu, kernel, &[], &buffers, groups);
                check(kernel, &found, &expected, &format!("{rows} {heads}/{kv_heads} {head}"));
            }
        }
    }
}
