//! Pools that do wrong on purpose: what the operator is told, that every share is booked once, and who is hashed for.

use std::net::Ipv4Addr;

use roadbed_agent::miner::MinerStats;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::paced::{PacedMiner, SOME, StandIn};
use super::{DEADLINE, of};

async fn two(difficulty: f64) -> (StandIn, StandIn, PacedMiner) {
    let (bad, good) = (StandIn::start(difficulty).await, StandIn::start(SOME).await);
    let miner = PacedMiner::start(vec![bad.config(1), good.config(2)]);
    (bad, good, miner)
}

/// The miner's books against the pool's, once the connection is over and everything sent has been read.
async fn agree(stats: &MinerStats, pool: usize, stand_in: &StandIn) {
    let ours = stats.pools[pool].report.shares;
    let read = async {
        while stand_in.0.status().submitted < ours.submitted {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, read).await.unwrap();
    let theirs = stand_in.0.status();
    assert_eq!(theirs.submitted, ours.submitted);
    let known = (theirs.rejected.duplicate, theirs.rejected.other);
    assert_eq!((ours.duplicate, ours.other), known, "{ours:?} {theirs:?}");
    assert!(ours.accepted <= theirs.accepted, "{ours:?} {theirs:?}");
    let unheard = theirs.submitted - ours.accepted - ours.rejected();
    assert_eq!(ours.unanswered, unheard, "{ours:?} {theirs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_in_the_middle_is_an_unanswered_share_and_the_next_pool_is_hashed_for() {
    let (bad, good, miner) = two(SOME).await;
    miner.accepted(2).await;
    bad.misbehave(|faults| faults.cuts_next_answer = true);
    let stats = miner.until(|stats| stats.hash_for == Some(1)).await;
    assert_eq!(stats.pools[0].trouble, "it closed the connection");
    miner.accepted(2).await;
    // It is back within seconds, and has to prove itself.
    let stats = miner.until(|stats| stats.pools[0].report.mining).await;
    assert_eq!((stats.hash_for, stats.pools[0].connections), (Some(1), 2));
    miner.pass(60, &[&bad, &good]).await;
    miner.until(|stats| stats.hash_for == Some(0)).await;
    miner.accepted(1).await;
    let stats = miner.end().await;
    assert!(stats.pools[0].report.shares.unanswered >= 1, "{stats:?}");
    agree(&stats, 0, &bad).await;
    agree(&stats, 1, &good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_of_half_a_minute_is_borne_and_a_longer_one_is_left() {
    let (bad, good, miner) = two(SOME / 10.0).await;
    miner.accepted(2).await;
    bad.misbehave(|faults| faults.mute = true);
    miner.jump(30);
    // As many are under way as may be.
    let stalled = miner.until(|stats| stats.shares.held_back > 0).await.shares;
    bad.misbehave(|faults| faults.mute = false);
    let borne = miner.until(|stats| stats.shares.accepted >= stalled.submitted).await;
    assert_eq!((borne.connections, borne.shares.unanswered), (1, 0));
    assert_eq!(borne.hash_for, Some(0));

    bad.misbehave(|faults| faults.mute = true);
    let before = miner.handle.stats().shares.submitted;
    miner.until(|stats| stats.shares.submitted > before + 2).await;
    miner.jump(46);
    let stats = miner.until(|stats| stats.hash_for == Some(1)).await;
    assert_eq!(stats.pools[0].trouble, "it is silent although shares were sent");
    miner.accepted(1).await;
    let stats = miner.end().await;
    assert!(stats.pools[0].report.shares.unanswered > 2, "{stats:?}");
    agree(&stats, 0, &bad).await;
    agree(&stats, 1, &good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_says_one_difficulty_and_judges_by_another_is_left() {
    let (bad, good) = (StandIn::start(SOME / 10.0).await, StandIn::start(SOME).await);
    bad.misbehave(|faults| faults.harder_than_said = Some(1e6));
    bad.0.next_job(true);
    let miner = PacedMiner::start(vec![bad.config(1), good.config(2)]);
    let stats = miner.until(|stats| stats.hash_for == Some(1)).await;
    let words = "20 shares refused in a row: Low difficulty share";
    assert_eq!(stats.pools[0].trouble, words);
    miner.accepted(1).await;
    let stats = miner.end().await;
    let shares = stats.pools[0].report.shares;
    assert_eq!((shares.low_difficulty, shares.accepted), (20, 0));
    agree(&stats, 0, &bad).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn difficulties_that_are_none_are_passed_over_and_one_out_of_reach_is_shown() {
    let pool = StandIn::start(SOME).await;
    pool.misbehave(|faults| {
        let nonsense = [json!(0), json!(-4), json!("nan"), json!(null), json!([]), json!(1e300)];
        faults.says_difficulties = nonsense.into_iter().chain([json!(SOME)]).collect();
    });
    let miner = PacedMiner::start(vec![pool.config(1)]);
    let stats = miner.accepted(1).await;
    assert_eq!((stats.garbage, stats.shares.rejected()), (6, 0));
    pool.misbehave(|faults| faults.says_difficulties = vec![json!(1e12)]);
    pool.0.next_job(true);
    let stats = miner.until(|stats| stats.difficulty > 1.0).await;
    assert!((stats.difficulty - 1e12).abs() < 1.0 && stats.mining, "{stats:?}");
    let hashes = stats.hashes;
    miner.until(|stats| stats.hashes > hashes).await;
    agree(&miner.end().await, 0, &pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_jump_cost_a_connection_at_most() {
    let pool = StandIn::start(SOME).await;
    let miner = PacedMiner::start(vec![pool.config(1)]);
    miner.accepted(1).await;
    // The pool's: a week on, and two weeks back.
    for seconds in [604_800, -604_800] {
        pool.misbehave(|faults| faults.seconds_off = seconds);
        let jobs = miner.handle.stats().jobs;
        pool.0.next_job(true);
        miner.until(|stats| stats.jobs > jobs).await;
        let stats = miner.accepted(2).await;
        assert_eq!((stats.shares.other, stats.connections), (0, 1), "{stats:?}");
    }
    // Ours, back to its start: nothing.
    miner.jump_to_the_start();
    let stats = miner.accepted(2).await;
    assert_eq!(stats.connections, 1);
    // And on by an hour: the pool seems silent, is left and is found well again.
    miner.jump(3_600);
    let stats = miner.until(|stats| stats.connections == 2).await;
    let shares = stats.shares.accepted;
    miner.until(|stats| stats.shares.accepted > shares).await;
    agree(&miner.end().await, 0, &pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubled_reversed_and_late_answers_are_booked_once() {
    let pool = StandIn::start(SOME / 4.0).await;
    pool.misbehave(|faults| (faults.answers_twice, faults.answers_reversed) = (true, 3));
    let miner = PacedMiner::start(vec![pool.config(1)]);
    let stats = miner.accepted(6).await;
    assert_eq!(stats.garbage, 0);
    assert!(stats.shares.accepted <= pool.0.status().accepted, "none is counted twice");
    // From here on all are held back until the connection is over, and said on the next one.
    pool.misbehave(|faults| (faults.answers_reversed, faults.answers_late) = (1_000, true));
    let before = miner.handle.stats().shares;
    miner.until(|stats| stats.shares.submitted >= before.submitted + 4).await;
    pool.misbehave(|faults| faults.cuts_next_answer = true);
    let cut = miner.until(|stats| !stats.pools[0].connected).await.shares;
    pool.misbehave(|faults| faults.answers_reversed = 0);
    assert!(cut.unanswered >= 4, "{cut:?}");
    let stats = miner.until(|stats| stats.shares.accepted >= cut.accepted + 2).await;
    assert_eq!(stats.shares.unanswered, cut.unanswered, "what comes late changes nothing");
    let stats = miner.end().await;
    agree(&stats, 0, &pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_extranonce_in_the_middle_of_a_job_holds_from_the_next_on() {
    let pool = StandIn::start(SOME).await;
    pool.misbehave(|faults| faults.changes_extranonce = true);
    let miner = PacedMiner::start(vec![pool.config(1)]);
    for clean in [false, true, false] {
        miner.accepted(2).await;
        pool.0.next_job(clean);
    }
    let stats = miner.accepted(2).await;
    // Only what was under way at the clean job may be refused, and for its age.
    assert_eq!(stats.shares.rejected(), stats.shares.stale, "{stats:?}");
    agree(&miner.end().await, 0, &pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_jobs_is_taken_and_the_last_one_is_hashed() {
    let pool = StandIn::start(SOME).await;
    let miner = PacedMiner::start(vec![pool.config(1)]);
    miner.accepted(1).await;
    pool.misbehave(|faults| faults.floods = 3_000);
    pool.0.next_job(true);
    let stats = miner.until(|stats| stats.jobs >= 3_002).await;
    let accepted = stats.shares.accepted;
    let stats = miner.until(|stats| stats.shares.accepted >= accepted + 2).await;
    assert_eq!((stats.connections, stats.garbage), (1, 0));
    assert_eq!(stats.shares.rejected(), stats.shares.stale, "{stats:?}");
    agree(&miner.end().await, 0, &pool).await;
}

/// A TLS address where somebody else answers: the fallback is hashed for, and the words say why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_fails_leads_to_the_next_pool() {
    for (answer, words) in
        [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "InvalidContentType"), (b"", "eof")]
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("stratum+ssl://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // The hello is read first, or the end would be a reset.
                stream.readable().await.unwrap();
                let _ = stream.try_read(&mut [0; 4_096]);
                let _ = stream.write_all(answer).await;
            }
        });
        let good = StandIn::start(SOME).await;
        let miner = PacedMiner::start(vec![of(&address), good.config(2)]);
        let stats = miner.accepted(1).await;
        assert_eq!(stats.hash_for, Some(1));
        let trouble = &stats.pools[0].trouble;
        assert!(trouble.contains("no connection: TLS") && trouble.contains(words), "{trouble}");
    }
}
