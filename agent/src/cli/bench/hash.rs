//! `roadbed-agent bench hash`: what this machine hashes with, how fast, how promptly it takes a new job and stops.
//!
//! Codes of the CPU and the `sha2` crate take turns, round by round, and their rates are by the CPU time of the thread: what else runs
//! on the machine costs both nothing. What a GPU does is by the wall; on a software adapter, which is the CPU, also by
//! CPU time.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use roadbed_compute::hash::tuner::{self, HashTrial};
use roadbed_compute::hash::{
    CpuBackend, GpuBackend, HashBackend, ScanJob, Target, operations, sha256,
};
use roadbed_compute::{AdapterChoice, AdapterKind, Gpu, list_adapters};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::hash_threads::{self, Promptness, Scaling};
use super::hash_watts::{CpuEnergy, card_watts};
use super::median;
use crate::engine::kept::kept_folder;
use crate::engine::pace::adapter_label;
use crate::miner::rates::{HashRate, HashRates};

/// CPU time of one turn of one code.
const TURN: Duration = Duration::from_millis(60);
/// Wall time of one turn of a GPU: dozens of dispatches.
const GPU_TURN: Duration = Duration::from_millis(700);
/// Nonces of the foreign code between two looks at the clock.
const PEER_NONCES: u32 = 1 << 12;

/// Arguments of `bench hash`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roadbed-agent bench hash\n  \
    roadbed-agent bench hash --adapter all --rounds 9 --json\n  \
    roadbed-agent bench hash --adapter none --without-threads")]
pub struct HashBenchArgs {
    /// Pin an adapter by list position, name or PCI id; `all` takes one after the other, `none` leaves GPUs out.
    #[arg(long, default_value = "all")]
    pub adapter: String,
    /// Rounds; the figures are medians over them.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(5..=100))]
    pub rounds: u32,
    /// Leave out two threads beside one, new jobs and stops.
    #[arg(long)]
    pub without_threads: bool,
    /// Do not keep the rates for the planner.
    #[arg(long)]
    pub forget: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// One code of the CPU, on one thread.
#[derive(Debug, Serialize)]
pub(super) struct CpuRow {
    name: String,
    /// By the CPU time of the thread.
    hashes_per_second: f64,
    /// Median over the rounds of this code's rate by the foreign one's.
    by_sha2: f64,
}

/// One adapter.
#[derive(Debug, Serialize)]
pub(super) struct GpuRow {
    adapter: String,
    software: bool,
    trials: Vec<HashTrial>,
    chosen: String,
    hashes_per_second: f64,
    /// On a software adapter: hashes by the CPU seconds of this process, which is one core's rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    hashes_per_cpu_second: Option<f64>,
    instructions_per_hash: u64,
    /// 32-bit integer instructions a second, measured in this run.
    integer_rate: f64,
    /// What the search uses of that.
    share_of_limit: f64,
    /// Longest dispatch that was seen.
    dispatch_max_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    watts: Option<f64>,
    /// Why there are no watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_watts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Promptness>,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    cores: usize,
    rounds: u32,
    /// The `sha2` crate's `compress256` with midstate, one thread.
    sha2_hashes_per_second: f64,
    cpu: Vec<CpuRow>,
    best_cpu: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_cpu_watts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    two_threads: Option<Scaling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_switch: Option<Promptness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Promptness>,
    gpus: Vec<GpuRow>,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: HashBenchArgs) -> anyhow::Result<()> {
    let json = args.json;
    let report = tokio::task::spawn_blocking(move || measure(&args)).await??;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", table(&report));
    }
    Ok(())
}

fn measure(args: &HashBenchArgs) -> anyhow::Result<Report> {
    let job = ScanJob::new(&std::array::from_fn(|i| i as u8), Target([0; 32]));
    let mut rates = HashRates::open(kept_folder().as_deref());
    let energy = CpuEnergy::open();
    let began = energy.as_ref().ok().and_then(CpuEnergy::joules).zip(Some(Instant::now()));
    let (sha2_hashes_per_second, cpu) = cpu_rows(&job, args.rounds)?;
    let (cpu_watts, no_cpu_watts) = match (energy, began) {
        (Ok(energy), Some((joules, began))) => {
            let spent = energy.joules().map(|now| now - joules);
            (spent.map(|spent| spent / began.elapsed().as_secs_f64()), None)
        }
        (Ok(_), None) => (None, Some("the counter of energy cannot be read".into())),
        (Err(why), _) => (None, Some(why)),
    };
    let best_cpu = CpuBackend::best().name().to_owned();
    for row in &cpu {
        // RAPL counts the whole package: on one busy thread that says little of a code, so none is kept.
        rates.put(HashRate::now(&row.name, row.hashes_per_second, None));
    }
    let (mut two_threads, mut job_switch, mut stop) = (None, None, None);
    if !args.without_threads {
        eprintln!("two threads, new jobs, stops");
        two_threads = Some(hash_threads::two_by_one(args.rounds)?);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = || Box::new(CpuBackend::best()) as Box<dyn HashBackend>;
        let (switch, silence) = hash_threads::promptness((0..threads).map(|_| cpu()).collect())?;
        (job_switch, stop) = (Some(switch), Some(silence));
    }
    let mut gpus = Vec::new();
    for adapter in adapters(&args.adapter)? {
        let row = gpu_row(&adapter, &job, args)?;
        rates.put(HashRate::now(&row.adapter, row.hashes_per_second, row.watts));
        gpus.push(row);
    }
    if !args.forget {
        rates.write();
    }
    Ok(Report {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        rounds: args.rounds,
        sha2_hashes_per_second,
        cpu,
        best_cpu,
        cpu_watts,
        no_cpu_watts,
        two_threads,
        job_switch,
        stop,
        gpus,
    })
}

fn adapters(choice: &str) -> anyhow::Result<Vec<AdapterChoice>> {
    Ok(match choice {
        "none" => Vec::new(),
        "all" => {
            list_adapters().iter().map(|adapter| AdapterChoice::Index(adapter.index)).collect()
        }
        one => {
            let Ok(one) = one.parse();
            vec![one]
        }
    })
}

/// Every code of this CPU and the foreign one, in turn.
fn cpu_rows(job: &ScanJob, rounds: u32) -> anyhow::Result<(f64, Vec<CpuRow>)> {
    let mut backends = CpuBackend::all();
    let mut peer_rates = Vec::new();
    let mut own_rates = vec![Vec::new(); backends.len()];
    for round in 1..=rounds {
        eprint!("cpu, round {round} of {rounds}\r");
        peer_rates.push(rate_of(PEER_NONCES, &mut |start, count| Ok(peer(job, start, count)))?);
        for (backend, rates) in backends.iter_mut().zip(&mut own_rates) {
            let mut hits = Vec::new();
            let chunk = backend.chunk();
            let scan = &mut |start, count| {
                backend.scan_chunk(job, start, count, &mut hits)?;
                Ok(0)
            };
            rates.push(rate_of(chunk, scan)?);
        }
    }
    eprintln!();
    let rows = backends.iter().zip(own_rates).map(|(backend, rates)| {
        let ratios = rates.iter().zip(&peer_rates).map(|(own, peer)| own / peer).collect();
        CpuRow {
            name: backend.name().to_owned(),
            hashes_per_second: median(rates),
            by_sha2: median(ratios),
        }
    });
    let rows = rows.collect();
    Ok((median(peer_rates), rows))
}

/// Hashes a CPU second of this thread, over a turn.
fn rate_of(
    chunk: u32,
    scan: &mut dyn FnMut(u32, u32) -> anyhow::Result<u32>,
) -> anyhow::Result<f64> {
    let began = cpu_time(ClockId::ThreadCPUTime);
    let (mut start, mut done, mut found) = (0_u32, 0_u64, 0_u32);
    loop {
        found ^= scan(start, chunk)?;
        start = start.wrapping_add(chunk);
        done += u64::from(chunk);
        let spent = cpu_time(ClockId::ThreadCPUTime) - began;
        if spent >= TURN.as_secs_f64() {
            std::hint::black_box(found);
            return Ok(done as f64 / spent);
        }
    }
}

pub(super) fn cpu_time(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The same search with the `sha2` crate: midstate, two compressions a nonce, one word compared.
fn peer(job: &ScanJob, start: u32, count: u32) -> u32 {
    let mut first = [0_u8; 64];
    for (bytes, word) in first.chunks_exact_mut(4).zip(job.midstate.tail) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    first[16] = 0x80;
    first[62..].copy_from_slice(&640_u16.to_be_bytes());
    let mut second = [0_u8; 64];
    second[32] = 0x80;
    second[62..].copy_from_slice(&256_u16.to_be_bytes());
    let mut found = 0;
    for offset in 0..count {
        first[12..16].copy_from_slice(&start.wrapping_add(offset).to_le_bytes());
        let mut state = job.midstate.state;
        sha2::block_api::compress256(&mut state, &[first]);
        for (bytes, word) in second.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        let mut state = sha256::INITIAL;
        sha2::block_api::compress256(&mut state, &[second]);
        found += u32::from(state[7] & job.mask == 0);
    }
    found
}

fn gpu_row(choice: &AdapterChoice, job: &ScanJob, args: &HashBenchArgs) -> anyhow::Result<GpuRow> {
    let gpu = Gpu::open_keeping(choice, kept_folder().as_deref())?;
    let summary = gpu.summary().clone();
    eprintln!("{summary}: trying the forms of the kernel");
    let tuning =
        tuner::try_out(&gpu, &AtomicBool::new(false)).with_context(|| format!("{summary}"))?;
    let mut backend = GpuBackend::with_variant(gpu.clone(), tuning.chosen)?;
    let mut hits = Vec::new();
    let (mut walls, mut by_cpu, mut integers, mut watts) = (vec![], vec![], vec![], vec![]);
    let mut no_watts = None;
    let mut dispatch_max = Duration::ZERO;
    let mut start = 0_u32;
    for round in 0..=args.rounds {
        eprint!("{}, round {round} of {}\r", summary.name, args.rounds);
        let (began, cpu) = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
        let mut done = 0_u64;
        while began.elapsed() < GPU_TURN {
            let (chunk, sent) = (backend.chunk(), Instant::now());
            backend.scan_chunk(job, start, chunk, &mut hits)?;
            start = start.wrapping_add(chunk);
            done += u64::from(chunk);
            if round > 0 {
                dispatch_max = dispatch_max.max(sent.elapsed());
            }
        }
        // Round 0 finds the size of a dispatch.
        if round > 0 {
            match card_watts(&summary) {
                Ok(measured) => watts.push(measured),
                Err(why) => no_watts = Some(why),
            }
            walls.push(done as f64 / began.elapsed().as_secs_f64());
            by_cpu.push(done as f64 / (cpu_time(ClockId::ProcessCPUTime) - cpu).max(1e-9));
            integers.push(tuner::integer_rate(&gpu)?);
        }
    }
    eprintln!();
    let stop = match args.without_threads {
        true => None,
        false => Some(hash_threads::promptness(vec![Box::new(backend)])?.1),
    };
    let (rate, integer_rate) = (median(walls), median(integers));
    let per_hash = operations::per_hash();
    let software = summary.kind == AdapterKind::Software;
    Ok(GpuRow {
        adapter: adapter_label(&summary),
        software,
        trials: tuning.trials,
        chosen: tuning.chosen.to_string(),
        hashes_per_second: rate,
        hashes_per_cpu_second: software.then(|| median(by_cpu)),
        instructions_per_hash: per_hash,
        integer_rate,
        share_of_limit: rate * per_hash as f64 / integer_rate,
        dispatch_max_ms: dispatch_max.as_secs_f64() * 1e3,
        watts: (no_watts.is_none() && !watts.is_empty()).then(|| median(watts)),
        no_watts,
        stop,
    })
}

fn table(report: &Report) -> String {
    let mega = |rate: f64| rate / 1e6;
    let portable = report.cpu.first().map_or(0.0, |row| row.hashes_per_second);
    let mut text = format!(
        "one thread, by its CPU time, median of {} rounds in turn; {} cores\n{:<40} {:>9.2} MH/s   1.00 x sha2\n",
        report.rounds,
        report.cores,
        "sha2 crate, compress256 + midstate",
        mega(report.sha2_hashes_per_second),
    );
    for row in &report.cpu {
        let mark = if row.name == report.best_cpu { "  chosen" } else { "" };
        text.push_str(&format!(
            "{:<40} {:>9.2} MH/s  {:>5.2} x sha2{mark}\n",
            row.name,
            mega(row.hashes_per_second),
            row.by_sha2
        ));
    }
    let watts = match (report.cpu_watts, &report.no_cpu_watts) {
        (Some(watts), _) => format!("{watts:.1} W of the CPU package while one thread hashed"),
        (None, Some(why)) => format!("no watts: {why}"),
        (None, None) => "no watts".to_owned(),
    };
    text.push_str(&format!("{:<40} {watts}\n", "power"));
    if let Some(scaling) = &report.two_threads {
        text.push_str(&format!("{:<40} {scaling}\n", "two threads by one"));
    }
    let mut prompt = |what: &str, figure: &Option<Promptness>| {
        if let Some(figure) = figure {
            text.push_str(&format!("{what:<40} {figure}\n"));
        }
    };
    prompt("new job to its first nonce, every thread", &report.job_switch);
    prompt("stop to silence, every thread", &report.stop);
    for gpu in &report.gpus {
        text.push_str(&format!("\n{}\n", gpu.adapter));
        for trial in &gpu.trials {
            let mark = if trial.variant.to_string() == gpu.chosen { '*' } else { ' ' };
            let rate = trial
                .hashes_per_second
                .map_or("-".to_owned(), |rate| format!("{:.2} MH/s", mega(rate)));
            let why =
                trial.dropped.as_deref().map_or(String::new(), |why| format!(" dropped: {why}"));
            text.push_str(&format!("{mark} {:<38} {rate:>14}{why}\n", trial.variant.to_string()));
        }
        text.push_str(&format!(
            "{:<40} {:>9.2} MH/s by the wall; longest dispatch {:.0} ms\n",
            "searching",
            mega(gpu.hashes_per_second),
            gpu.dispatch_max_ms
        ));
        if let Some(rate) = gpu.hashes_per_cpu_second {
            text.push_str(&format!(
                "{:<40} {:>9.2} MH/s = {:.2} x portable code on one core\n",
                "a core, by CPU time",
                mega(rate),
                rate / portable.max(1e-9)
            ));
        }
        text.push_str(&format!(
            "{:<40} {:>9.1} G instructions/s, {} a hash: {:.0} % of it used (bar on a GPU: 60 %)\n",
            "integer limit",
            gpu.integer_rate / 1e9,
            gpu.instructions_per_hash,
            gpu.share_of_limit * 100.0
        ));
        let watts = match (gpu.watts, &gpu.no_watts) {
            (Some(watts), _) => {
                format!("{watts:.0} W, {:.2} MH/J", mega(gpu.hashes_per_second) / watts.max(1e-9))
            }
            (None, Some(why)) => format!("no watts: {why}"),
            (None, None) => "no watts".to_owned(),
        };
        text.push_str(&format!("{:<40} {watts}\n", "power"));
        if let Some(stop) = &gpu.stop {
            text.push_str(&format!("{:<40} {stop}\n", "stop to silence"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foreign_code_finds_what_ours_finds() {
        let mut target = [0xFF; 32];
        target[0] = 0;
        let job = ScanJob::new(&std::array::from_fn(|i| (i * 3) as u8), Target(target));
        let mut hits = Vec::new();
        CpuBackend::portable().scan_chunk(&job, 77, 5_000, &mut hits).unwrap();
        assert!(!hits.is_empty());
        assert_eq!(peer(&job, 77, 5_000) as usize, hits.len());
    }
}
