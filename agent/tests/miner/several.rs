//! Several pools, and pools in TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use farm_tests::tls_front::{CERTIFICATES, tls_front_as};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::pool::Pool;
use super::{EASY, MinerStats, PoolConfig, PoolTrust, mine, of, until};

fn ranked(pool: &Pool, priority: u32) -> PoolConfig {
    PoolConfig { priority, ..of(&pool.address()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_first_pool_dies_the_second_is_hashed_for_at_once() {
    let (first, second) = (Pool::listen().await, Pool::listen().await);
    let miner = mine(vec![ranked(&first, 1), ranked(&second, 2)], 1);
    let mut talk = first.accept().await;
    talk.let_in(EASY, "first").await;
    let share = talk.share().await;
    assert_eq!(share.job, "first");
    talk.answer(&share, json!({"result": true})).await;
    let stats = until(&miner, |stats| stats.shares.accepted == 1).await;
    assert_eq!((stats.hash_for, stats.pools[1].connections), (Some(0), 0), "none is needed yet");
    // Cut in the middle of a line, and gone for good.
    talk.raw(b"{\"id\":null,\"method\":\"mining.not").await;
    drop((talk, first));
    let mut talk = second.accept().await;
    talk.let_in(EASY, "second").await;
    let share = talk.share().await;
    assert!(share.job == "second" && share.is_work(EASY), "{share:?}");
    talk.answer(&share, json!({"result": true})).await;
    let both = |stats: &MinerStats| stats.shares.accepted == 2 && stats.pools[1].hashes > 0;
    let stats = until(&miner, both).await;
    assert_eq!(stats.hash_for, Some(1));
    assert!(stats.mining && !stats.pools[0].trouble.is_empty(), "{stats:?}");
    let each: u64 = stats.pools.iter().map(|pool| pool.report.shares.accepted).sum();
    assert_eq!(each, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_refuses_everything_is_left_for_the_next() {
    let (liar, honest) = (Pool::listen().await, Pool::listen().await);
    let miner = mine(vec![ranked(&liar, 1), ranked(&honest, 2)], 1);
    let mut talk = liar.accept().await;
    talk.let_in(EASY / 100.0, "lies").await;
    let refusals = async {
        while let Some(share) = talk.share_or_end().await {
            let error = json!({"result": null, "error": [23, "Low difficulty share", null]});
            // It hangs up at the twentieth, whatever we still say.
            if !talk.answered(&share, error).await {
                break;
            }
        }
    };
    refusals.await;
    let mut talk = honest.accept().await;
    talk.let_in(EASY, "honest").await;
    assert_eq!(talk.share().await.job, "honest");
    let stats = until(&miner, |stats| stats.hash_for == Some(1)).await;
    let refused = &stats.pools[0];
    assert!(refused.trouble.contains("20 shares refused in a row"), "{}", refused.trouble);
    assert!(refused.report.shares.low_difficulty >= 20 && refused.report.shares.accepted == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equals_are_both_connected_and_one_is_hashed_for() {
    let (one, two) = (Pool::listen().await, Pool::listen().await);
    let weight = NonZeroU32::new(3).unwrap();
    let miner = mine(vec![ranked(&one, 1), PoolConfig { weight, ..ranked(&two, 1) }], 1);
    let (mut talk, mut other) = (one.accept().await, two.accept().await);
    talk.let_in(EASY, "one").await;
    assert_eq!(talk.share().await.job, "one");
    other.let_in(EASY, "two").await;
    let stats = until(&miner, |stats| stats.pools[1].report.mining).await;
    assert_eq!(
        (stats.hash_for, stats.pools[1].hashes),
        (Some(0), 0),
        "its turn comes with the slice"
    );
}

fn certificate(file: &str) -> Vec<u8> {
    std::fs::read(format!("{CERTIFICATES}/{file}")).unwrap()
}

async fn in_tls(trust: PoolTrust, host: &str) -> Result<(), String> {
    in_tls_as("pool", trust, host).await
}

async fn in_tls_as(name: &str, trust: PoolTrust, host: &str) -> Result<(), String> {
    let pool = Pool::listen().await;
    let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, pool.port()));
    let front = tls_front_as(name, host.parse().unwrap(), behind).await.unwrap();
    let address = format!("stratum+ssl://{host}:{}", front.port());
    let miner = mine(vec![PoolConfig { trust, ..of(&address) }], 1);
    tokio::select! {
        mut talk = pool.accept() => {
            talk.let_in(EASY, "a").await;
            assert!(talk.share().await.is_work(EASY));
            Ok(())
        }
        stats = until(&miner, |stats| stats.trouble.contains("no connection")) => Err(stats.trouble),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_whom_it_is_told_to() {
    let authorities = PoolTrust::Authorities(certificate("pool_ca.pem"));
    in_tls(authorities.clone(), "127.0.0.1").await.unwrap();
    let der = CertificateDer::from_pem_slice(&certificate("pool.pem")).unwrap();
    in_tls(PoolTrust::Fingerprint(Sha256::digest(&der).into()), "127.0.0.1").await.unwrap();
    in_tls(PoolTrust::Anybody, "127.0.0.1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_refuses_strangers_and_says_why() {
    let strangers = PoolTrust::Authorities(certificate("ca.pem"));
    let refusal = in_tls(strangers, "127.0.0.1").await.unwrap_err();
    assert!(refusal.contains("UnknownIssuer"), "{refusal}");
    let refusal = in_tls(PoolTrust::Fingerprint([7; 32]), "127.0.0.1").await.unwrap_err();
    assert!(refusal.contains("certificate"), "{refusal}");
    let authorities = PoolTrust::Authorities(certificate("pool_ca.pem"));
    let refusal = in_tls(authorities, "127.0.0.2").await.unwrap_err();
    assert!(refusal.contains("not valid for name"), "{refusal}");
    let expired = PoolTrust::Authorities(certificate("pool_expired_ca.pem"));
    let refusal = in_tls_as("pool_expired", expired, "127.0.0.1").await.unwrap_err();
    assert!(refusal.contains("expired"), "{refusal}");
    let empty = in_tls(PoolTrust::Authorities(Vec::new()), "127.0.0.1").await;
    assert!(empty.is_err(), "nobody is trusted");
}
