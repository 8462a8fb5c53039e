//! The built-in miner against scripted pools on a real socket.
//!
//! The pool re-hashes every share with its own code before it says yes, so an accepted share here is
//! work. What a pool can do to a conversation is done to it: lines cut in two, connections cut in the
//! middle of a line, jobs between a share and its answer, difficulties that jump.

pub(crate) mod external;
mod faults;
mod mixed;
mod paced;
pub(crate) mod pool;
mod several;
mod stratum2;
mod vectors;

use roadbed_agent::config::{MiningConfig, PoolConfig, PoolTrust};
use roadbed_agent::miner::{Miner, MinerHandle, MinerStats};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use pool::{Pool, Share};

/// Longest wait for anything: far beyond the miner's back-off.
const DEADLINE: Duration = Duration::from_secs(60);
/// One share in about 43,000 hashes.
const EASY: f64 = 1e-5;

fn of(address: &str) -> PoolConfig {
    PoolConfig::new(address.parse().unwrap(), "farm.rig", "x")
}

fn mine(pools: Vec<PoolConfig>, threads: usize) -> MinerHandle {
    Miner::start(&MiningConfig { threads, gpus: vec![], pools }, "mine").unwrap()
}

fn start(pool: &Pool, threads: usize) -> MinerHandle {
    mine(vec![of(&pool.address())], threads)
}

async fn until(miner: &MinerHandle, wanted: impl Fn(&MinerStats) -> bool) -> MinerStats {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let stats = miner.stats();
        if wanted(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_work_and_are_booked_by_their_answers() {
    let pool = Pool::listen().await;
    let miner = start(&pool, 2);
    let mut talk = pool.accept().await;
    talk.let_in(EASY, "a").await;
    let mut seen = Vec::new();
    for answer in [
        json!({"result": true, "error": null}),
        json!({"result": null, "error": [21, "Job not found", null]}),
        json!({"result": null, "error": [22, "Duplicate share", null]}),
        json!({"result": null, "error": {"code": 23, "message": "Low difficulty share"}}),
        json!({"result": false}),
        json!({"result": true}),
    ] {
        let share = talk.share().await;
        assert!(share.is_work(EASY), "{share:?}");
        assert!(!seen.contains(&share.key()), "found twice: {share:?}");
        seen.push(share.key());
        talk.answer(&share, answer).await;
    }
    let stats = until(&miner, |stats| stats.shares.accepted == 2 && stats.hashrate.0 > 0).await;
    assert_eq!(
        (
            stats.shares.stale,
            stats.shares.duplicate,
            stats.shares.low_difficulty,
            stats.shares.other
        ),
        (1, 1, 1, 1)
    );
    assert!((stats.shares.accepted_difficulty - 2.0 * EASY).abs() < 1e-12);
    assert!(stats.mining && stats.hashes > 0, "{stats:?}");
    assert_eq!(stats.counters().shares_rejected, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_job_ends_work_on_the_old_one_and_a_new_difficulty_begins_with_a_job() {
    let pool = Pool::listen().await;
    let miner = start(&pool, 1);
    let mut talk = pool.accept().await;
    talk.let_in(EASY, "old").await;
    assert_eq!(talk.share().await.job, "old");
    talk.difficulty(EASY / 4.0).await;
    talk.notify("easier", true).await;
    let mut easier = 0;
    while easier < 12 {
        let share = talk.share().await;
        match share.job.as_str() {
            // Sent before the clean job had arrived.
            "old" => assert_eq!(easier, 0, "old work after new"),
            _ => {
                assert!(share.is_work(EASY / 4.0), "{share:?}");
                easier += 1;
            }
        }
    }
    let stats = until(&miner, |stats| (stats.difficulty - EASY / 4.0).abs() < 1e-12).await;
    assert_eq!(stats.jobs, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_lines_are_joined_and_cut_connections_made_anew() {
    let pool = Pool::listen().await;
    let miner = start(&pool, 1);
    let mut talk = pool.accept().await;
    talk.slice_writes(7);
    talk.let_in(EASY, "a").await;
    assert!(talk.share().await.is_work(EASY));
    talk.raw(b"{\"id\":null,\"method\":\"mining.no").await;
    drop(talk);
    let mut talk = pool.accept().await;
    talk.let_in(EASY, "b").await;
    let share = talk.share().await;
    assert_eq!(share.job, "b", "jobs of the dead connection are forgotten");
    assert!(share.is_work(EASY));
    talk.answer(&share, json!({"result": true})).await;
    let stats = until(&miner, |stats| stats.shares.accepted == 1).await;
    assert_eq!(stats.connections, 2);
    assert!(stats.shares.unanswered >= 1, "the share of the dead connection: {stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_and_overlong_lines_do_not_stop_the_mining() {
    let pool = Pool::listen().await;
    let miner = start(&pool, 1);
    let mut talk = pool.accept().await;
    talk.raw(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe\n").await;
    talk.raw(&vec![b'['; 300_000]).await;
    talk.raw(b"\n").await;
    talk.let_in(EASY, "a").await;
    assert!(talk.share().await.is_work(EASY));
    let stats = until(&miner, |stats| stats.garbage == 3).await;
    assert!(stats.mining);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_and_stop_silence_the_threads() {
    let pool = Pool::listen().await;
    let miner = start(&pool, 2);
    let mut talk = pool.accept().await;
    // So hard that no share disturbs.
    talk.let_in(1e6, "a").await;
    until(&miner, |stats| stats.hashes > 100_000).await;
    miner.pause();
    assert!(miner.silence().await);
    let before = miner.stats();
    assert!(before.mining, "the connection stays: {before:?}");
    assert_eq!(before.hashrate.0, 0);
    miner.resume();
    until(&miner, |stats| stats.hashes > before.hashes + 100_000).await;
    let told = Instant::now();
    miner.stop();
    assert!(miner.silence().await);
    // Shown, not asserted: wall time is the machine's business.
    println!("silent {:?} after the stop", told.elapsed());
    let stopped = until(&miner, |stats| !stats.connected).await;
    let again = miner.stats().hashes;
    assert_eq!(stopped.hashes, again, "silence is silence");
    assert_eq!(talk.share_or_end().await, None::<Share>, "the connection is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_refuses_the_worker_is_told_as_trouble() {
    let pool = Pool::listen().await;
    let miner = start(&pool, 1);
    let mut talk = pool.accept().await;
    talk.subscribe().await;
    let (id, _) = talk.request("mining.authorize").await;
    talk.say(json!({"id": id, "result": false, "error": null})).await;
    let stats = until(&miner, |stats| !stats.trouble.is_empty()).await;
    assert!(stats.trouble.contains("farm.rig"), "{}", stats.trouble);
    assert_eq!(stats.hashes, 0);
}
