//! `roadbed-agent poc`: Proof of Compute artifacts of given nonces, here; held against others' in [`verify`].

pub mod bench;
mod golden;
pub mod verify;

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Instant;

use clap::Args;
use roadbed_compute::poc::{Artifact, Identity, K_DIM, Round, Scheme};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine::startup::{load_request, loaded};
use crate::engine::{EngineFault, ProofOrder, ProofStep};

/// Arguments of `poc compute`.
#[derive(Debug, Args)]
pub struct PocComputeArgs {
    /// Model file or catalogue name.
    #[arg(long)]
    pub model: String,
    /// Block hash of the round.
    #[arg(long)]
    pub block_hash: String,
    /// Public key of the participant.
    #[arg(long)]
    pub public_key: String,
    /// Sequence length.
    #[arg(long)]
    pub seq_len: usize,
    /// Nonces, separated by commas.
    #[arg(long, value_delimiter = ',', required = true,
          value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub nonces: Vec<u32>,
    /// Use the stronger generator of random numbers.
    #[arg(long)]
    pub stronger_rng: bool,
    /// Pin an adapter by list position, name or PCI id.
    #[arg(long)]
    pub adapter: Option<String>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: PocComputeArgs) -> anyhow::Result<()> {
    let (engine, info) = loaded(load_request(&args.model, args.adapter.as_deref())?).await?;
    let began = Instant::now();
    // As many as there are nonces, so sending never waits.
    let (kept, artifacts) = mpsc::sync_channel(args.nonces.len());
    let order = ProofOrder {
        round: Round {
            identity: Identity { block_hash: args.block_hash, public_key: args.public_key },
            seq_len: args.seq_len,
            k_dim: K_DIM,
            stronger_rng: args.stronger_rng,
            scheme: Scheme::Prefill,
        },
        claims: None,
        cancel: CancellationToken::new(),
        nonces: Box::new(args.nonces.into_iter()),
        batch: usize::MAX,
        on_step: Box::new(move |step| {
            match step {
                ProofStep::Artifact(artifact) => drop(kept.send(artifact)),
                ProofStep::Dropped { nonce } => {
                    tracing::warn!(nonce, "the model gave NaN; the network drops such a nonce");
                }
            }
            ControlFlow::Continue(())
        }),
    };
    let end = match engine.prove(order) {
        Ok(end) => end.await.unwrap_or(Err(EngineFault::ShutDown)),
        Err(fault) => Err(fault),
    };
    let seconds = began.elapsed().as_secs_f64();
    engine.shut_down().await;
    end?;
    let artifacts: Vec<Artifact> = artifacts.iter().collect();
    if args.json {
        let view = |artifact: &Artifact| {
            json!({
                "nonce": artifact.nonce, "vector_b64": artifact.vector_b64,
                "vector": artifact.vector,
            })
        };
        let artifacts: Vec<Value> = artifacts.iter().map(view).collect();
        println!(
            "{}",
            json!({"artifacts": artifacts, "adapter": info.adapter, "seconds": seconds})
        );
    } else {
        for artifact in &artifacts {
            println!("{:>10}  {}", artifact.nonce, artifact.vector_b64);
        }
        eprintln!("{} artifacts in {seconds:.1} s on {}", artifacts.len(), info.adapter);
    }
    Ok(())
}
