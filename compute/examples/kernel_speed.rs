//! Times the matrix kernels of both methods on one adapter, checked against nothing: `make test` does
//! that. Prints weights per second (matvec) and FLOP per second (matmul), per wall second and
//! normalised to CPU time / 2, which is what counts on a busy machine with a software adapter.
//!
//! `cargo run --release -p roadbed-compute --example kernel_speed [adapter]`

use std::time::Instant;

use roadbed_compute::gpu::{Gpu, GpuError};
use roadbed_compute::kernels::llm::{Matmul, Method, WeightFormat};
use roadbed_compute::kernels::matvec::{Activations, MatvecVariant, is_whole};
use roadbed_compute::llm::packing;
use roadbed_compute::llm::params::{MatrixShape, Step};

/// CPU seconds of this process, drivers' threads included.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: f64 =
        stat.split(' ').skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Weight rows, columns and rows of activations.
const SHAPES: [(u32, u32, u32); 6] = [
    (4096, 1536, 1),
    (4096, 1536, 2),
    (4096, 1536, 4),
    (4096, 1536, 8),
    (1536, 576, 32),
    (1536, 576, 64),
];

struct Case {
    format: WeightFormat,
    method: Method,
    activations: Activations,
    rows: u32,
    columns: u32,
    x_rows: u32,
}

fn time(gpu: &Gpu, case: &Case) -> Result<(f64, f64), GpuError> {
    let Case { format, method, activations, rows, columns, x_rows } = *case;
    let (quants, scales) = packing::row_bytes(format, columns as usize);
    let quants = gpu.storage_with("quants", &vec![0x55; quants * rows as usize])?;
    let scales = gpu.storage_with("scales", &vec![0x11; (scales * rows as usize).max(16)])?;
    let x = gpu.storage("x", u64::from(x_rows * columns) * 4)?;
    let x_scales = gpu.storage("scales of x", u64::from(x_rows * columns) / 4)?;
    let out = gpu.storage("out", u64::from(x_rows * rows) * 4)?;
    let step = Step { rows: x_rows, selected: x_rows, ..Step::default() };
    let shape = MatrixShape { columns, rows, out_stride: rows, ..MatrixShape::default() };
    let step = gpu.uniform("step", &step)?;
    let shape = gpu.uniform("shape", &shape)?;
    let mut buffers = vec![&step, &shape, &quants, &scales, &x, &out];
    let lanes = gpu.subgroup_lanes();
    let vector = MatvecVariant::of(method, lanes, activations, format, columns as usize);
    let (pipeline, groups) = match x_rows {
        1..=8 => {
            let sharing = MatvecVariant::x_rows(x_rows);
            let pipeline = gpu.pipeline(vector.kernel(format), &vector.constants(sharing))?;
            (pipeline, [vector.groups(rows), 1, x_rows.div_ceil(sharing)])
        }
        _ => {
            let matmul = Matmul::of(method, lanes);
            let pipeline = gpu.pipeline(matmul.kernel(format), matmul.constants())?;
            (pipeline, matmul.groups(rows, x_rows))
        }
    };
    if vector.activations == Activations::Q16 && x_rows <= 8 {
        buffers.push(&x_scales);
    }
    let bind_group = gpu.bind(&pipeline, &buffers)?;
    let run = |times: u32| -> Result<(), GpuError> {
        let mut encoder = gpu.encoder("speed");
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..times {
                Gpu::dispatch(&mut pass, &pipeline, &bind_group, groups);
            }
        }
        gpu.run(encoder, "speed")
    };
    run(1)?;
    let mut times = 1;
    loop {
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        run(times)?;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        if wall > 0.3 {
            return Ok((wall / f64::from(times), cpu / 2.0 / f64::from(times)));
        }
        times *= 4;
    }
}

fn main() -> Result<(), GpuError> {
    let choice = std::env::args().nth(1).unwrap_or_default();
    let Ok(choice) = choice.parse();
    let gpu = Gpu::open(&choice)?;
    println!("{}", gpu.summary());
    let only = std::env::args().nth(2).unwrap_or_default();
    let activations = [Activations::F32, Activations::Q16];
    for method in [Method::Lane, Method::Group] {
        for format in WeightFormat::ALL {
            for (activations, (rows, columns, x_rows)) in activations
                .into_iter()
                .flat_map(|activations| SHAPES.map(|shape| (activations, shape)))
            {
                let label =
                    format!("{format:?} {method:?} {activations:?} {rows}x{columns} by {x_rows}");
                let same = activations == Activations::Q16 && (x_rows > 8 || !is_whole(format));
                if same || !label.contains(&only) {
                    continue;
                }
                let case = Case { format, method, activations, rows, columns, x_rows };
                let (wall, cpu) = time(&gpu, &case)?;
                let work = f64::from(rows) * f64::from(columns) * f64::from(x_rows) / 1e9;
                let (unit, factor) = match x_rows {
                    1 => ("Gweight/s", 1.0),
                    _ => ("GFLOP/s", 2.0),
                };
                println!(
                    "{label:40} {:8.2} {unit} wall, {:8.2} by CPU",
                    factor * work / wall,
                    factor * work / cpu.max(1e-9)
                );
            }
        }
    }
    Ok(())
}
