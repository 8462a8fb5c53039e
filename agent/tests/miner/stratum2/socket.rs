//! The whole miner, threads and all, over a real socket: cut in the middle of a frame, it comes back and goes on.

use std::sync::Arc;

use farm_tests::stratum2::pool::{Manners, PoolDouble};
use farm_tests::stratum2::server::hang_up;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{mine, of, until};
use super::{authority, target};

/// Serves one connection until `enough` shares were judged, then cuts it in the middle of a frame.
async fn serve(listener: &TcpListener, enough: usize) -> PoolDouble {
    let manners = Manners { target: target(16), ..Manners::default() };
    let mut pool = PoolDouble::new(&authority(), manners).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut chunk = [0; 4_096];
    while pool.verdicts.len() < enough {
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "the miner left");
        let answer = pool.take(&chunk[..count]).unwrap();
        stream.write_all(&answer).await.unwrap();
    }
    let block = pool.block().unwrap();
    stream.write_all(&block[..block.len() / 2]).await.unwrap();
    hang_up(stream).await;
    pool
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_flow_and_flow_again_after_a_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = Arc::new(listener);
    let key = authority().address_key();
    let miner =
        mine(vec![of(&format!("stratum2+tcp://127.0.0.1:{port}/{key}?channel=standard"))], 2);
    for round in 1..=2u64 {
        let pool = serve(&listener, 3).await;
        assert!(pool.verdicts.iter().all(|(_, fault)| fault.is_none()), "{:?}", pool.verdicts);
        let stats = until(&miner, |stats| stats.shares.accepted >= 3 * round).await;
        assert_eq!(stats.shares.rejected(), 0);
    }
    let stats = until(&miner, |stats| !stats.mining && stats.connections == 2).await;
    assert!(stats.hashes > 0 && stats.shares.accepted_difficulty > 0.0, "{stats:?}");
    miner.stop();
    assert!(miner.silence().await);
}
