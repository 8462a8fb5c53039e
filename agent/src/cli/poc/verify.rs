//! `roadbed-agent poc verify`: does this engine agree with the hardware that made a golden file?
//!
//! Every nonce of the file is computed again with the weights given here and judged as a validator of the network
//! would judge it. Whoever has the weights of a reference set can so hold this engine against the network's own.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use roadbed_compute::poc::artifact::decode;
use roadbed_compute::poc::verdict::l2;
use roadbed_compute::poc::{Artifact, StatTest, Verdict, judge};
use roadbed_compute::source;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::golden::Golden;
use crate::cli::progress::{Progress, Unit};
use crate::engine::startup::{load_request, loaded};
use crate::engine::{EngineFault, EngineService, LoadRequest, ModelInfo, ProofOrder, ProofStep};

/// Exit code when the artifacts are not this model's.
const FRAUD: u8 = 2;
/// Distance above which a nonce mismatches, unless the file or the caller says otherwise: that of the published sets.
const DIST_THRESHOLD: f64 = 0.2;

/// Arguments of `poc verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 pass, 2 fraud (too many nonces mismatch), 1 no verdict could be reached.\n\n\
    Examples:\n  roadbed-agent poc verify --golden poc_golden_qwen3-0.6b.json --model ./Qwen3-0.6B\n  \
    roadbed-agent poc verify --golden golden.json --model smollm2-135m --first 8 --json"
)]
pub struct PocVerifyArgs {
    /// The golden file: a round, and the artifacts that other hardware gave for it.
    #[arg(long, value_name = "FILE")]
    pub golden: PathBuf,
    /// Model file, folder or catalogue name; must be the golden file's model.
    #[arg(long)]
    pub model: String,
    /// Pin an adapter by list position, name or PCI id.
    #[arg(long)]
    pub adapter: Option<String>,
    /// Compute only the first so many nonces of the file.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub first: Option<u32>,
    /// L2 distance above which a nonce mismatches [default: the file's, else 0.2].
    #[arg(long, value_name = "L2", value_parser = distance)]
    pub dist_threshold: Option<f64>,
    /// Probability that an honest nonce mismatches.
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = probability)]
    pub p_mismatch: f64,
    /// It is fraud when the p-value is below this.
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = probability)]
    pub fraud_threshold: f64,
    /// Take a model that has another name than the golden file's: its copy, or on purpose a wrong one.
    #[arg(long)]
    pub any_model: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

fn distance(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let usable = value.is_finite() && value >= 0.0;
    usable.then_some(value).ok_or_else(|| "expected a number from 0 up".into())
}

fn probability(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    (0.0..=1.0).contains(&value).then_some(value).ok_or_else(|| "expected 0 to 1".into())
}

/// Runs the command; the exit code tells the verdict.
///
/// # Errors
/// No verdict could be reached.
pub async fn run(args: PocVerifyArgs) -> anyhow::Result<ExitCode> {
    let mut golden = Golden::read(&args.golden)?;
    golden.artifacts.truncate(args.first.map_or(usize::MAX, |first| first as usize));
    let mut request = load_request(&args.model, args.adapter.as_deref())?;
    check_model(&golden, &args, &request)?;
    // Its own proof is all that this engine is for.
    request.context_tokens = Some(golden.round.seq_len.max(1));
    let (engine, info) = loaded(request).await?;
    let began = Instant::now();
    let computed = compute(&engine, &golden).await;
    let seconds = began.elapsed().as_secs_f64();
    engine.shut_down().await;
    let computed = computed?;
    ensure!(!computed.is_empty(), "the model gave no number for any of the nonces: no verdict");
    let test = StatTest {
        dist_threshold: args.dist_threshold.or(golden.dist_threshold).unwrap_or(DIST_THRESHOLD),
        p_mismatch: args.p_mismatch,
        fraud_threshold: args.fraud_threshold,
    };
    let report = Report {
        distances: distances(&golden, &computed),
        verdict: judge(&golden.artifacts, &computed, test),
        test,
        golden: &golden,
        info: &info,
        seconds,
    };
    if args.json {
        println!("{}", report.document());
    } else {
        print!("{}", report.table());
    }
    Ok(if report.verdict.fraud_detected { ExitCode::from(FRAUD) } else { ExitCode::SUCCESS })
}

/// Refuses to accuse the makers of a golden file because of somebody's other model.
fn check_model(golden: &Golden, args: &PocVerifyArgs, request: &LoadRequest) -> anyhow::Result<()> {
    let file = source::open(&request.path)
        .with_context(|| format!("cannot open {}", request.path.display()))?;
    let within = file.metadata().string("general.name")?.map(str::to_owned);
    let stem = request.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let names = [Some(args.model.clone()), Some(request.served_as.clone()), within, stem];
    let names: Vec<String> = names.into_iter().flatten().collect();
    if names.iter().any(|name| golden.is_of(name)) {
        return Ok(());
    }
    let wanted = &golden.model;
    ensure!(
        args.any_model,
        "the golden file is of {wanted}, and this model calls itself {}; if it is the same, or another on purpose, add --any-model",
        names.join(", ")
    );
    tracing::warn!(golden = wanted, model = ?names, "the model is not the golden file's by its name");
    Ok(())
}

/// Proves the golden file's nonces, with a word on how far it is.
async fn compute(engine: &EngineService, golden: &Golden) -> anyhow::Result<Vec<Artifact>> {
    let nonces: Vec<u32> = golden.artifacts.iter().map(|(nonce, _)| *nonce).collect();
    let total = nonces.len() as u64;
    let computed: Arc<Mutex<Vec<Artifact>>> = Arc::default();
    let kept = Arc::clone(&computed);
    let mut progress = Progress::of(Unit::Count("nonces"), "verifying", 0, Some(total));
    let mut done = 0;
    let order = ProofOrder {
        round: golden.round.clone(),
        nonces: Box::new(nonces.into_iter()),
        batch: usize::MAX,
        claims: None,
        cancel: CancellationToken::new(),
        on_step: Box::new(move |step| {
            match step {
                ProofStep::Artifact(artifact) => {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(artifact);
                }
                ProofStep::Dropped { nonce } => {
                    tracing::warn!(nonce, "the model gave NaN; the network drops such a nonce");
                }
            }
            done += 1;
            if done < total {
                progress.at(done);
            } else {
                progress.leave();
            }
            ControlFlow::Continue(())
        }),
    };
    engine.prove(order)?.await.unwrap_or(Err(EngineFault::ShutDown))?;
    Ok(std::mem::take(&mut *computed.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// How far each golden vector is from ours, in the file's order; nothing where there is no number to compare.
fn distances(golden: &Golden, computed: &[Artifact]) -> Vec<(u32, Option<f64>)> {
    let of = |(nonce, theirs): &(u32, String)| {
        let ours = computed.iter().find(|artifact| artifact.nonce == *nonce)?;
        let k = golden.round.k_dim;
        // Both as they travel, rounded to halves.
        Some(l2(&decode(theirs, k).ok()?, &decode(&ours.vector_b64, k).ok()?))
    };
    golden.artifacts.iter().map(|artifact| (artifact.0, of(artifact))).collect()
}

struct Report<'a> {
    golden: &'a Golden,
    info: &'a ModelInfo,
    test: StatTest,
    distances: Vec<(u32, Option<f64>)>,
    verdict: Verdict,
    seconds: f64,
}

impl Report<'_> {
    fn mismatches(&self, nonce: u32) -> bool {
        self.verdict.mismatch_nonces.contains(&nonce)
    }

    fn known(&self) -> impl Iterator<Item = f64> {
        self.distances.iter().filter_map(|(_, distance)| *distance)
    }

    fn mean(&self) -> Option<f64> {
        let count = self.known().count();
        (count > 0).then(|| self.known().sum::<f64>() / count as f64)
    }

    fn max(&self) -> Option<f64> {
        self.known().reduce(f64::max)
    }

    const fn word(&self) -> &'static str {
        if self.verdict.fraud_detected { "fraud" } else { "pass" }
    }

    fn document(&self) -> Value {
        let nonces: Vec<Value> = self
            .distances
            .iter()
            .map(|(nonce, distance)| {
                json!({"nonce": nonce, "distance": distance, "mismatch": self.mismatches(*nonce)})
            })
            .collect();
        json!({
            "verdict": self.word(),
            "model": self.info.served_as,
            "golden_model": self.golden.model,
            "adapter": self.info.adapter,
            "weights": self.info.weights.map(|kind| kind.to_string()),
            "seq_len": self.golden.round.seq_len,
            "k_dim": self.golden.round.k_dim,
            "seconds": self.seconds,
            "dist_threshold": self.test.dist_threshold,
            "p_mismatch": self.test.p_mismatch,
            "fraud_threshold": self.test.fraud_threshold,
            "n_total": self.verdict.n_total,
            "n_mismatch": self.verdict.mismatch_nonces.len(),
            "mismatch_nonces": self.verdict.mismatch_nonces,
            "p_value": self.verdict.p_value,
            "fraud_detected": self.verdict.fraud_detected,
            "distance_mean": self.mean(),
            "distance_max": self.max(),
            "nonces": nonces,
        })
    }

    fn table(&self) -> String {
        let mut text = format!("{:>10}  {:>9}\n", "nonce", "distance");
        for (nonce, distance) in &self.distances {
            let distance = distance.map_or("-".into(), |distance| format!("{distance:.5}"));
            let mark = if self.mismatches(*nonce) { "  MISMATCH" } else { "" };
            text.push_str(&format!("{nonce:>10}  {distance:>9}{mark}\n"));
        }
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.5}"));
        let Self { golden, info, test, verdict, seconds, .. } = self;
        let mismatches = verdict.mismatch_nonces.len();
        text.push_str(&format!(
            "{} of {} nonces mismatch beyond {}; distance mean {}, max {}\n{} at seq_len {} on {}, {seconds:.1} s\n\
             p-value {:.6}, fraud below {}: {}\n",
            mismatches,
            verdict.n_total,
            test.dist_threshold,
            number(self.mean()),
            number(self.max()),
            golden.model,
            golden.round.seq_len,
            info.adapter,
            verdict.p_value,
            test.fraud_threshold,
            self.word().to_ascii_uppercase(),
        ));
        let smaller = info.weights.filter(|kind| kind.is_below_16_bits());
        if let Some(kind) = smaller.filter(|_| verdict.fraud_detected) {
            text.push_str(&format!(
                "the weights here are {kind}, fewer than 16 bits: it may be they that are off, not the golden file\n"
            ));
        }
        text
    }
}
