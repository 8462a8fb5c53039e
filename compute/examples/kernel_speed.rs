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

/// How a product is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Decode(Activations),
    Prefill(Matmul),
}

/// The ways that belong to a method and so many rows.
fn ways(gpu: &Gpu, method: Method, format: WeightFormat, x_rows: u32) -> Vec<Way> {
    if x_rows <= 8 {
        let floats = Way::Decode(Activations::F32);
        let whole = Way::Decode(Activations::Q16);
        return if is_whole(format) { vec![floats, whole] } else { vec![floats] };
    }
    let runs = |matmul: &Matmul| {
        let own = match matmul {
            Matmul::Lane | Matmul::Spread => Method::Lane,
            Matmul::Tile | Matmul::Registers | Matmul::RegistersNarrow => Method::Group,
        };
        own == method && matmul.runs_with(gpu.subgroup_lanes())
    };
    Matmul::ALL.into_iter().filter(runs).map(Way::Prefill).collect()
}

struct Case {
    format: WeightFormat,
    method: Method,
    way: Way,
    rows: u32,
    columns: u32,
    x_rows: u32,
}

fn time(gpu: &Gpu, case: &Case) -> Result<(f64, f64), GpuError> {
    let Case { format, method, way, rows, columns, x_rows } = *case;
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
    let (pipeline, groups) = match way {
        Way::Decode(activations) => {
            let vector = MatvecVariant::of(method, lanes, activations, format, columns as usize);
            let together = MatvecVariant::x_rows(x_rows);
            let pipeline = gpu.pipeline(vector.kernel(format), &vector.constants(together))?;
            if activations == Activations::Q16 {
                buffers.push(&x_scales);
            }
            (pipeline, [vector.groups(rows), 1, x_rows.div_ceil(together)])
        }
        Way::Prefill(matmul) => {
            let pipeline = gpu.pipeline(matmul.kernel(format), matmul.constants())?;
            (pipeline, matmul.groups(rows, x_rows))
        }
    };
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
    for method in [Method::Lane, Method::Group] {
        for format in WeightFormat::ALL {
            for (way, (rows, columns, x_rows)) in SHAPES.into_iter().flat_map(|shape| {
                ways(&gpu, method, format, shape.2).into_iter().map(move |way| (way, shape))
            }) {
                let label = format!("{format:?} {method:?} {way:?} {rows}x{columns} by {x_rows}");
                if !label.contains(&only) {
                    continue;
                }
                let case = Case { format, method, way, rows, columns, x_rows };
                let (wall, cpu) = time(&gpu, &case)?;
                let work = f64::from(rows) * f64::from(columns) * f64::from(x_rows) / 1e9;
                let (unit, factor) = match x_rows {
                    1 => ("Gweight/s", 1.0),
                    _ => ("GFLOP/s", 2.0),
                };
                println!(
                    "{label:48} {:8.2} {unit} wall, {:8.2} by CPU",
                    factor * work / wall,
                    factor * work / cpu.max(1e-9)
                );
            }
        }
    }
    Ok(())
}
