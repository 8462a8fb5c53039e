//! A mining job and the 80-byte header that a share of it stands for.
//!
//! Orders of bytes (they differ within one message): the previous hash is sent with each of its eight words turned round,
//! merkle branches as hashed, version, time and bits as hexadecimal numbers; in the header all numbers are little-endian.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Most merkle branches a job may have: 2^16 transactions are more than a block holds.
const BRANCHES_MAX: usize = 16;
/// Longest half of a coinbase transaction.
const COINBASE_BYTES_MAX: usize = 4 * 1024;

/// Work handed to miners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Name on the wire.
    pub id: String,
    /// Hash of the previous block, as it stands in the header.
    pub previous_hash: [u8; 32],
    /// Coinbase transaction before the extranonces.
    pub coinbase_head: Vec<u8>,
    /// Coinbase transaction after the extranonces.
    pub coinbase_tail: Vec<u8>,
    /// Merkle branches from the coinbase upwards, as hashed.
    pub branches: Vec<[u8; 32]>,
    /// Block version before rolling.
    pub version: u32,
    /// Compact target of the network.
    pub bits: u32,
    /// Earliest time of the header, Unix seconds.
    pub time: u32,
    /// Whether earlier jobs are void.
    pub clean: bool,
}

/// A miner's choices that complete a job to a header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Solution {
    /// The pool's part of the extranonce.
    pub extranonce1: Vec<u8>,
    /// The miner's part of the extranonce.
    pub extranonce2: Vec<u8>,
    /// Time in the header, Unix seconds.
    pub time: u32,
    /// Nonce.
    pub nonce: u32,
    /// Version with rolled bits in it.
    pub version: u32,
}

impl Job {
    /// The `n`-th job of the block that follows `height` others: random-looking, yet the same in every run.
    #[must_use]
    pub fn invented(n: u64, height: u64, bits: u32, time: u32, clean: bool) -> Self {
        let draw = |what: &str, i: u64| digest(format!("{what} {height} {n} {i}").as_bytes());
        let branches = 1 + usize::from(draw("count", 0)[0] % 12);
        let payout = draw("payout", 0);
        let mut tail = b"/roadbed stand-in/".to_vec();
        tail.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 1]);
        tail.extend_from_slice(&312_500_000_u64.to_le_bytes());
        tail.extend_from_slice(&[0x16, 0x00, 0x14]);
        tail.extend_from_slice(&payout[..20]);
        tail.extend_from_slice(&[0; 4]);
        // Height push (3 bytes), 8 random bytes, then 4 + 4 bytes of extranonce and the 18 of the tail's text.
        let mut head = vec![1, 0, 0, 0, 1];
        head.extend_from_slice(&[0; 32]);
        head.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 4 + 8 + 8 + 18, 3]);
        head.extend_from_slice(&(840_000 + height).to_le_bytes()[..3]);
        head.extend_from_slice(&draw("coinbase", 0)[..8]);
        let mut previous_hash = digest(format!("block {height}").as_bytes());
        // A real block hash is small: zero at its most significant end, which is the last here.
        previous_hash[24..].fill(0);
        Self {
            id: format!("{n:x}"),
            previous_hash,
            coinbase_head: head,
            coinbase_tail: tail,
            branches: (0..branches)
                .map(|i| draw("branch", u64::try_from(i).unwrap_or(0)))
                .collect(),
            version: 0x2000_0000,
            bits,
            time,
            clean,
        }
    }

    /// Parameters of `mining.notify`.
    #[must_use]
    pub fn notify(&self) -> Value {
        let branches: Vec<String> = self.branches.iter().map(|branch| to_hex(branch)).collect();
        json!([
            self.id,
            to_hex(&words_turned(&self.previous_hash)),
            to_hex(&self.coinbase_head),
            to_hex(&self.coinbase_tail),
            branches,
            format!("{:08x}", self.version),
            format!("{:08x}", self.bits),
            format!("{:08x}", self.time),
            self.clean
        ])
    }

    /// Reads parameters of `mining.notify`; none when they are not such.
    #[must_use]
    pub fn from_notify(params: &Value) -> Option<Self> {
        let text = |place: usize| params.get(place)?.as_str();
        let number = |place: usize| parse_number(text(place)?);
        let branches = params.get(4)?.as_array()?;
        if branches.len() > BRANCHES_MAX {
            return None;
        }
        Some(Self {
            id: text(0)?.to_owned(),
            previous_hash: words_turned(&fixed(text(1)?)?),
            coinbase_head: from_hex(text(2)?, COINBASE_BYTES_MAX)?,
            coinbase_tail: from_hex(text(3)?, COINBASE_BYTES_MAX)?,
            branches: branches
                .iter()
                .map(|branch| fixed(branch.as_str()?))
                .collect::<Option<_>>()?,
            version: number(5)?,
            bits: number(6)?,
            time: number(7)?,
            clean: params.get(8)?.as_bool()?,
        })
    }

    /// The coinbase transaction that a solution completes.
    #[must_use]
    pub fn coinbase(&self, solution: &Solution) -> Vec<u8> {
        let Solution { extranonce1, extranonce2, .. } = solution;
        [self.coinbase_head.as_slice(), extranonce1, extranonce2, &self.coinbase_tail].concat()
    }

    /// The header a solution stands for.
    #[must_use]
    pub fn header(&self, solution: &Solution) -> [u8; 80] {
        let coinbase = self.coinbase(solution);
        let root = self.branches.iter().fold(double_digest(&coinbase), |below, branch| {
            double_digest(&[below, *branch].concat())
        });
        let mut header = [0; 80];
        header[..4].copy_from_slice(&solution.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.previous_hash);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&solution.time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header[76..].copy_from_slice(&solution.nonce.to_le_bytes());
        header
    }

    /// Hash of the header a solution stands for, as computed.
    #[must_use]
    pub fn hash(&self, solution: &Solution) -> [u8; 32] {
        double_digest(&self.header(solution))
    }
}

/// A number written as eight or fewer hexadecimal digits.
#[must_use]
pub fn parse_number(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

/// Bytes written as hexadecimal digits, at most `bytes_max` of them.
#[must_use]
pub fn from_hex(text: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() / 2 > bytes_max {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            u8::try_from(high << 4 | low).ok()
        })
        .collect()
}

/// Hexadecimal digits of bytes.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fixed(text: &str) -> Option<[u8; 32]> {
    from_hex(text, 32)?.try_into().ok()
}

fn words_turned(bytes: &[u8; 32]) -> [u8; 32] {
    let mut turned = *bytes;
    for word in turned.chunks_mut(4) {
        word.reverse();
    }
    turned
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of the SHA-256.
#[must_use]
pub fn double_digest(bytes: &[u8]) -> [u8; 32] {
    digest(&digest(bytes))
}
