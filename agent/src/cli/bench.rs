//! `roadbed-agent bench`: how fast this machine runs a model, in figures that compare.
//!
//! Every figure comes twice: by the wall, and *normalised*, which is work per (CPU seconds of this process / cores).
//! On a busy machine the wall says what is left over, the normalised figure what an idle machine would give. It means
//! something only where the work is done by the CPU, so it is shown for software adapters alone.

pub mod hash;
mod hash_threads;
mod hash_watts;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand, ValueEnum};
use roadbed_compute::llm::{Activations, Found, KvFormat, TunedShape, Tuning};
use roadbed_compute::{
    AdapterKind, Engine, EngineInfo, EngineOptions, GenerateRequest, Gpu, SequenceEvent, source,
};
use serde::Serialize;

use crate::config::Kv;
use crate::engine::kept::kept_folder;
use crate::engine::startup::load_request;

/// Tokens of the prompt that a cold start is timed with.
const COLD_PROMPT: usize = 16;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  roadbed-agent bench --model smollm2-135m\n  \
    roadbed-agent bench --model smollm2-135m --tuning again\n  \
    roadbed-agent bench --model big.gguf --adapter 03:00.0 --prompt 512 --tokens 128 --json")]
pub struct BenchArgs {
    /// Something else than a model.
    #[command(subcommand)]
    pub other: Option<OtherBench>,
    /// Model file or catalogue name.
    #[arg(long, required = true)]
    pub model: Option<String>,
    /// Pin an adapter by list position, name or PCI id.
    #[arg(long)]
    pub adapter: Option<String>,
    /// Tokens of the prompt whose prefill is timed.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt: u32,
    /// New tokens whose decoding is timed.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    pub tokens: u32,
    /// Also decode this many sequences together; 0 leaves it out.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub sequences: u32,
    /// What activations are while decoding: f32, or q16 (whole numbers of two bytes, the faster on some cards).
    #[arg(long, value_enum, default_value_t = ActivationChoice::F32)]
    pub activations: ActivationChoice,
    /// How answers keep keys and values.
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub kv: Kv,
    /// Which kernels multiply: what was found fastest on this adapter before, else by trying (stored); by trying, and
    /// show what was found (again); the default for the adapter's kind (off).
    #[arg(long, value_enum, default_value_t = TuningChoice::Stored)]
    pub tuning: TuningChoice,
    /// Rounds; the figures are medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
pub enum OtherBench {
    /// Measure SHA-256d: every code of the CPU, every adapter, new jobs and stops.
    Hash(hash::HashBenchArgs),
}

/// As `--activations` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationChoice {
    F32,
    Q16,
}

impl From<ActivationChoice> for Activations {
    fn from(choice: ActivationChoice) -> Self {
        match choice {
            ActivationChoice::F32 => Self::F32,
            ActivationChoice::Q16 => Self::Q16,
        }
    }
}

/// As `--tuning` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TuningChoice {
    Off,
    Stored,
    Again,
}

impl From<TuningChoice> for Tuning {
    fn from(choice: TuningChoice) -> Self {
        match choice {
            TuningChoice::Off => Self::Off,
            TuningChoice::Stored => Self::Stored,
            TuningChoice::Again => Self::Again,
        }
    }
}

/// Work done in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stretch {
    /// Tokens worked on.
    pub tokens: usize,
    pub wall_seconds: f64,
    /// Seconds that all threads of this process spent; nothing where the system does not tell.
    pub cpu_seconds: Option<f64>,
}

impl Stretch {
    pub(super) fn wall_rate(&self) -> f64 {
        self.tokens as f64 / self.wall_seconds.max(1e-9)
    }

    /// What `cores` idle cores would give.
    pub(super) fn normalised_rate(&self, cores: usize) -> Option<f64> {
        let seconds = self.cpu_seconds.filter(|seconds| *seconds > 0.0)?;
        Some(self.tokens as f64 * cores as f64 / seconds)
    }
}

/// One round's figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    pub prefill: Stretch,
    pub decode: Stretch,
    /// CPU seconds of the calling thread to encode and submit one token's work while decoding alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_seconds_per_token: Option<f64>,
    /// Several sequences decoding together, their tokens added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub together: Option<Stretch>,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    pub model: String,
    pub adapter: String,
    pub software: bool,
    pub cores: usize,
    pub weight_bytes: u64,
    pub working_bytes: u64,
    /// How answers keep keys and values.
    pub kv: KvFormat,
    /// From the model file to an engine that takes requests.
    pub load: Stretch,
    /// First answer's first token after that, compiling what was not compiled.
    pub first_token: Stretch,
    pub rounds: Vec<Round>,
    /// What was found out about the kernels of the model's matrices.
    pub tuning: Vec<TunedShape>,
    /// From the order to unload until the device is given back.
    pub unload: Stretch,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(mut args: BenchArgs) -> anyhow::Result<()> {
    if let Some(OtherBench::Hash(hash)) = args.other.take() {
        return hash::run(hash).await;
    }
    let model = args.model.as_deref().context("--model is missing")?;
    let request = load_request(model, args.adapter.as_deref())?;
    let adapter = request.gpus.first().cloned().unwrap_or_default();
    let (json, tells_trials) = (args.json, args.tuning == TuningChoice::Again);
    let report =
        tokio::task::spawn_blocking(move || measure(&args, &request.path, &adapter)).await??;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", table(&report));
        if tells_trials {
            print!("{}", trials(&report.tuning));
        }
    }
    Ok(())
}

fn measure(
    args: &BenchArgs,
    path: &Path,
    adapter: &roadbed_compute::AdapterChoice,
) -> anyhow::Result<BenchReport> {
    eprintln!("loading {}", path.display());
    let sequences = args.sequences as usize;
    let options = EngineOptions {
        activations: args.activations.into(),
        kv: args.kv.into(),
        tuning: args.tuning.into(),
        sequences: (sequences > 0).then_some(sequences),
        // Nobody may have to give way in a measurement.
        cache_tokens: (sequences > 0)
            .then_some(sequences * (COLD_PROMPT + args.tokens as usize + 16)),
        ..EngineOptions::default()
    };
    let kept = kept_folder();
    let (engine, load) = timed(1, || {
        let file = source::open(path)?;
        let gpu = Gpu::open_keeping(adapter, kept.as_deref())?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Engine::load_file(&*file, &name, gpu, &options)
    });
    let mut engine = engine.with_context(|| format!("cannot load {}", path.display()))?;
    let info = engine.info().clone();
    let (prompt, tokens) = (args.prompt as usize, args.tokens as usize);
    let room = info.context_tokens;
    ensure!(prompt + tokens <= room, "{prompt} + {tokens} tokens do not fit a context of {room}");
    let mut number = 0;
    let mut round = |engine: &mut Engine, prompt: usize, tokens: usize| {
        number += 1;
        one_round(engine, &info, prompt, tokens, number)
    };
    let first_token = round(&mut engine, COLD_PROMPT.min(room - 2), 2)?.prefill;
    let mut rounds = Vec::new();
    for index in 1..=args.rounds {
        eprint!("round {index} of {}\r", args.rounds);
        let mut measured = round(&mut engine, prompt, tokens)?;
        if sequences > 0 {
            measured.together = Some(together(&mut engine, &info, sequences, tokens)?);
        }
        rounds.push(measured);
    }
    eprintln!();
    let tuning = engine.tuned_shapes().map(|(_, shape)| shape.clone()).collect();
    let ((), unload) = timed(1, || drop(engine));
    Ok(BenchReport {
        model: info.model_name.clone(),
        adapter: info.adapter.to_string(),
        software: info.adapter.kind == AdapterKind::Software,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        weight_bytes: info.weight_bytes,
        working_bytes: info.working_bytes,
        kv: info.kv,
        load,
        first_token,
        rounds,
        tuning,
        unload,
    })
}

/// Prefill until the first token, then decode. Each round's prompt begins with another token, so that nothing of an
/// earlier one is reused.
fn one_round(
    engine: &mut Engine,
    info: &EngineInfo,
    prompt: usize,
    tokens: usize,
    round: usize,
) -> anyhow::Result<Round> {
    let request = request(info, prompt, tokens, round);
    let before = engine.host_work();
    let began = Mark::now();
    let mut first = None;
    engine.generate(&request, &mut |_| {
        first.get_or_insert_with(Mark::now);
        ControlFlow::Continue(())
    })?;
    let end = Mark::now();
    let first = first.context("the model gave no token")?;
    let decode = end.since(&first, tokens - 1);
    let host_seconds_per_token = engine.host_work().seconds_per_pass_since(&before);
    Ok(Round {
        prefill: first.since(&began, prompt),
        decode,
        host_seconds_per_token,
        together: None,
    })
}

pub(super) fn request(
    info: &EngineInfo,
    prompt: usize,
    tokens: usize,
    salt: usize,
) -> GenerateRequest {
    let vocabulary = info.vocabulary.max(1);
    GenerateRequest {
        prompt_ids: (0..prompt).map(|at| ((at * 31 + salt * 7919) % vocabulary) as u32).collect(),
        max_tokens: tokens,
        ignore_end: true,
        ..GenerateRequest::default()
    }
}

/// Decodes several sequences together, from the moment when all of them have their first token.
fn together(
    engine: &mut Engine,
    info: &EngineInfo,
    sequences: usize,
    tokens: usize,
) -> anyhow::Result<Stretch> {
    for salt in 0..sequences {
        engine.admit(request(info, COLD_PROMPT, tokens, salt))?;
    }
    let (mut started, mut ended, mut counted) = (0, 0, 0);
    let mut began = None;
    while ended < sequences {
        for event in engine.step()? {
            match event {
                SequenceEvent::Token { token, .. } => {
                    started += usize::from(token.index == 0);
                    counted += usize::from(began.is_some());
                }
                SequenceEvent::Finished { .. } => ended += 1,
                SequenceEvent::Failed { error, .. } => return Err(error.into()),
            }
        }
        if began.is_none() && started == sequences {
            began = Some(Mark::now());
        }
    }
    let began = began.context("the model gave no tokens")?;
    Ok(Mark::now().since(&began, counted))
}

fn timed<T>(tokens: usize, work: impl FnOnce() -> T) -> (T, Stretch) {
    let began = Mark::now();
    let value = work();
    (value, Mark::now().since(&began, tokens))
}

/// A moment, by the wall and by this process's CPU time.
pub(super) struct Mark {
    wall: Instant,
    cpu_seconds: Option<f64>,
}

impl Mark {
    pub(super) fn now() -> Self {
        Self { wall: Instant::now(), cpu_seconds: cpu_seconds() }
    }

    pub(super) fn since(&self, earlier: &Self, tokens: usize) -> Stretch {
        let cpu_seconds = self.cpu_seconds.zip(earlier.cpu_seconds).map(|(now, then)| now - then);
        Stretch { tokens, wall_seconds: (self.wall - earlier.wall).as_secs_f64(), cpu_seconds }
    }
}

/// CPU seconds of all threads of this process, from `/proc/self/stat` (proc(5): fields 14 and 15, in ticks of 1/100 s on
/// every Linux Rust runs on). Nothing on other systems.
fn cpu_seconds() -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name is in brackets and may hold anything; the numbers follow the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn table(report: &BenchReport) -> String {
    let rate = |of: fn(&Round) -> Stretch| {
        let wall = median(report.rounds.iter().map(|round| of(round).wall_rate()).collect());
        let cores = report.cores;
        let normalised: Vec<f64> =
            report.rounds.iter().filter_map(|round| of(round).normalised_rate(cores)).collect();
        let beside = match report.software && !normalised.is_empty() {
            true => format!(", {:.1} normalised", median(normalised)),
            false => String::new(),
        };
        (wall, format!("{wall:.1} tokens/s{beside}"))
    };
    let (_, prefill) = rate(|round| round.prefill);
    let (decode_rate, decode) = rate(|round| round.decode);
    let together = match report.rounds.iter().all(|round| round.together.is_some()) {
        true => {
            format!("together       {}\n", rate(|round| round.together.unwrap_or(round.decode)).1)
        }
        false => String::new(),
    };
    let host: Vec<f64> =
        report.rounds.iter().filter_map(|round| round.host_seconds_per_token).collect();
    let host = match host.is_empty() {
        true => String::new(),
        false => format!("host work     {:.3} ms a token\n", median(host) * 1e3),
    };
    let lengths = report.rounds.first().map_or((0, 0), |r| (r.prefill.tokens, r.decode.tokens + 1));
    format!(
        "{}\nmodel         {}\nweights       {:.1} MB, KV and work {:.1} MB\nload          {:.2} s\n\
         first token   {:.2} s after that\nprefill {:<5} {prefill}\ndecode {:<6} {decode} = {:.1} GB/s of weights\n\
         {together}{host}unload        {:.2} s\n",
        report.adapter,
        report.model,
        report.weight_bytes as f64 / 1e6,
        report.working_bytes as f64 / 1e6,
        report.load.wall_seconds,
        report.first_token.wall_seconds,
        lengths.0,
        lengths.1,
        decode_rate * report.weight_bytes as f64 / 1e9,
        report.unload.wall_seconds,
    )
}

/// Everything that was tried, the chosen marked.
fn trials(shapes: &[TunedShape]) -> String {
    let mut text = String::new();
    for shape in shapes {
        let head = format!("{:?} {}x{}", shape.format, shape.rows, shape.columns);
        tried(&mut text, &format!("{head}, decoding one row"), &shape.decode);
        tried(&mut text, &format!("{head}, reading a prompt"), &shape.prefill);
    }
    text
}

fn tried<T: std::fmt::Debug + PartialEq>(text: &mut String, head: &str, found: &Found<T>) {
    text.push_str(&format!("\n{head}\n"));
    for trial in &found.trials {
        let mark = if trial.variant == found.chosen { '*' } else { ' ' };
        let time = trial.nanoseconds.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
        let rate = trial
            .nanoseconds
            .map_or("-".to_owned(), |ns| format!("{:.1}", found.flop as f64 / ns.max(1) as f64));
        let dropped =
            trial.dropped.as_ref().map_or(String::new(), |why| format!("  dropped: {why}"));
        let variant = format!("{:?}", trial.variant);
        let variant = variant.strip_prefix("MatvecVariant").unwrap_or(&variant).trim();
        text.push_str(&format!("{mark} {time:>10} us {rate:>8} GFLOP/s  {variant}{dropped}\n"));
    }
}

#[cfg(test)]
mod tests {
    use roadbed_compute::llm::Trial;

    use super::*;

    #[test]
    fn trials_are_told_with_the_chosen_marked() {
        let trial = |variant, nanoseconds, dropped: Option<&str>| Trial {
            variant,
            nanoseconds,
            dropped: dropped.map(str::to_owned),
        };
        let trials = vec![trial("slow", Some(2000), None), trial("wrong", None, Some("off"))];
        let mut text = String::new();
        let found = Found { chosen: "slow", nanoseconds: 2000, flop: 8000, trials };
        tried(&mut text, "Q4 2x2", &found);
        assert_eq!(
            text,
            "\nQ4 2x2\n*        2.0 us      4.0 GFLOP/s  \"slow\"\n           - us        - GFLOP/s  \"wrong\"  dropped: off\n"
        );
    }

    #[test]
    fn rates_and_medians() {
        let stretch = Stretch { tokens: 10, wall_seconds: 5.0, cpu_seconds: Some(4.0) };
        assert_eq!(stretch.wall_rate(), 2.0);
        assert_eq!(stretch.normalised_rate(2), Some(5.0));
        let silent = Stretch { cpu_seconds: None, ..stretch };
        assert_eq!(silent.normalised_rate(2), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn a_process_knows_its_cpu_time() {
        let before = Mark::now();
        let mut sum = 0_u64;
        for i in 0..20_000_000_u64 {
            sum = sum.wrapping_mul(31).wrapping_add(std::hint::black_box(i));
        }
        std::hint::black_box(sum);
        let stretch = Mark::now().since(&before, 1);
        assert!(stretch.cpu_seconds.is_none_or(|cpu| cpu >= 0.0));
        assert_eq!(cfg!(target_os = "linux"), cpu_seconds().is_some());
    }
}
