//! Every kernel variant against its CPU twin, on every adapter, ragged shapes included.

use roadbed_compute::Gpu;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::dequant::dequantise;
use roadbed_compute::kernels::Kernel;
use roadbed_compute::kernels::llm::{self, Matmul, Method};
use roadbed_compute::llm::packing::{self, Packed};
use roadbed_compute::llm::params::{MatrixShape, NormShape, Row, RowShape, Step};
use roadbed_compute::reference::ops;

use crate::adapters;
use crate::random::Random;

pub const METHODS: [Method; 2] = [Method::Lane, Method::Group];

/// Runs one dispatch and returns the last buffer as floats.
pub fn run(
    gpu: &Gpu,
    kernel: &'static Kernel,
    constants: &[(&'static str, f64)],
    buffers: &[&wgpu::Buffer],
    groups: [u32; 3],
) -> Vec<f32> {
    let pipeline = gpu.pipeline(kernel, constants).unwrap();
    let bind_group = gpu.bind(&pipeline, buffers).unwrap();
    let mut encoder = gpu.encoder(kernel.name);
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        Gpu::dispatch(&mut pass, &pipeline, &bind_group, groups);
    }
    gpu.run(encoder, kernel.name).unwrap();
    read(gpu, buffers.last().unwrap())
}

pub fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&gpu.read(buffer, buffer.size(), "test").unwrap())
}

pub fn floats(gpu: &Gpu, data: &[f32]) -> wgpu::Buffer {
    gpu.storage_with("floats", bytemuck::cast_slice(data)).unwrap()
}

#[track_caller]
pub fn check(kernel: &Kernel, found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{}: {what}", kernel.name);
    let scale = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(kernel.accepts(*f, *e, scale), "{}: {what}: [{i}] is {f}, not {e}", kernel.name);
    }
}

fn one_sequence(rows: usize) -> Step {
    Step { rows: rows as u32, selected: rows as u32, kv_length: rows as u32, forced: 0 }
}

/// A packed random matrix and its exact weights.
pub struct Matrix {
    pub kind: TensorType,
    pub rows: usize,
    pub columns: usize,
    packed: Packed,
    pub weights: Vec<f32>,
}

impl Matrix {
    pub fn random(random: &mut Random, kind: TensorType, rows: usize, columns: usize) -> Self {
        let data = random.weights(kind, rows * columns);
        let mut packed = Packed::default();
        for row in data.chunks_exact(data.len() / rows) {
            packing::pack_row(kind, "test", row, &mut packed).unwrap();
        }
        let (quants, scales) = packing::row_bytes(packing::format_of(kind), columns);
        assert_eq!((packed.quants.len(), packed.scales.len()), (quants * rows, scales * rows));
        Self { weights: dequantise(kind, &data), kind, rows, columns, packed }
    }

    pub fn upload(&self, gpu: &Gpu) -> [wgpu::Buffer; 2] {
        let mut scales = self.packed.scales.clone();
        scales.resize(scales.len().max(8), 0);
        [
            gpu.storage_with("quants", &self.packed.quants).unwrap(),
            gpu.storage_with("scales", &scales).unwrap(),
        ]
    }
}

/// The product of `x` with the matrix, written into the middle of wider rows of ones.
fn product(gpu: &Gpu, matmul: Matmul, matrix: &Matrix, x: &[f32], accumulate: bool) {
    let (rows, columns) = (matrix.rows, matrix.columns);
    let x_rows = x.len() / columns;
    let (first, row_first, stride) = (3, 2, rows + 9);
    let shape = MatrixShape {
        columns: columns as u32,
        rows: rows as u32,
        row_first,
        out_stride: stride as u32,
        out_first: first,
        accumulate: u32::from(accumulate),
        // Selected rows and all rows are the same number here; the other must not matter.
        selecting: u32::from(accumulate),
        padding: 0,
    };
    let step = Step {
        rows: if accumulate { 9999 } else { x_rows as u32 },
        selected: if accumulate { x_rows as u32 } else { 9999 },
        ..one_sequence(x_rows)
    };
    let format = packing::format_of(matrix.kind);
    let kernel = matmul.kernel(format);
    let groups = matmul.groups(rows as u32, x_rows as u32);
    let [quants, scales] = matrix.upload(gpu);
    let buffers = [
        &gpu.uniform("step", &step).unwrap(),
        &gpu.uniform("shape", &shape).unwrap(),
        &quants,
        &scales,
        &floats(gpu, x),
        &floats(gpu, &vec![1.0; x_rows * stride]),
    ];
    let found = run(gpu, kernel, matmul.constants(), &buffers, groups);
    let mut expected = vec![1.0; x_rows * stride];
    for (r, row) in ops::matmul(&matrix.weights, columns, x).chunks_exact(rows).enumerate() {
        for (n, value) in row.iter().enumerate() {
            let at = r * stride + first as usize + row_first as usize + n;
            expected[at] = value + f32::from(u8::from(accumulate));
        }
    }
    let what = format!("{} {rows}x{columns} by {x_rows}, {}", matrix.kind, gpu.summary());
    check(kernel, &found, &expected, &what);
}

#[test]
fn prefill_products_match() {
    let shapes =
        [(1, 32_usize, 1), (1, 32, 2), (5, 96, 7), (33, 160, 9), (70, 544, 65), (130, 64, 130)];
    for gpu in adapters::all() {
        let mut random = Random::new(1);
        for kind in TensorType::ALL {
            for (rows, columns, x_rows) in shapes {
                let columns = columns.next_multiple_of(kind.block_weights().max(32));
                let matrix = Matrix::random(&mut random, kind, rows, columns);
                let x = random.floats(x_rows * columns);
                let lanes = gpu.subgroup_lanes();
                for matmul in Matmul::ALL.into_iter().filter(|m| m.runs_with(lanes)) {
                    // The same kernel with other constants: one type is enough.
                    if matmul == Matmul::RegistersNarrow && kind != TensorType::Q4_1 {
                        continue;
                    }
                    product(gpu, matmul, &matrix, &x, rows % 2 == 0);
                }
            }
        }
    }
}

#[test]
fn embeddings_match_over_shards() {
    for gpu in adapters::all() {
        let mut random = Random::new(2);
        for kind in TensorType::ALL {
            let columns = kind.block_weights().max(96).next_multiple_of(32);
            let matrix = Matrix::random(&mut random, kind, 50, columns);
            let ids: Vec<u32> = (0..37).map(|_| random.word() % 50).chain([0, 49]).collect();
            let expected = ops::embed(&matrix.weights, columns, &ids);
            let kernel = llm::embed(packing::format_of(kind));
            let out = floats(gpu, &vec![9.0; expected.len()]);
            let ids_buffer = gpu.storage_with("ids", bytemuck::cast_slice(&ids)).unwrap();
            let step = gpu.uniform("step", &one_sequence(ids.len())).unwrap();
            // Two shards: the first 20 rows and the other 30.
            let mut found = Vec::new();
            for (row_first, rows) in [(0_usize, 20_usize), (20, 30)] {
                let part = |bytes: &[u8]| {
                    let row = bytes.len() / 50;
                    let mut part = bytes[row_first * row..(row_first + rows) * row].to_vec();
                    part.resize(part.len().max(8), 0);
                    gpu.storage_with("shard", &part).unwrap()
                };
                let shape = MatrixShape {
                    columns: columns as u32,
                    rows: rows as u32,
                    row_first: row_first as u32,
                    ..MatrixShape::default()
                };
                let buffers = [
                    &step,
                    &gpu.uniform("shape", &shape).unwrap(),
                    &part(&matrix.packed.quants),
                    &part(&matrix.packed.scales),
                    &ids_buffer,
                    &out,
                ];
                let groups = [(columns as u32 / 8).div_ceil(64), ids.len() as u32, 1];
                found = run(gpu, kernel, &[], &buffers, groups);
            }
            check(kernel, &found, &expected, &format!("{kind}"));
        }
    }
}

/// Workgroups of a kernel that works on rows.
pub fn row_groups(method: Method, lines: usize) -> [u32; 3] {
    match method {
        Method::Lane => [(lines as u32).div_ceil(8), 1, 1],
        Method::Group => [lines as u32, 1, 1],
    }
}

#[test]
fn norms_match_for_all_rows_and_for_a_selection() {
    for gpu in adapters::all() {
        let mut random = Random::new(3);
        for (rows, columns) in [(1, 32), (3, 576), (9, 96), (70, 1024)] {
            let (x, weight) = (random.floats(rows * columns), random.floats(columns));
            let expected = ops::rms_norm(&x, &weight, 1e-5);
            for (method, selecting) in METHODS.into_iter().flat_map(|m| [(m, false), (m, true)]) {
                // Every second row from the last of the first pair on.
                let selected = rows.div_ceil(2);
                let step = Step { selected: selected as u32, ..one_sequence(rows) };
                let first = (rows - 1) as u32 % 2;
                let chosen = (0..selected as u32).map(|i| first + 2 * i);
                let table: Vec<Row> = vec![Row::default(); rows]
                    .into_iter()
                    .chain(chosen.map(|row| Row { position: row, pages_at: 0 }))
                    .collect();
                let shape = NormShape {
                    columns: columns as u32,
                    selecting: u32::from(selecting),
                    epsilon: 1e-5,
                    padding: 0,
                };
                let out_rows = if selecting { selected } else { rows };
                let buffers = [
                    &gpu.uniform("step", &step).unwrap(),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &gpu.storage_with("rows", bytemuck::cast_slice(&table)).unwrap(),
                    &floats(gpu, &x),
                    &floats(gpu, &weight),
                    &floats(gpu, &vec![0.0; out_rows * columns]),
                ];
                let kernel = llm::rms_norm(method);
                let found = run(gpu, kernel, &[], &buffers, row_groups(method, out_rows));
                let wanted: Vec<f32> = match selecting {
                    false => expected.clone(),
                    true => expected
                        .chunks_exact(columns)
                        .skip((rows - 1) % 2)
                        .step_by(2)
                        .flatten()
                        .copied()
                        .collect(),
                };
                check(kernel, &found, &wanted, &format!("{rows}x{columns} {selecting}"));
            }
        }
    }
}

#[test]
fn reflections_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(4);
        for (rows, columns) in [(1, 32), (9, 576), (70, 100)] {
            let x = random.floats(rows * columns);
            let v = random.floats(columns);
            let norm = v.iter().map(|v| v * v).sum::<f32>().sqrt();
            let v: Vec<f32> = v.iter().map(|v| v / norm).collect();
            let mut expected = x.clone();
            ops::reflect(&mut expected, &v);
            for method in METHODS {
                let shape = RowShape { columns: columns as u32, ..RowShape::default() };
                let buffers = [
                    &gpu.uniform("step", &one_sequence(rows)).unwrap(),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &floats(gpu, &v),
                    &floats(gpu, &x),
                ];
                let kernel = llm::reflect(method);
                let found = run(gpu, kernel, &[], &buffers, row_groups(method, rows));
                check(kernel, &found, &expected, &format!("{rows}x{columns}"));
            }
        }
    }
}

#[test]
fn gates_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(5);
        for (rows, columns) in [(1, 32), (7, 160), (3, 1536)] {
            let gate_up: Vec<f32> =
                random.floats(rows * 2 * columns).iter().map(|v| v * 8.0).collect();
            let shape = RowShape { columns: columns as u32, ..RowShape::default() };
            let buffers = [
                &gpu.uniform("step", &one_sequence(rows)).unwrap(),
                &gpu.uniform("shape", &shape).unwrap(),
                &floats(gpu, &gate_up),
                &floats(gpu, &vec![0.0; rows * columns]),
            ];
            let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
            let found = run(gpu, &llm::SILU_MUL, &[], &buffers, groups);
            check(&llm::SILU_MUL, &found, &ops::silu_mul(&gate_up, columns), "gate");
        }
    }
}
