//! `roadbed-agent miners run`: one external miner in the foreground.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use roadbed_protocol::HashesPerSecond;
use serde_json::{Value, json};

use super::list::find;
use crate::cli::looks::{Looks, LooksArgs};
use crate::config::miner_profile::Template;
use crate::config::{
    ExternalConfig, ExternalPool, PoolAddress, miner_profile_named, miner_profiles,
};
use crate::miner::external::supervisor::{Ended, Limits};
use crate::miner::external::{
    self, ExternalHandle, ExternalStatus, GpuMemory, Launch, Surroundings, end_leftovers,
    notes_folder,
};

/// Arguments of `miners run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with Ctrl-C: by the miner's API where it has such a call, then SIGTERM, then SIGKILL to everything it started.
Examples:
  roadbed-agent miners run t-rex --algorithm kawpow --pool stratum+tcp://pool.example:3333 --user WALLET.rig1
  roadbed-agent miners run xmrig --algorithm randomx --pool stratum+ssl://pool.example:443 --user WALLET --arg=--threads=4
  roadbed-agent miners run lolminer --program /opt/lolminer/lolMiner --arg=--algo --arg=KAWPOW --arg=--apiport '--arg={api_port}' ...")]
pub struct MinersRunArgs {
    /// Name of its profile, as `miners list` shows it.
    pub miner: String,
    /// What it hashes; our word, as `miners list` shows it.
    #[arg(long, required_unless_present = "args", requires = "pool")]
    pub algorithm: Option<String>,
    /// For whom: stratum+tcp://host:port or stratum+ssl://host:port. Without one, `--arg` gives the whole command line.
    #[arg(long, requires = "algorithm")]
    pub pool: Option<PoolAddress>,
    /// Worker name, often a wallet's address.
    #[arg(long, default_value = "roadbed")]
    pub user: String,
    /// Its password.
    #[arg(long, default_value = "x", env = "ROADBED_POOL_PASSWORD", hide_env_values = true)]
    pub password: String,
    /// The miner's number of a GPU, again for each; all of them when none is given.
    #[arg(long = "gpu")]
    pub gpus: Vec<u32>,
    /// One more argument for the miner, again for each; blanks like {api_port} are filled in.
    #[arg(long = "arg", allow_hyphen_values = true)]
    pub args: Vec<Template>,
    /// Its program; looked for in PATH by the profile's name without it.
    #[arg(long)]
    pub program: Option<String>,
    /// Folder of further profiles.
    #[arg(long)]
    pub profiles: Option<PathBuf>,
    /// Hashes a second below which it counts as stalled.
    #[arg(long, default_value_t = 1)]
    pub floor: u64,
    /// Seconds between two shares, if known: twenty times as long without one is a stall.
    #[arg(long)]
    pub share_every: Option<u64>,
    /// Port of 127.0.0.1 for its API; a free one without it.
    #[arg(long)]
    pub api_port: Option<u16>,
    #[command(flatten)]
    pub looks: LooksArgs,
    /// One JSON document a line instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What went wrong; a miner that needs a person is an error.
pub async fn run(args: MinersRunArgs) -> anyhow::Result<()> {
    let config = config(&args)?;
    anyhow::ensure!(
        find(&config.program).is_some(),
        "the program {} is not here; download {} and give --program /path/to/it",
        config.program,
        config.profile.title
    );
    let notes = notes_folder();
    if let Some(folder) = notes.clone() {
        tokio::task::spawn_blocking(move || end_leftovers(&folder)).await??;
    }
    let tested = config.profile.tested;
    let surroundings = Surroundings {
        notes,
        gauge: Box::new(GpuMemory::default()),
        limits: Limits::default(),
        alarms: None,
    };
    let miner = external::start(Launch::new(config, "mine"), surroundings);
    if !args.json {
        println!("{}: its profile is {tested}", miner.description());
    }
    let mut looks = Looks::new(&args.looks);
    loop {
        let goes_on = tokio::select! {
            goes_on = looks.next() => goes_on,
            () = miner.alarmed() => false,
        };
        if !goes_on {
            break;
        }
        tell(&miner.status(), args.json)?;
    }
    end(&miner, args.json).await
}

/// The last figures, then its end.
async fn end(miner: &ExternalHandle, as_json: bool) -> anyhow::Result<()> {
    let last = miner.status();
    tell(&last, as_json)?;
    miner.stop();
    let ended = miner.ended().await.map_err(anyhow::Error::msg)?;
    if !as_json {
        println!(
            "{}",
            match ended {
                Ended::Confirmed => "ended: every process is gone and its GPU memory is free",
                Ended::NotConfirmed =>
                    "ended: every process is gone; that its GPU memory is free is not confirmed, nobody here tells",
                Ended::NeverRan => "it never ran",
            }
        );
    }
    anyhow::ensure!(!last.alarm, "{}", last.trouble);
    Ok(())
}

fn config(args: &MinersRunArgs) -> anyhow::Result<ExternalConfig> {
    let profiles = miner_profiles(args.profiles.as_deref())?;
    let profile = miner_profile_named(profiles, &args.miner)
        .map_err(|problem| anyhow::anyhow!("{problem}; `--profiles DIR` adds others"))?;
    let pool = args.pool.clone().map(|address| ExternalPool {
        address,
        user: args.user.clone(),
        password: args.password.clone(),
    });
    let mut config =
        ExternalConfig::new(profile, args.algorithm.as_deref().unwrap_or_default(), pool);
    if let Some(program) = &args.program {
        config.program.clone_from(program);
    }
    config.gpus.clone_from(&args.gpus);
    config.args.clone_from(&args.args);
    config.floor = HashesPerSecond(args.floor);
    config.share_every = args.share_every.map(Duration::from_secs);
    config.api_port = args.api_port;
    config.validate().map_err(|(field, problem)| anyhow::anyhow!("{field}: {problem}"))?;
    Ok(config)
}

/// # Errors
/// Nobody reads any more.
fn tell(status: &ExternalStatus, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        return writeln!(out, "{}", document(status));
    }
    let shares = status.shares;
    let (accepted, rejected, stale) = (shares.accepted, shares.rejected, shares.stale);
    let restarts = match status.restarts {
        0 => String::new(),
        1 => ", 1 restart".to_owned(),
        restarts => format!(", {restarts} restarts"),
    };
    if !status.trouble.is_empty() {
        writeln!(out, "{}: {}", status.word, status.trouble)?;
    }
    writeln!(
        out,
        "{}: {}, {accepted} shares accepted, {rejected} rejected, {stale} stale{restarts}",
        status.word,
        status.hashrate(),
    )?;
    for (gpu, figures) in status.figures.iter().flat_map(|figures| figures.gpus.iter().enumerate())
    {
        let dash = || "-".to_owned();
        writeln!(
            out,
            "  GPU {gpu}: {}, {} W, {} C",
            figures.hashrate.map_or_else(dash, |rate| rate.to_string()),
            figures.watts.map_or_else(dash, |watts| watts.to_string()),
            figures.celsius.map_or_else(dash, |celsius| celsius.to_string()),
        )?;
    }
    Ok(())
}

fn document(status: &ExternalStatus) -> Value {
    let figures = status.figures.as_ref();
    let gpus = figures.map(|figures| {
        figures.gpus.iter().map(|gpu| {
            json!({"hashes_per_second": gpu.hashrate.map(|rate| rate.0), "watts": gpu.watts, "celsius": gpu.celsius})
        }).collect::<Vec<Value>>()
    });
    json!({
        "state": status.word,
        "hashes_per_second": figures.and_then(|figures| figures.hashrate).map(|rate| rate.0),
        "shares": {"accepted": status.shares.accepted, "rejected": status.shares.rejected, "stale": status.shares.stale},
        "restarts": status.restarts,
        "trouble": status.trouble,
        "alarm": status.alarm,
        "version": figures.and_then(|figures| figures.version.clone()),
        "uptime_seconds": figures.and_then(|figures| figures.uptime_seconds),
        "gpus": gpus,
    })
}
