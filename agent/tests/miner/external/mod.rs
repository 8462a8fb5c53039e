//! External miners: profiles against answers of the right shape, supervision against fakes that run as real processes.

pub mod fake;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roadbed_agent::config::{ExternalConfig, ExternalPool, miner_profiles};
use roadbed_agent::miner::external::reply::Figures;
use roadbed_agent::miner::external::supervisor::{Ended, Limits};
use roadbed_agent::miner::external::{
    ExternalHandle, ExternalStatus, Launch, MemoryGauge, Surroundings, start,
};
use roadbed_protocol::{HashesPerSecond, Millis};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use fake::answer;

const PATIENCE: Duration = Duration::from_secs(60);

/// Quick enough for a test, slow enough for a machine that is busy.
fn limits() -> Limits {
    Limits {
        ask_every: Millis(50),
        api_silent: Millis(20_000),
        below_floor: Millis(600),
        share_wait_min: Millis(600),
        share_wait_unknown: Millis(600),
        api_stop: Millis(300),
        term: Millis(300),
        settle: Millis(50),
        memory: Millis(300),
        backoff_first: Millis(1),
        backoff_max: Millis(1),
        failures_max: 1,
        good_run: Millis(600_000),
        ..Limits::default()
    }
}

/// For miners that do well: a machine that is busy is no stall.
fn patient() -> Limits {
    let long = Millis::from_mins(1);
    Limits { below_floor: long, share_wait_min: long, share_wait_unknown: long, ..limits() }
}

#[derive(Clone, Default)]
struct Gauge(Option<Arc<AtomicU64>>);

impl MemoryGauge for Gauge {
    fn used(&mut self) -> Option<Vec<u64>> {
        self.0.as_ref().map(|used| vec![used.load(Ordering::SeqCst)])
    }
}

struct Bench {
    miner: ExternalHandle,
    alarms: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

pub(crate) fn config(folder: &Path, miner: &str, manners: &str) -> ExternalConfig {
    let profile = miner_profiles(None).unwrap().into_iter().find(|profile| profile.name == miner);
    let pool = ExternalPool {
        address: "stratum+tcp://pool.example:3333".parse().unwrap(),
        user: "wallet.{workload}".into(),
        password: "hush-hush".into(),
    };
    let profile = profile.unwrap();
    let algorithm = profile.algorithms.keys().next().unwrap().clone();
    let mut config = ExternalConfig::new(profile, &algorithm, Some(pool));
    config.program = fake::program(folder, miner, manners);
    config.profile.start_wait = Duration::from_secs(20);
    config
}

impl Bench {
    fn start(miner: &str, manners: &str) -> Self {
        Self::start_with(miner, manners, Gauge::default(), patient())
    }

    fn start_with(miner: &str, manners: &str, gauge: Gauge, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), miner, manners);
        let (sender, alarms) = mpsc::channel(4);
        let surroundings = Surroundings {
            notes: Some(folder.path().join("notes")),
            gauge: Box::new(gauge),
            limits,
            alarms: Some(sender),
        };
        let miner = start(Launch::new(config, "mine"), surroundings);
        Self { miner, alarms, _folder: folder }
    }

    async fn until(&self, what: &str, is: impl Fn(&ExternalStatus) -> bool) -> ExternalStatus {
        let reached = async {
            loop {
                let status = self.miner.status();
                if is(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{what}: {:?}", self.miner.status());
        reached.unwrap()
    }

    async fn stop(&self) -> Result<Ended, String> {
        self.miner.stop();
        timeout(PATIENCE, self.miner.ended()).await.expect("it ends")
    }

    async fn alarm(&mut self) -> String {
        timeout(PATIENCE, self.alarms.recv()).await.expect("an alarm").unwrap()
    }
}

#[test]
fn every_profile_reads_what_its_miner_says() {
    let questions = |name: &str| match name {
        "xmrig" => json!({"summary": answer("xmrig.summary")}),
        "t-rex" => json!({"summary": answer("t-rex.summary")}),
        "lolminer" => json!({"summary": answer("lolminer.summary")}),
        "srbminer-multi" => json!({"status": answer("srbminer-multi.status")}),
        "teamredminer" => {
            json!({"summary": answer("teamredminer.summary"), "devs": answer("teamredminer.devs")})
        }
        "bzminer" => json!({"status": answer("bzminer.status")}),
        "rigel" => json!({"status": answer("rigel.status")}),
        other => unreachable!("{other} has no answers"),
    };
    for profile in miner_profiles(None).unwrap() {
        let figures = Figures::read(&profile, &questions(&profile.name));
        let rates: Vec<u64> = figures.gpus.iter().filter_map(|gpu| Some(gpu.hashrate?.0)).collect();
        let watts: Vec<u64> = figures.gpus.iter().filter_map(|gpu| gpu.watts).collect();
        let heats: Vec<u64> = figures.gpus.iter().filter_map(|gpu| gpu.celsius).collect();
        let version = figures.version.as_deref().unwrap_or("-");
        let seen = (figures.hashrate.unwrap().0, rates, watts, heats, figures.stale, version);
        let want = match profile.name.as_str() {
            "xmrig" => (1_207, vec![], vec![], vec![], None, "6.21.0"),
            "t-rex" => (
                61_189_394,
                vec![31_189_394, 30_000_000],
                vec![237, 240],
                vec![65, 66],
                None,
                "0.26.8",
            ),
            "lolminer" => (
                181_250_000,
                vec![90_250_000, 91_000_000],
                vec![121, 130],
                vec![55, 57],
                Some(1),
                "lolMiner 1.88",
            ),
            "srbminer-multi" => (181_250_001, vec![], vec![120, 125], vec![61, 63], None, "2.9.4"),
            "teamredminer" => {
                (61_189_000, vec![30_589_000, 30_600_000], vec![], vec![55, 57], Some(1), "-")
            }
            "bzminer" => {
                (61_189_000, vec![30_589_000, 30_600_000], vec![], vec![], Some(1), "v21.5.3")
            }
            "rigel" => (
                61_189_000,
                vec![30_589_000, 30_600_000],
                vec![150, 160],
                vec![60, 62],
                None,
                "1.19.1",
            ),
            other => unreachable!("{other} is not expected"),
        };
        assert_eq!(seen, want, "{}", profile.name);
        assert_eq!((figures.accepted, figures.rejected), (Some(41), Some(2)), "{}", profile.name);
        assert!(
            figures.uptime_seconds.is_some_and(|seconds| (76..=106).contains(&seconds)),
            "{}",
            profile.name
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_miner_is_started_heard_and_ended() {
    let names =
        ["xmrig", "lolminer", "t-rex", "srbminer-multi", "teamredminer", "bzminer", "rigel"];
    let benches: Vec<Bench> = names.iter().map(|name| Bench::start(name, "well")).collect();
    for (name, bench) in names.iter().zip(&benches) {
        let status = bench.until(name, |status| status.hashing && status.shares.accepted > 1).await;
        assert!(status.hashrate() > HashesPerSecond(1_000), "{name}: {status:?}");
        assert_eq!(
            (status.word, status.restarts, status.trouble.as_str()),
            ("hashing", 0, ""),
            "{name}"
        );
        assert_eq!(bench.stop().await, Ok(Ended::NotConfirmed), "{name}");
        let status = bench.miner.status();
        assert!(
            !status.hashing && status.figures.is_none() && status.counters().shares_accepted > 1,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_hear_a_stop_is_killed_with_all_it_started() {
    // By its API, which it does not obey, then SIGTERM, to which it and its child are deaf, then SIGKILL.
    let used = Arc::new(AtomicU64::new(1 << 30));
    let bench = Bench::start_with("t-rex", "deaf forks slow", Gauge(Some(used.clone())), patient());
    bench.until("hashing", |status| status.hashing).await;
    used.store(9 << 30, Ordering::SeqCst);
    let left = bench.stop().await.unwrap_err();
    assert!(left.contains("8192 MiB of GPU memory"), "{left}");
    assert!(bench.miner.status().alarm);
    used.store(1 << 30, Ordering::SeqCst);
    assert_eq!(bench.stop().await, Ok(Ended::Confirmed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_does_not_wait_for_the_gentle_means() {
    let patient = Limits { api_stop: Millis::from_mins(10), ..patient() };
    let bench = Bench::start_with(
        "t-rex",
        "deaf",
        Gauge::default(),
        Limits { term: Millis::from_mins(10), ..patient },
    );
    bench.until("hashing", |status| status.hashing).await;
    bench.miner.cut();
    assert_eq!(timeout(PATIENCE, bench.miner.ended()).await.unwrap(), Ok(Ended::NotConfirmed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_tried_again_and_then_told() {
    let cases = [
        ("silent", "its API did not answer"),
        ("garbage", "its API did not answer"),
        ("oversize", "its API did not answer"),
        ("cut", "its API did not answer"),
        ("zero", "it hashes nothing"),
        ("barren", "no share was accepted"),
        ("exits", "ended with status 3"),
    ];
    let mut benches = Vec::new();
    for (manners, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), "rigel", manners);
        if words.contains("API") {
            config.profile.start_wait = Duration::from_millis(900);
        }
        let (sender, alarms) = mpsc::channel(4);
        let surroundings = Surroundings {
            notes: None,
            gauge: Box::new(Gauge::default()),
            limits: limits(),
            alarms: Some(sender),
        };
        let miner = start(Launch::new(config, "mine"), surroundings);
        benches.push((manners, words, Bench { miner, alarms, _folder: folder }));
    }
    for (manners, words, mut bench) in benches {
        let alarm = bench.alarm().await;
        assert!(
            alarm.contains("2 failures in a row") && alarm.contains(words),
            "{manners}: {alarm}"
        );
        assert!(!alarm.contains("hush"), "{manners}: {alarm}");
        if manners == "exits" {
            assert!(alarm.contains("no CUDA device"), "{alarm}");
        }
        // It is told a moment before the figures say it.
        let status = bench.until(manners, |status| status.alarm).await;
        assert_eq!((status.word, status.restarts), ("alarm", 1), "{manners}");
        assert_eq!(bench.stop().await, Ok(Ended::NotConfirmed), "{manners}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "xmrig", "well");
    config.program = "/nowhere/xmrig".into();
    let (sender, mut alarms) = mpsc::channel(4);
    let surroundings = Surroundings {
        notes: None,
        gauge: Box::new(Gauge::default()),
        limits: limits(),
        alarms: Some(sender),
    };
    let miner = start(Launch::new(config, "mine"), surroundings);
    let alarm = timeout(PATIENCE, alarms.recv()).await.unwrap().unwrap();
    assert!(alarm.contains("/nowhere/xmrig"), "{alarm}");
    miner.stop();
    assert!(miner.ended().await.is_ok());
}
