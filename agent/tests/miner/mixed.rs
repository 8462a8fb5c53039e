//! Stratum V1 and V2 pools in one list, over sockets: who is hashed for, who is returned to, and who gets how much.

use std::num::NonZeroU32;

use farm_tests::stratum2::pool::Manners;
use farm_tests::stratum2::server::PoolServer;
use roadbed_agent::config::PoolConfig;

use super::of;
use super::paced::{PacedMiner, SOME, StandIn};
use super::stratum2::{authority, target};

/// Target of one share in about 65,000 hashes.
const ZEROS: usize = 16;

async fn second_version() -> PoolServer {
    let manners = Manners { target: target(ZEROS), ..Manners::default() };
    PoolServer::start("127.0.0.1:0".parse().unwrap(), authority(), manners).await.unwrap()
}

fn config(server: &PoolServer, priority: u32) -> PoolConfig {
    let key = authority().address_key();
    let address = format!("stratum2+tcp://{}/{key}", server.address());
    PoolConfig { priority, ..of(&address) }
}

fn accepted(stats: &roadbed_agent::miner::MinerStats, pool: usize) -> u64 {
    stats.pools[pool].report.shares.accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v2_pool_takes_over_from_a_v1_pool_that_is_returned_to() {
    let (first, second) = (StandIn::start(SOME).await, second_version().await);
    let miner = PacedMiner::start(vec![first.config(1), config(&second, 2)]);
    miner.until(|stats| accepted(stats, 0) >= 1).await;
    assert_eq!(second.account().connections, 0, "none is needed yet");
    first.misbehave(|faults| faults.cuts_next_answer = true);
    let stats = miner.until(|stats| accepted(stats, 1) >= 2).await;
    assert_eq!(stats.hash_for, Some(1));
    miner.until(|stats| stats.pools[0].report.mining).await;
    miner.pass(50, &[&first]).await;
    assert_eq!(miner.handle.stats().hash_for, Some(1), "it has yet to prove itself");
    miner.pass(20, &[&first]).await;
    miner.until(|stats| stats.hash_for == Some(0)).await;
    // Half a minute for answers under way, and it is told that we leave.
    miner.pass(40, &[&first]).await;
    let stats = miner.until(|stats| !stats.pools[1].connected).await;
    let account = second.account();
    assert_eq!((account.good, account.refused.len()), (accepted(&stats, 1), 0), "{account:?}");
    let closes = account.heard.iter().filter(|heard| heard.contains("CloseChannel")).count();
    assert_eq!((account.connections, closes), (1, 1), "{account:?}");
    miner.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v1_pool_takes_over_from_a_v2_pool_that_is_returned_to() {
    let (first, second) = (second_version().await, StandIn::start(SOME).await);
    let miner = PacedMiner::start(vec![config(&first, 1), second.config(2)]);
    miner.until(|stats| accepted(stats, 0) >= 1).await;
    assert_eq!(second.0.status().connections, 0, "none is needed yet");
    first.cut();
    let stats = miner.until(|stats| accepted(stats, 1) >= 2).await;
    assert_eq!(stats.hash_for, Some(1));
    miner.until(|stats| stats.pools[0].report.mining).await;
    miner.pass(70, &[&second]).await;
    miner.until(|stats| stats.hash_for == Some(0)).await;
    let before = accepted(&miner.handle.stats(), 0);
    miner.until(|stats| accepted(stats, 0) > before).await;
    miner.end().await;
    // The end itself says good-bye.
    let account = first.account();
    assert_eq!(account.connections, 2);
    assert!(account.refused.is_empty(), "{account:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_and_v2_pools_share_the_hashes_by_weight() {
    let (old, new) = (StandIn::start(SOME).await, second_version().await);
    let weight = NonZeroU32::new(3).unwrap();
    let miner = PacedMiner::start(vec![old.config(1), PoolConfig { weight, ..config(&new, 1) }]);
    miner.until(|stats| stats.pools.iter().all(|pool| pool.report.mining)).await;
    // A slice is what is hashed until the clock says so: here, the time of some shares.
    for _ in 0..12 {
        let before = miner.handle.stats().hash_for;
        miner.pass(30, &[&old]).await;
        let now = miner.handle.stats().hash_for;
        println!("{before:?} -> {now:?}");
    }
    let stats = miner.end().await;
    let [old_hashes, new_hashes] = [stats.pools[0].hashes, stats.pools[1].hashes];
    let share = new_hashes as f64 / (old_hashes + new_hashes) as f64;
    assert!((0.55..0.95).contains(&share), "three quarters are due: {share:.2}");
    assert!(accepted(&stats, 0) > 0 && accepted(&stats, 1) > 0, "{stats:?}");
    assert_eq!(stats.connections, 2);
    assert_eq!(stats.shares.rejected(), 0);
    assert_eq!(new.account().good, accepted(&stats, 1) + stats.pools[1].report.shares.unanswered);
}
