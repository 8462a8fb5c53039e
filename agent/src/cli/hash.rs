//! `roadbed-agent hash scan`: a range of nonces against a target.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use roadbed_compute::hash::{BackendKind, ScanRequest, Target, collect, header, hex};
use serde_json::json;

use crate::engine::kept::kept_folder;

/// Arguments of `hash scan`.
#[derive(Debug, Args)]
pub struct HashScanArgs {
    /// Header in hex, 76 or 80 bytes, as hashed; the last 4 of 80 are not used.
    #[arg(long)]
    pub header: String,
    /// Target in hex, 32 bytes, a big-endian number.
    #[arg(long)]
    pub target: String,
    /// First nonce.
    #[arg(long)]
    pub start: u32,
    /// How many nonces, at most 2^32; the range wraps.
    #[arg(long)]
    pub count: u64,
    /// What hashes: `cpu` or `gpu`.
    #[arg(long, default_value = "cpu")]
    pub backend: String,
    /// Pin an adapter by name or PCI id.
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
pub async fn run(args: HashScanArgs) -> anyhow::Result<()> {
    // Hashing blocks, and is all this process does: one thread of the pool may have it.
    tokio::task::spawn_blocking(move || scan(&args)).await.context("the scan died")?
}

fn scan(args: &HashScanArgs) -> anyhow::Result<()> {
    let (header, _nonce) = header::parse(&args.header).context("--header")?;
    let target = hex::decode_exact("target", &args.target).map(Target).context("--target")?;
    let kind: BackendKind = args.backend.parse().context("--backend")?;
    let Ok(adapter) = args.adapter.as_deref().unwrap_or("best").parse();
    let mut backend = kind.open(&adapter, kept_folder().as_deref(), &AtomicBool::new(false))?;
    let request = ScanRequest { header, target, start: args.start, count: args.count };
    let began = Instant::now();
    let (hits, summary) = collect(backend.as_mut(), &request, &AtomicBool::new(false))?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        let found: Vec<u32> = hits.iter().map(|hit| hit.nonce).collect();
        println!("{}", json!({ "found": found, "hashes": summary.hashes, "seconds": seconds }));
        return Ok(());
    }
    for hit in &hits {
        println!("{:08x}  {}", hit.nonce, hex::encode(&Target::of_hash(&hit.hash).0));
    }
    let rate = summary.hashes as f64 / seconds.max(1e-9) / 1e6;
    println!("{} hashes in {seconds:.3} s on {}: {rate:.2} MH/s", summary.hashes, backend.name());
    anyhow::ensure!(summary.complete, "stopped after {} hits, there are more", hits.len());
    Ok(())
}
