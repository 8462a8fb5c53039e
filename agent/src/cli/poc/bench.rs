//! `roadbed-agent poc bench`: nonces a minute, beside the speed of plain prefill at the same length.
//!
//! A nonce *is* a prefill with other input and a reflection after each layer, so it should take what a prompt of its
//! length takes; the share says how near it comes. Both are measured in turn, in one run on one loaded model, as many
//! prompts together as nonces, so that a busy machine is as unkind to one as to the other.

use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::Args;
use roadbed_compute::poc::{Identity, K_DIM, Prover, Round, Scheme};
use roadbed_compute::{
    AdapterChoice, Engine, EngineInfo, EngineOptions, Gpu, SequenceEvent, list_adapters, source,
};
use serde::Serialize;

use crate::cli::bench::{Mark, Stretch, median, request};
use crate::engine::kept::{kept_folder, tuning};
use crate::engine::pace::{ProofPace, RateOf};
use crate::engine::startup::load_request;

/// Tokens whose keys and values the prompts may keep together: what a pass of nonces has at most, and a page each.
const CACHE_TOKENS: usize = 4096 + 32 * 17;

/// Arguments of `poc bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "The share is the median over the rounds of nonces' tokens a second by prompts' tokens a second.\n\n\
    Examples:\n  roadbed-agent poc bench --model smollm2-135m\n  \
    roadbed-agent poc bench --model big.gguf --adapter all --seq-len 1024 --json"
)]
pub struct PocBenchArgs {
    /// Model file or catalogue name.
    #[arg(long)]
    pub model: String,
    /// Pin an adapter by list position, name or PCI id; `all` takes one after the other.
    #[arg(long)]
    pub adapter: Option<String>,
    /// Lengths of a nonce, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256, 1024],
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub seq_len: Vec<u32>,
    /// Rounds; the figures are medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Use the stronger generator of random numbers.
    #[arg(long)]
    pub stronger_rng: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// One round at one length.
#[derive(Debug, Clone, Copy, Serialize)]
struct Pair {
    proof: Stretch,
    prefill: Stretch,
}

impl Pair {
    /// Tokens a second of nonces, by those of prompts.
    fn share(&self) -> f64 {
        self.proof.wall_rate() / self.prefill.wall_rate()
    }

    /// The same by the CPU time of this process, which other processes do not disturb.
    fn cpu_share(&self) -> Option<f64> {
        Some(self.proof.normalised_rate(1)? / self.prefill.normalised_rate(1)?)
    }
}

/// What was measured at one length.
#[derive(Debug, Serialize)]
struct Length {
    seq_len: usize,
    nonces_per_pass: usize,
    nonces_per_minute: f64,
    prefill_tokens_per_second: f64,
    share: f64,
    /// Of software adapters.
    cpu_share: Option<f64>,
    rounds: Vec<Pair>,
}

/// What was measured on one adapter.
#[derive(Debug, Serialize)]
struct Report {
    adapter: String,
    software: bool,
    model: String,
    lengths: Vec<Length>,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: PocBenchArgs) -> anyhow::Result<()> {
    let json = args.json;
    let reports = tokio::task::spawn_blocking(move || {
        let all = args.adapter.as_deref() == Some("all");
        let named = args.adapter.as_deref().filter(|_| !all);
        let found = load_request(&args.model, named)?;
        let adapters: Vec<AdapterChoice> = if all {
            list_adapters().iter().map(|adapter| AdapterChoice::Index(adapter.index)).collect()
        } else {
            vec![found.gpus.first().cloned().unwrap_or_default()]
        };
        ensure!(!adapters.is_empty(), "this machine has no adapter");
        let one = |adapter: &AdapterChoice| measure(&args, &found.path, &found.served_as, adapter);
        adapters.iter().map(one).collect::<anyhow::Result<Vec<Report>>>()
    });
    let reports = reports.await??;
    if json {
        println!("{}", serde_json::to_string(&reports)?);
    } else {
        reports.iter().for_each(|report| print!("{}", table(report)));
    }
    Ok(())
}

fn measure(
    args: &PocBenchArgs,
    path: &Path,
    served_as: &str,
    adapter: &AdapterChoice,
) -> anyhow::Result<Report> {
    eprintln!("loading {} on adapter {adapter}", path.display());
    let lengths: Vec<usize> = args.seq_len.iter().map(|length| *length as usize).collect();
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let options = EngineOptions {
        // A prompt's answer has a token.
        context_tokens: Some(longest + 1),
        cache_tokens: Some(CACHE_TOKENS.max(longest + 1)),
        tuning: tuning(),
        ..EngineOptions::default()
    };
    let kept = kept_folder();
    let file = source::open(path)?;
    let gpu = Gpu::open_keeping(adapter, kept.as_deref())?;
    let mut engine = Engine::load_file(&*file, served_as, gpu, &options)
        .with_context(|| format!("cannot load {}", path.display()))?;
    let info = engine.info().clone();
    ensure!(
        longest < info.context_tokens,
        "seq_len {longest} and a token do not fit a context of {}",
        info.context_tokens
    );
    let pace = ProofPace::open(kept.as_deref());
    // Goes on from length to length: a prompt that begins like an earlier one finds half of its work done.
    let mut salt = 0;
    let mut measured = Vec::new();
    for &seq_len in &lengths {
        let round = Round {
            identity: Identity { block_hash: "BENCH".into(), public_key: "bench".into() },
            seq_len,
            k_dim: K_DIM,
            stronger_rng: args.stronger_rng,
            scheme: Scheme::Prefill,
        };
        let of = RateOf::new(served_as, &round, [&info.adapter]);
        let length = one_length(&mut engine, &info, round, args.rounds, &mut salt)?;
        pace.note(of, (length.nonces_per_minute * 1000.0) as u64);
        measured.push(length);
    }
    Ok(Report {
        adapter: info.adapter.to_string(),
        software: engine.gpu().is_software(),
        model: info.model_name,
        lengths: measured,
    })
}

fn one_length(
    engine: &mut Engine,
    info: &EngineInfo,
    round: Round,
    rounds: u32,
    salt: &mut usize,
) -> anyhow::Result<Length> {
    let seq_len = round.seq_len;
    let prover = Prover::new(engine, round, None)?;
    let together = prover.pass_nonces();
    let mut pairs = Vec::new();
    // Round 0 compiles what is not compiled and is not counted.
    for number in 0..=rounds {
        eprint!("seq_len {seq_len}, round {number} of {rounds}   \r");
        let nonces: Vec<u32> = (number * 32..).take(together).collect();
        let prove = |engine: &mut Engine| -> anyhow::Result<Stretch> {
            let began = Mark::now();
            prover.prove(engine, &nonces)?;
            Ok(Mark::now().since(&began, together * seq_len))
        };
        let mut read = |engine: &mut Engine| -> anyhow::Result<Stretch> {
            let began = Mark::now();
            prefill(engine, info, seq_len, together, salt)?;
            Ok(Mark::now().since(&began, together * seq_len))
        };
        // In turn, so that what drifts with time drifts for both.
        let pair = if number % 2 == 0 {
            let proof = prove(engine)?;
            Pair { proof, prefill: read(engine)? }
        } else {
            let prefill = read(engine)?;
            Pair { proof: prove(engine)?, prefill }
        };
        if number > 0 {
            pairs.push(pair);
        }
    }
    eprintln!();
    let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value).collect());
    let cpu: Vec<f64> = pairs.iter().filter_map(Pair::cpu_share).collect();
    let cpu_share = (engine.gpu().is_software() && !cpu.is_empty()).then(|| median(cpu));
    Ok(Length {
        seq_len,
        nonces_per_pass: together,
        nonces_per_minute: of(|pair| pair.proof.wall_rate()) * 60.0 / seq_len as f64,
        prefill_tokens_per_second: of(|pair| pair.prefill.wall_rate()),
        share: of(Pair::share),
        cpu_share,
        rounds: pairs,
    })
}

/// Reads prompts that begin unlike any before, all together, up to the first token of each.
fn prefill(
    engine: &mut Engine,
    info: &EngineInfo,
    length: usize,
    count: usize,
    salt: &mut usize,
) -> anyhow::Result<()> {
    for _ in 0..count {
        *salt += 1;
        engine.admit(request(info, length, 1, *salt))?;
    }
    let mut left = count;
    while left > 0 {
        for event in engine.step()? {
            match event {
                SequenceEvent::Token { .. } => {}
                SequenceEvent::Finished { .. } => left -= 1,
                SequenceEvent::Failed { error, .. } => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{}\nmodel {}\n{:>7}  {:>11}  {:>10}  {:>15}  {:>15}  share\n",
        report.adapter,
        report.model,
        "seq_len",
        "nonces/pass",
        "nonces/min",
        "proof tokens/s",
        "prefill tokens/s"
    );
    for length in &report.lengths {
        let tokens = length.nonces_per_minute * length.seq_len as f64 / 60.0;
        let cpu = length.cpu_share.map(|share| format!(" ({:.1} % by CPU time)", share * 100.0));
        text.push_str(&format!(
            "{:>7}  {:>11}  {:>10.2}  {:>15.1}  {:>15.1}  {:.1} %{}\n",
            length.seq_len,
            length.nonces_per_pass,
            length.nonces_per_minute,
            tokens,
            length.prefill_tokens_per_second,
            length.share * 100.0,
            cpu.unwrap_or_default(),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_same_tokens() {
        let stretch =
            |wall_seconds, cpu_seconds| Stretch { tokens: 128, wall_seconds, cpu_seconds };
        let pair = Pair { proof: stretch(4.0, Some(5.0)), prefill: stretch(3.0, Some(4.0)) };
        assert!((pair.share() - 0.75).abs() < 1e-9);
        assert!((pair.cpu_share().unwrap() - 0.8).abs() < 1e-9);
        let silent = Pair { proof: stretch(4.0, None), ..pair };
        assert_eq!(silent.cpu_share(), None);
    }
}
