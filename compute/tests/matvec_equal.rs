//! Every variant of the matrix-vector product against its CPU twin, on every adapter, and against
//! itself: a row of activations gives the same bits whoever shares its reading of the weights.

use roadbed_compute::Gpu;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::kernels::matvec::MatvecVariant;
use roadbed_compute::llm::packing;
use roadbed_compute::llm::params::{MatrixShape, Step};
use roadbed_compute::reference::ops;

use crate::adapters;
use crate::kernels_equal::{METHODS, Matrix, check, floats, run};
use crate::random::Random;

/// Where the product goes in each row of the result.
const OUT_FIRST: u32 = 3;
const ROW_FIRST: u32 = 2;

/// The type that all variants are tried with; the others, which differ in decoding only, get the
/// untried choice of either method. Compiling a kernel is dearer than running it here.
const THOROUGH: TensorType = TensorType::Q4_1;

fn variants(kind: TensorType, columns: usize) -> Vec<MatvecVariant> {
    let mut variants = METHODS.map(|method| MatvecVariant::of(method, columns)).to_vec();
    if kind == THOROUGH {
        let group = MatvecVariant::of(Method::Group, columns);
        variants.extend(
            [(64, 64, 2), (32, 16, 4)].map(|(workgroup, lanes, parts)| MatvecVariant {
                workgroup,
                lanes,
                parts,
                ..group
            }),
        );
    }
    variants
}

/// The product of `x` with the matrix in the middle of wider rows of ones, `x_rows` rows at a time.
fn product(
    gpu: &Gpu,
    variant: MatvecVariant,
    matrix: &Matrix,
    x: &[f32],
    x_rows: u32,
    accumulate: bool,
) -> Vec<f32> {
    let stride = matrix.rows + 9;
    let rows = (x.len() / matrix.columns) as u32;
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
    let buffers = [
        &gpu.uniform("step", &step).unwrap(),
        &gpu.uniform("shape", &shape).unwrap(),
        &quants,
        &scales,
        &floats(gpu, x),
        &floats(gpu, &vec![1.0; rows as usize * stride]),
    ];
    let kernel = variant.kernel(packing::format_of(matrix.kind));
    // Folded in two, as long lists are.
    let groups = [variant.groups(matrix.rows as u32).div_ceil(2), 2, rows.div_ceil(x_rows)];
    run(gpu, kernel, &variant.constants(x_rows), &buffers, groups)
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
                let wanted = expected(&matrix, &x, accumulate);
                for variant in variants(kind, columns) {
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
