//! The pool, against the mining vectors and against a miner that tries everything.

use std::time::Duration;

use farm_tests::clock::FarmClock;
use farm_tests::pool::connection::{read_share, weigh};
use farm_tests::pool::difficulty::{Target, difficulty_of};
use farm_tests::pool::faults::Faults;
use farm_tests::pool::job::{Job, Solution, from_hex, parse_number, to_hex};
use farm_tests::pool::{Pool, PoolConfig, Rejection};
use roadbed_protocol::UnixMillis;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

#[test]
fn shares_of_the_vectors_are_good_and_their_neighbours_are_not() {
    let cases: Value =
        serde_json::from_str(include_str!("../data/mining/stratum_v1_jobs.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let name = text(case, "name");
        let job = Job::from_notify(&case["notify_params"]).unwrap();
        assert_eq!(job.notify(), case["notify_params"], "{name}");
        let mask =
            case["version_rolling_mask"].as_str().map_or(0, |mask| parse_number(mask).unwrap());
        let extranonce1 = from_hex(case["subscribe_result"][1].as_str().unwrap(), 16).unwrap();
        let size = usize::try_from(case["subscribe_result"][2].as_u64().unwrap()).unwrap();
        let params = &case["submit_params"];
        let share = read_share(params, &job, &extranonce1, size, mask).unwrap();
        assert_eq!(to_hex(&job.header(&share)), text(case, "header_hex"), "{name}");
        let hash = job.hash(&share);
        let mut shown = hash;
        shown.reverse();
        assert_eq!(to_hex(&shown), text(case, "hash_display"), "{name}");
        let met = case["share_difficulty"].as_f64().unwrap();
        assert!((difficulty_of(&hash) / met - 1.0).abs() < 1e-9, "{name}");

        let difficulty = case["set_difficulty"].as_f64().unwrap();
        let target = Target::of_difficulty(difficulty).unwrap();
        // Below 52 bits a fractional difficulty's target is not defined; the vectors say so.
        assert!(to_hex(&target.0).starts_with(&text(case, "share_target_hex")[..16]), "{name}");
        let is_block = case["meets_network_target"].as_bool().unwrap();
        assert_eq!(weigh(&job, &share, difficulty), Ok(is_block), "{name}");
        assert_eq!(weigh(&job, &share, met * 1.001), Err(Rejection::LowDifficulty), "{name}");
        let neighbour = Solution { nonce: share.nonce ^ 1, ..share };
        let fits = target.is_met_by(&job.hash(&neighbour));
        assert_eq!(weigh(&job, &neighbour, difficulty).is_ok(), fits, "{name}");
    }
}

struct Rig {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    job: Option<Job>,
    difficulty: f64,
    extranonce1: Vec<u8>,
    next_id: u64,
    order: Vec<String>,
}

impl Rig {
    async fn connect(pool: &Pool) -> Self {
        let (read, write) = TcpStream::connect(pool.address()).await.unwrap().into_split();
        Self {
            lines: BufReader::new(read).lines(),
            write,
            job: None,
            difficulty: 0.0,
            extranonce1: Vec::new(),
            next_id: 1,
            order: Vec::new(),
        }
    }

    /// Sends a request; reads on, taking notifications, until its answer.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let line = json!({ "id": id, "method": method, "params": params });
        self.write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        loop {
            let message = self.read().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    async fn read(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line())
            .await
            .expect("the pool must say something")
            .unwrap()
            .expect("the pool must not hang up");
        let message: Value = serde_json::from_str(&line).unwrap();
        match message["method"].as_str() {
            Some("mining.notify") => self.job = Job::from_notify(&message["params"]),
            Some("mining.set_difficulty") => {
                self.difficulty = message["params"][0].as_f64().unwrap();
            }
            _ => {}
        }
        self.order.push(message["method"].as_str().unwrap_or("answer").to_owned());
        message
    }

    async fn join(&mut self) {
        let granted = self
            .call(
                "mining.configure",
                json!([["version-rolling"], { "version-rolling.mask": "ffffffff" }]),
            )
            .await;
        assert_eq!(granted["result"]["version-rolling.mask"], "1fffe000");
        let subscribed = self.call("mining.subscribe", json!(["test"])).await;
        self.extranonce1 = from_hex(subscribed["result"][1].as_str().unwrap(), 8).unwrap();
        assert_eq!(subscribed["result"][2], 4);
        let authorized = self.call("mining.authorize", json!(["demo.rig", "x"])).await;
        assert_eq!(authorized["result"], true);
    }

    /// A share whose hash meets the difficulty, or with `below` one that does not.
    fn mine(&self, below: bool) -> Solution {
        let job = self.job.as_ref().unwrap();
        let target = Target::of_difficulty(self.difficulty).unwrap();
        let mut solution = Solution {
            extranonce1: self.extranonce1.clone(),
            extranonce2: vec![0, 0, 0, 7],
            time: job.time + 3,
            nonce: 0,
            version: job.version | 0x0040_2000,
        };
        while target.is_met_by(&job.hash(&solution)) == below {
            solution.nonce += 1;
        }
        solution
    }

    async fn submit(&mut self, job: &str, share: &Solution) -> Value {
        let params = json!([
            "demo.rig",
            job,
            to_hex(&share.extranonce2),
            format!("{:08x}", share.time),
            format!("{:08x}", share.nonce),
            format!("{:08x}", share.version & 0x1fff_e000),
        ]);
        self.call("mining.submit", params).await
    }
}

async fn pool(job_wall_seconds: f64, jumps: Vec<f64>) -> (Arc<Pool>, CancellationToken) {
    let config = PoolConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        difficulty: 0.000_001,
        job_wall_seconds,
        jobs_per_block: 2,
        block_difficulty: Some(1_000.0),
        difficulty_jumps: jumps,
        seconds_per_share: None,
        faults: Faults::default(),
    };
    let stop = CancellationToken::new();
    let clock = FarmClock::starting_at(UnixMillis(1_600_000_000_000), 1.0);
    let pool = farm_tests::pool::start(&config, clock, &stop, &TaskTracker::new()).await.unwrap();
    (pool, stop)
}

#[tokio::test]
async fn a_good_share_is_taken_once_and_bad_ones_are_told_apart() {
    let (pool, stop) = pool(3_600.0, Vec::new()).await;
    let mut rig = Rig::connect(&pool).await;
    let early = rig.call("mining.submit", json!(["demo.rig", "1", "00", "0", "0"])).await;
    assert_eq!(early["error"][0], 20);
    rig.join().await;
    // Difficulty and job came before the answer to authorize.
    assert_eq!(
        rig.order[rig.order.len() - 3..],
        ["mining.set_difficulty", "mining.notify", "answer"]
    );
    let id = rig.job.as_ref().unwrap().id.clone();
    let good = rig.mine(false);
    assert_eq!(rig.submit(&id, &good).await["result"], true);
    assert_eq!(rig.submit(&id, &good).await["error"][0], 22);
    let low = rig.mine(true);
    assert_eq!(rig.submit(&id, &low).await["error"][0], 23);
    assert_eq!(rig.submit("ffff", &good).await["error"][0], 20);
    let early = Solution { time: good.time - 100, ..good.clone() };
    assert_eq!(rig.submit(&id, &early).await["error"][0], 20);
    let outside = json!(["demo.rig", id, "00000007", "00000000", "00000000", "f0000000"]);
    assert_eq!(rig.call("mining.submit", outside).await["error"][0], 20);
    let short = json!(["demo.rig", id, "07", "00000000", "00000000"]);
    assert_eq!(rig.call("mining.submit", short).await["error"][0], 20);
    assert_eq!(rig.call("mining.nonsense", json!([])).await["error"][0], 20);

    // Another connection has another extranonce: the same share is worth nothing there.
    let mut other = Rig::connect(&pool).await;
    other.join().await;
    assert_ne!(other.extranonce1, rig.extranonce1);
    assert_eq!(other.submit(&id, &good).await["error"][0], 23);

    let status = pool.status();
    assert_eq!((status.connections, status.submitted, status.accepted), (2, 9, 1));
    assert_eq!((status.rejected.duplicate, status.rejected.low_difficulty), (1, 2));
    assert_eq!((status.rejected.other, status.rejected.stale), (5, 0));
    assert!((status.accepted_difficulty - 0.000_001).abs() < 1e-12);
    assert_eq!(status.workers, ["demo.rig"]);
    stop.cancel();
}

#[tokio::test]
async fn a_new_block_makes_old_work_stale() {
    let (pool, stop) = pool(0.2, Vec::new()).await;
    let mut rig = Rig::connect(&pool).await;
    rig.join().await;
    let id = rig.job.as_ref().unwrap().id.clone();
    let late = rig.mine(false);
    loop {
        rig.read().await;
        if rig.job.as_ref().is_some_and(|job| job.clean && job.id != id) {
            break;
        }
    }
    assert_eq!(rig.submit(&id, &late).await["error"][0], 21);
    assert_eq!(pool.status().rejected.stale, 1);
    stop.cancel();
}

#[tokio::test]
async fn difficulty_jumps_hold_from_the_next_job_on() {
    let (pool, stop) = pool(0.2, vec![0.000_001, 0.000_004]).await;
    let mut rig = Rig::connect(&pool).await;
    rig.join().await;
    let mut told = vec![rig.difficulty];
    while told.len() < 4 {
        let message = rig.read().await;
        if message["method"] == "mining.notify" {
            told.push(rig.difficulty);
        }
    }
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
    stop.cancel();
}

#[tokio::test]
async fn noise_is_answered_and_too_much_of_it_ends_the_connection() {
    let (pool, stop) = pool(3_600.0, Vec::new()).await;
    let mut rig = Rig::connect(&pool).await;
    rig.write.write_all(b"\n\n{nonsense\n").await.unwrap();
    assert_eq!(rig.read().await["error"][0], 20);
    rig.write.write_all(&[b'x'; 9_000]).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), rig.lines.next_line()).await;
    assert!(matches!(ended, Ok(Ok(None) | Err(_))));
    stop.cancel();
}
