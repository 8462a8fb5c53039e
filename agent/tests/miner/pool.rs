//! A scripted pool: says what the test wants, and re-hashes what it is sent.

use std::io;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::DEADLINE;

const EXTRANONCE1: &str = "f289b349";
const HEAD: &str =
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff08";
const TAIL: &str = "ffffffff0100f2052a0100000001510000000000";
const BRANCH: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const PREVIOUS: &str = "703468c6128c275bb0ff8ddd6abceb1af3e990aded557af670605dba5bae8903";
const VERSION: &str = "20000000";
const NBITS: &str = "17053894";
const NTIME: &str = "598b880f";
const MASK: u32 = 0x1FFF_E000;

pub struct Pool(TcpListener);

impl Pool {
    pub async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub fn address(&self) -> String {
        format!("stratum+tcp://127.0.0.1:{}", self.port())
    }

    pub async fn accept(&self) -> Talk {
        let (stream, _) = timeout(DEADLINE, self.0.accept()).await.unwrap().unwrap();
        Talk::new(stream)
    }
}

/// One connection.
pub struct Talk {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    slice: usize,
}

impl Talk {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer, slice: usize::MAX }
    }

    /// From here on every write is cut into pieces of this size.
    pub fn slice_writes(&mut self, bytes: usize) {
        self.slice = bytes;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.write(bytes).await.unwrap();
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(self.slice) {
            self.writer.write_all(piece).await?;
            self.writer.flush().await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub async fn say(&mut self, value: Value) {
        self.raw(format!("{value}\n").as_bytes()).await;
    }

    async fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read =
            timeout(DEADLINE, self.reader.read_line(&mut line)).await.expect("a line in time");
        match read {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("JSON from the miner")),
        }
    }

    /// The next request, which must be of this method.
    pub async fn request(&mut self, method: &str) -> (Value, Value) {
        let line = self.line().await.expect("a request");
        assert_eq!(line["method"], method, "{line}");
        (line["id"].clone(), line["params"].clone())
    }

    pub async fn subscribe(&mut self) {
        let (id, _) = self.request("mining.configure").await;
        let mask = format!("{MASK:08x}");
        self.say(
            json!({"id": id, "result": {"version-rolling": true, "version-rolling.mask": mask}}),
        )
        .await;
        let (id, _) = self.request("mining.subscribe").await;
        let subscriptions = json!([["mining.set_difficulty", "1"], ["mining.notify", "1"]]);
        self.say(json!({"id": id, "result": [subscriptions, EXTRANONCE1, 4], "error": null})).await;
    }

    /// The whole opening, in the order of real pools: the answer to authorize comes last.
    pub async fn let_in(&mut self, difficulty: f64, job: &str) {
        self.subscribe().await;
        let (id, params) = self.request("mining.authorize").await;
        assert_eq!(params, json!(["farm.rig", "x"]));
        self.difficulty(difficulty).await;
        self.notify(job, true).await;
        self.say(json!({"id": id, "result": true, "error": null})).await;
    }

    pub async fn difficulty(&mut self, difficulty: f64) {
        let params = json!([difficulty]);
        self.say(json!({"id": null, "method": "mining.set_difficulty", "params": params})).await;
    }

    pub async fn notify(&mut self, job: &str, clean: bool) {
        let params = json!([job, PREVIOUS, HEAD, TAIL, [BRANCH], VERSION, NBITS, NTIME, clean]);
        self.say(json!({"id": null, "method": "mining.notify", "params": params})).await;
    }

    pub async fn share_or_end(&mut self) -> Option<Share> {
        let line = self.line().await?;
        assert_eq!(line["method"], "mining.submit", "{line}");
        Some(Share::read(&line))
    }

    pub async fn share(&mut self) -> Share {
        self.share_or_end().await.expect("a share")
    }

    pub async fn answer(&mut self, share: &Share, answer: Value) {
        assert!(self.answered(share, answer).await, "the miner has hung up");
    }

    /// False when the miner has hung up.
    pub async fn answered(&mut self, share: &Share, mut answer: Value) -> bool {
        answer["id"] = share.id.clone();
        self.write(format!("{answer}\n").as_bytes()).await.is_ok()
    }
}

/// A submitted share.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    id: Value,
    pub job: String,
    extranonce2: String,
    ntime: String,
    nonce: String,
    bits: String,
}

impl Share {
    fn read(line: &Value) -> Self {
        let text = |index: usize| line["params"][index].as_str().unwrap().to_owned();
        assert_eq!(text(0), "farm.rig");
        Self {
            id: line["id"].clone(),
            job: text(1),
            extranonce2: text(2),
            ntime: text(3),
            nonce: text(4),
            bits: text(5),
        }
    }

    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.job, self.extranonce2, self.nonce, self.bits)
    }

    /// Whether the hash of the header is at or below the target of `difficulty`, by this file's own
    /// reading of Stratum.
    pub fn is_work(&self, difficulty: f64) -> bool {
        assert_eq!(self.extranonce2.len(), 8);
        let coinbase = bytes(&format!("{HEAD}{EXTRANONCE1}{}{TAIL}", self.extranonce2));
        let root = twice(&[twice(&coinbase).to_vec(), bytes(BRANCH)].concat());
        let bits = word(&self.bits);
        assert_eq!(bits & !MASK, 0, "bits outside the mask");
        let version = (word(VERSION) & !MASK) | (bits & MASK);
        let mut header = version.to_le_bytes().to_vec();
        for swapped in bytes(PREVIOUS).chunks(4) {
            header.extend(swapped.iter().rev());
        }
        header.extend(root);
        header.extend(word(&self.ntime).to_le_bytes());
        header.extend(word(NBITS).to_le_bytes());
        header.extend(word(&self.nonce).to_le_bytes());
        assert_eq!(header.len(), 80);
        let hash = twice(&header);
        // diff1 / hash, in floating point: a rounding error cannot matter at these odds.
        let number = hash.iter().rev().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
        65_535.0 * 2f64.powi(208) / number >= difficulty
    }
}

fn twice(data: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(data)).into()
}

fn bytes(text: &str) -> Vec<u8> {
    let pair = |index| u8::from_str_radix(&text[index..index + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

fn word(text: &str) -> u32 {
    assert_eq!(text.len(), 8, "{text}");
    u32::from_str_radix(text, 16).unwrap()
}
