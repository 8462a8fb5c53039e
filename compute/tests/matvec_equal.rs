//! Every variant of the matrix-vector product against its CPU twin, on every adapter, and against
//! itself: a row of activations gives the same bits whoever shares its reading of the weights.

use roadbed_compute::Gpu;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::kernels::matvec::{Activations, MatvecVariant, QUANTISE_Q16, Sharing};
use roadbed_compute::llm::packing;
use roadbed_compute::llm::params::{MatrixShape, QuantiseShape, Step};
use roadbed_compute::reference::ops;
use roadbed_compute::reference::quantised::{dequantise_q16, quantise_q16, split_levels};

use crate::adapters;
use crate::kernels_equal::{Matrix, check, floats, read, run};
use crate::random::Random;

/// Where the product goes in each row of the result.
const OUT_FIRST: u32 = 3;
const ROW_FIRST: u32 = 2;

/// The type that all variants are tried with; the others, which differ in decoding only, get the
/// untried choice of either method. Compiling a kernel is dearer than running it here.
const THOROUGH: TensorType = TensorType::Q4_1;

fn variants(gpu: &Gpu, kind: TensorType, columns: usize) -> Vec<MatvecVariant> {
    let format = packing::format_of(kind);
    let of =
        |method, lanes, activations| MatvecVariant::of(method, lanes, activations, format, columns);
    let group = |activations| of(Method::Group, None, activations);
    let mut variants = Vec::new();
    for activations in [Activations::F32, Activations::Q16] {
        variants.push(of(Method::Lane, None, activations));
        variants.push(group(activations));
    }
    variants.push(of(Method::Lane, gpu.subgroup_lanes(), Activations::F32));
    if kind == THOROUGH {
        let [f32, q8] = [Activations::F32, Activations::Q16].map(group);
        variants.push(MatvecVariant { workgroup: 64, lanes: 64, parts: 2, ..f32 });
        variants.push(MatvecVariant { workgroup: 32, lanes: 16, parts: 2, ..q8 });
        if let Some(lanes) = gpu.subgroup_lanes() {
            let sharing = Sharing::Subgroup;
            variants.push(MatvecVariant { sharing, lanes, ..f32 });
            variants.push(MatvecVariant { sharing, lanes, ..q8 });
        }
    }
    // Formats of floats have no other kernel for quantised activations, and not all adapters spread.
    let mut seen = Vec::new();
    variants.retain(|variant| {
        !seen.contains(variant) && {
            seen.push(*variant);
            true
        }
    });
    variants
}

/// Activations on the GPU, and the floats they stand for.
struct Rows {
    buffers: Vec<wgpu::Buffer>,
    meant: Vec<f32>,
}

impl Rows {
    fn new(gpu: &Gpu, activations: Activations, x: &[f32]) -> Self {
        match activations {
            Activations::F32 => Self { buffers: vec![floats(gpu, x)], meant: x.to_vec() },
            Activations::Q16 => {
                let (levels, scales) = quantise_q16(x);
                let words = gpu
                    .storage_with("words", bytemuck::cast_slice(&split_levels(&levels)))
                    .unwrap();
                let pairs = gpu.storage_with("scales", bytemuck::cast_slice(&scales)).unwrap();
                Self { buffers: vec![words, pairs], meant: dequantise_q16(&levels, &scales) }
            }
        }
    }
}

/// The product of `x` with the matrix in the middle of wider rows of ones, `x_rows` rows at a time.
fn product(
    gpu: &Gpu,
    variant: MatvecVariant,
    matrix: &Matrix,
    x: &Rows,
    x_rows: u32,
    accumulate: bool,
) -> Vec<f32> {
    let stride = matrix.rows + 9;
    let rows = (x.meant.len() / matrix.columns) as u32;
    let shape = MatrixShape {
        columns: matrix.columns as u32,
        rows: matrix.rows as u32,
        row_first: ROW_FIRST,
        out_stride: stride as u32,
        out_first: OUT_FIRST,
        accumulate: u32::from(accumulate),
        // Selected rows and all rows are the same number here; the other must not matter.
        selecting: u32::from(accumulate),
        padding: 0,
    };
    let step = Step {
        rows: if accumulate { 9999 } else { rows },
        selected: if accumulate { rows } else { 9999 },
        ..Step::default()
    };
    let [quants, scales] = matrix.upload(gpu);
    let out = floats(gpu, &vec![1.0; rows as usize * stride]);
    let step = gpu.uniform("step", &step).unwrap();
    let shape = gpu.uniform("shape", &shape).unwrap();
    let mut buffers = vec![&step, &shape, &quants, &scales, &x.buffers[0], &out];
    buffers.extend(x.buffers.get(1));
    let kernel = variant.kernel(packing::format_of(matrix.kind));
    // Folded in two, as long lists are.
    let groups = [variant.groups(matrix.rows as u32).div_ceil(2), 2, rows.div_ceil(x_rows)];
    run(gpu, kernel, &variant.constants(x_rows), &buffers, groups);
    read(gpu, &out)
}

fn expected(matrix: &Matrix, x: &[f32], accumulate: bool) -> Vec<f32> {
    let stride = matrix.rows + 9;
    let mut expected = vec![1.0; x.len() / matrix.columns * stride];
    let products = ops::matmul(&matrix.weights, matrix.columns, x);
    for (row, into) in products.chunks_exact(matrix.rows).zip(expected.chunks_exact_mut(stride)) {
        for (value, into) in row.iter().zip(&mut into[(OUT_FIRST + ROW_FIRST) as usize..]) {
            *into = value + f32::from(u8::from(accumulate));
        }
    }
    expected
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn decoding_products_match_and_do_not_depend_on_neighbours() {
    for gpu in adapters::all() {
        let mut random = Random::new(1);
        for kind in TensorType::ALL {
            let together: &[u32] = if kind == THOROUGH { &[2, 4, 8] } else { &[8] };
            for (rows, columns, x_rows) in [(1, 32_usize, 1), (33, 160, 7), (70, 1056, 9)] {
                let columns = columns.next_multiple_of(kind.block_weights().max(32));
                let matrix = Matrix::random(&mut random, kind, rows, columns);
                let x = random.floats(x_rows * columns);
                let accumulate = rows % 2 == 0;
                for variant in variants(gpu, kind, columns) {
                    let x = Rows::new(gpu, variant.activations, &x);
                    let wanted = expected(&matrix, &x.meant, accumulate);
                    let what = format!("{kind} {rows}x{columns} by {x_rows}, {variant:?}");
                    let alone = product(gpu, variant, &matrix, &x, 1, accumulate);
                    check(variant.kernel(packing::format_of(kind)), &alone, &wanted, &what);
                    for together in together {
                        let found = product(gpu, variant, &matrix, &x, *together, accumulate);
                        assert_eq!(bits(&found), bits(&alone), "{together} at a time: {what}");
                    }
                }
            }
        }
    }
}

#[test]
fn quantised_rows_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(7);
        for (rows, columns) in [(1, 32), (3, 576), (9, 1536)] {
            let mut x = random.floats(rows * columns);
            // A block of nothing has no scale to divide by.
            x[..32].fill(0.0);
            let shape = QuantiseShape { columns: columns as u32, ..QuantiseShape::default() };
            let step = Step { rows: rows as u32, ..Step::default() };
            let scales = gpu.storage("scales", (rows * columns / 4) as u64).unwrap();
            let words = gpu.storage("words", (2 * rows * columns) as u64).unwrap();
            let buffers = [
                &gpu.uniform("step", &step).unwrap(),
                &gpu.uniform("shape", &shape).unwrap(),
                &floats(gpu, &x),
                &scales,
                &words,
            ];
            let groups = [(columns as u32 / 32).div_ceil(8), rows as u32, 1];
            run(gpu, &QUANTISE_Q16, &[], &buffers, groups);
            let found: Vec<i8> =
                bytemuck::pod_collect_to_vec(&gpu.read(&words, words.size(), "words").unwrap());
            let (levels, wanted) = quantise_q16(&x);
            let wanted_bytes = split_levels(&levels);
            for (found, wanted) in found.chunks_exact(32).zip(wanted_bytes.chunks_exact(32)) {
                let level =
                    |half: &[i8], i: usize| f32::from(half[i]) * 128.0 + f32::from(half[16 + i]);
                for i in 0..16 {
                    assert!(QUANTISE_Q16.accepts(level(found, i), level(wanted, i), 0.0));
                }
            }
            for (found, wanted) in read(gpu, &scales).chunks_exact(2).zip(&wanted) {
                assert!((found[0] - wanted[0]).abs() <= 1e-6 * wanted[0]);
                // A few levels may have gone the other way.
                assert!((found[1] - wanted[1]).abs() <= 8.5 * wanted[0]);
            }
        }
    }
}
