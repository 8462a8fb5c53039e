//! `roadbed-agent mine`: mines for a pool, or for the pools of a config file, without a controller.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::looks::{Looks, LooksArgs};
use crate::config::{
    self, Difficulty, MiningConfig, POOLS_MAX, PoolAddress, PoolConfig, PoolTrust, RigHardware,
    RigMining,
};
use crate::miner::share::ShareTally;
use crate::miner::{Miner, MinerHandle, MinerStats, PoolStats};

/// Arguments of `mine`.
#[derive(Debug, Args)]
#[command(
    after_help = "Pools: stratum+tcp://host:port, stratum+ssl://host:port or stratum2+tcp://host:port/AUTHORITY_KEY.\n\
The first one that is up is hashed for; a fallback is left once a better pool has been up for a minute.\n\
Priorities, weights, TLS by pool and worker templates: `mining:` of a config file, as the README shows."
)]
pub struct MineArgs {
    /// Pool, again for each fallback.
    #[arg(long = "pool", required_unless_present = "config", conflicts_with = "config")]
    pub pools: Vec<PoolAddress>,
    /// Worker name.
    #[arg(long, default_value = "roadbed")]
    pub user: String,
    /// Its password.
    #[arg(long, default_value = "x")]
    pub password: String,
    /// Hash threads on the processor; 1 unless GPUs hash.
    #[arg(long)]
    pub threads: Option<usize>,
    /// GPU that hashes too, by name or PCI id; `auto` is the best one.
    #[arg(long = "gpu")]
    pub gpus: Vec<String>,
    /// Difficulty to ask for.
    #[arg(long)]
    pub suggest_difficulty: Option<f64>,
    /// PEM file of the authorities that TLS trusts, instead of this machine's.
    #[arg(long, conflicts_with = "insecure")]
    pub ca_file: Option<PathBuf>,
    /// TLS trusts anybody.
    #[arg(long)]
    pub insecure: bool,
    /// Mine with and for what the GPU rig of this config file has under `mining:`.
    #[arg(long)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub looks: LooksArgs,
    /// One JSON document a line instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Hashes that a share of difficulty 1 takes on average: 2^48 / 0xffff.
const HASHES_PER_DIFFICULTY: f64 = 4_295_032_833.0;

/// Runs the command.
///
/// # Errors
/// What went wrong; a pool that is down is no error.
pub async fn run(args: MineArgs) -> anyhow::Result<()> {
    let mining = match &args.config {
        Some(path) => of_file(path)?,
        None => of_arguments(&args)?,
    };
    let miner = Miner::start(&mining, "mine")?;
    let mut looks = Looks::new(&args.looks);
    while looks.next().await {
        tell(&miner.stats(), &mining, args.json)?;
    }
    end(&miner, &mining, args.json).await
}

/// Silence first, then the last word on every share.
async fn end(miner: &MinerHandle, mining: &MiningConfig, as_json: bool) -> anyhow::Result<()> {
    miner.stop();
    let silent = miner.silence().await;
    miner.left().await;
    tell(&miner.stats(), mining, as_json)?;
    anyhow::ensure!(silent, "a hash thread does not end");
    Ok(())
}

fn of_file(path: &std::path::Path) -> anyhow::Result<MiningConfig> {
    let config = config::load(path)?;
    let mining = config.rigs.into_iter().find_map(|rig| match rig.hardware {
        RigHardware::Gpu(gpu) => gpu.mining,
        RigHardware::Asic(_) => None,
    });
    match mining {
        Some(RigMining::BuiltIn(mining)) => Ok(mining),
        Some(RigMining::External(external)) => anyhow::bail!(
            "{}: the rig hashes with {}; `roadbed-agent miners run` tries that",
            path.display(),
            external.profile.title
        ),
        None => anyhow::bail!("{}: no rig has `mining:` or `pool:`", path.display()),
    }
}

fn of_arguments(args: &MineArgs) -> anyhow::Result<MiningConfig> {
    anyhow::ensure!(args.pools.len() <= POOLS_MAX, "at most {POOLS_MAX} pools");
    let suggest_difficulty = match args.suggest_difficulty {
        Some(number) => Some(
            Difficulty::new(number).context("--suggest-difficulty: a number above 0 expected")?,
        ),
        None => None,
    };
    let trust = match (&args.ca_file, args.insecure) {
        (Some(path), _) => {
            let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
            PoolTrust::Authorities(pem)
        }
        (None, true) => PoolTrust::Anybody,
        (None, false) => PoolTrust::System,
    };
    let pools = args.pools.iter().zip(1..).map(|(address, priority)| PoolConfig {
        priority,
        trust: trust.clone(),
        suggest_difficulty,
        ..PoolConfig::new(address.clone(), &args.user, &args.password)
    });
    let threads = args.threads.unwrap_or(usize::from(args.gpus.is_empty()));
    anyhow::ensure!(
        threads > 0 || !args.gpus.is_empty(),
        "--threads 0 and no --gpu: nothing hashes"
    );
    Ok(MiningConfig { threads, gpus: args.gpus.clone(), pools: pools.collect() })
}

/// # Errors
/// Nobody reads any more.
fn tell(stats: &MinerStats, mining: &MiningConfig, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        return writeln!(out, "{}", document(stats, mining));
    }
    let rate = stats.hashrate.0 as f64 / 1e6;
    if !stats.mining && !stats.trouble.is_empty() {
        writeln!(out, "no pool: {}", stats.trouble)?;
    }
    for (place, (pool, seen)) in mining.pools.iter().zip(&stats.pools).enumerate() {
        let now = match (stats.hash_for == Some(place), seen.connected) {
            (true, _) => format!("{rate:.2} MH/s"),
            (false, true) => "standing by".into(),
            (false, false) => "not connected".into(),
        };
        let answers = seen.report.answer_after;
        let answers = answers.map_or(String::new(), |after| format!(", answers in {} ms", after.0));
        let rare = match stats.hash_for == Some(place) {
            true => rarely(seen.report.difficulty, stats.hashrate.0).unwrap_or_default(),
            false => String::new(),
        };
        writeln!(
            out,
            "{}: {now}, difficulty {}{rare}, shares: {}{answers}",
            pool.address,
            seen.report.difficulty,
            seen.report.shares.pool_shares(),
        )?;
    }
    Ok(())
}

/// Says how rarely a share is to be expected, where a short look would take the silence for a fault.
fn rarely(difficulty: f64, hashes_per_second: u64) -> Option<String> {
    if hashes_per_second == 0 {
        return None;
    }
    let hours = difficulty * HASHES_PER_DIFFICULTY / hashes_per_second as f64 / 3_600.0;
    match hours {
        0.25..48.0 => Some(format!(" (a share in about {hours:.1} hours)")),
        48.0.. => Some(format!(" (a share in about {:.0} days)", hours / 24.0)),
        _ => None,
    }
}

fn document(stats: &MinerStats, mining: &MiningConfig) -> Value {
    let pool = |(config, seen): (&PoolConfig, &PoolStats)| {
        json!({
            "url": config.address.to_string(),
            "connected": seen.connected,
            "mining": seen.report.mining,
            "connections": seen.connections,
            "difficulty": seen.report.difficulty,
            "jobs": seen.report.jobs,
            "garbage": seen.report.garbage,
            "hashes": seen.hashes,
            "shares": shares(&seen.report.shares),
            "answer_ms": seen.report.answer_after.map(|after| after.0),
            "message": seen.report.told,
            "trouble": seen.trouble,
        })
    };
    json!({
        "hashing_for": stats.hash_for.and_then(|place| mining.pools.get(place)).map(|pool| pool.address.to_string()),
        "hashes": stats.hashes,
        "hashes_per_second": stats.hashrate.0,
        "threads": stats.threads.iter().map(|rate| rate.0).collect::<Vec<u64>>(),
        "shares": shares(&stats.shares),
        "pools": mining.pools.iter().zip(&stats.pools).map(pool).collect::<Vec<Value>>(),
    })
}

fn shares(tally: &ShareTally) -> Value {
    json!({
        "submitted": tally.submitted,
        "accepted": tally.accepted,
        "accepted_difficulty": tally.accepted_difficulty,
        "stale": tally.stale,
        "duplicate": tally.duplicate,
        "low_difficulty": tally.low_difficulty,
        "other": tally.other,
        "unanswered": tally.unanswered,
        "stale_unsent": tally.stale_unsent,
        "held_back": tally.held_back,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difficulty_out_of_reach_is_put_in_days() {
        assert_eq!(rarely(1.0, 0), None);
        assert_eq!(rarely(0.001, 10_000_000), None);
        assert_eq!(rarely(8.0, 10_000_000).unwrap(), " (a share in about 1.0 hours)");
        assert_eq!(rarely(1e6, 10_000_000).unwrap(), " (a share in about 4971 days)");
    }
}
