//! From a Stratum V1 job to a header: coinbase, merkle root, version bits, time.
//!
//! A pool sends the pieces; the miner fills in its extranonce and hashes up the merkle branches.
//! The order in which a miner varies things: nonce, then version bits within the mask the pool
//! granted (BIP 310/320), then extranonce 2, time last. All functions are pure; the socket lives
//! elsewhere.

use serde_json::Value;

use super::header::{Header, double_sha256};
use super::{HashError, hex};

/// Longest part of a coinbase read from a pool: half of Bitcoin's 1 MB base size limit.
const COINBASE_PART_BYTES_MAX: usize = 500_000;
/// Deepest merkle tree: 2^20 transactions cannot fit a block.
const BRANCHES_MAX: usize = 20;
/// Longest extranonce, either part; pools use 2 to 8 bytes.
const EXTRANONCE_BYTES_MAX: usize = 32;
/// Longest job id kept; pools use a few characters.
const JOB_ID_BYTES_MAX: usize = 256;

/// What `mining.subscribe` granted this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extranonce {
    /// First part, the pool's, unique to the connection.
    pub first: Vec<u8>,
    /// Length of the second part, ours to roll.
    pub second_size: usize,
}

impl Extranonce {
    /// From the `result` of `mining.subscribe`: `[subscriptions, extranonce1, extranonce2_size]`.
    ///
    /// # Errors
    /// Missing or malformed fields, or a size beyond what any pool uses.
    pub fn from_subscribe(result: &Value) -> Result<Self, HashError> {
        let first =
            hex::decode("extranonce1", text(result, 1, "extranonce1")?, EXTRANONCE_BYTES_MAX)?;
        let second_size = result.get(2).and_then(Value::as_u64);
        match second_size.and_then(|size| usize::try_from(size).ok()) {
            Some(second_size) if (1..=EXTRANONCE_BYTES_MAX).contains(&second_size) => {
                Ok(Self { first, second_size })
            }
            Some(_) | None => Err(HashError::Field {
                field: "extranonce2_size".into(),
                why: format!("expected 1 to {EXTRANONCE_BYTES_MAX}"),
            }),
        }
    }

    /// The second part for a counter: big-endian, the lowest bytes if the counter is longer.
    #[must_use]
    pub fn second(&self, counter: u64) -> Vec<u8> {
        let counter = counter.to_be_bytes();
        let mut bytes = vec![0; self.second_size];
        for (byte, digit) in bytes.iter_mut().rev().zip(counter.iter().rev()) {
            *byte = *digit;
        }
        bytes
    }
}

/// A job as `mining.notify` sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: String,
    /// Internal order.
    pub previous: [u8; 32],
    pub coinbase_head: Vec<u8>,
    pub coinbase_tail: Vec<u8>,
    /// Internal order, from the leaf up.
    pub branches: Vec<[u8; 32]>,
    pub version: u32,
    pub nbits: u32,
    pub ntime: u32,
    /// Whether shares of older jobs are worthless now.
    pub clean: bool,
}

/// What a miner chooses for one header of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// Second part of the extranonce, of the size the pool granted.
    pub extranonce2: Vec<u8>,
    pub ntime: u32,
    /// Bits of the version to set where `mask` allows it.
    pub version_bits: u32,
    /// The mask `mining.configure` granted; 0 without version rolling.
    pub version_mask: u32,
}

impl Job {
    /// From the `params` of `mining.notify`.
    ///
    /// # Errors
    /// Names the first field that is missing, malformed or beyond its limit.
    pub fn from_notify(params: &Value) -> Result<Self, HashError> {
        let id = text(params, 0, "job id")?;
        if id.len() > JOB_ID_BYTES_MAX {
            let why = format!("{} bytes, at most {JOB_ID_BYTES_MAX} are kept", id.len());
            return Err(HashError::Field { field: "job id".into(), why });
        }
        let mut previous: [u8; 32] = hex::decode_exact("prevhash", text(params, 1, "prevhash")?)?;
        // Stratum sends the previous hash as eight words, each with its bytes swapped.
        previous.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let coinbase =
            |index, field| hex::decode(field, text(params, index, field)?, COINBASE_PART_BYTES_MAX);
        let word = |index, field| -> Result<u32, HashError> {
            Ok(u32::from_be_bytes(hex::decode_exact(field, text(params, index, field)?)?))
        };
        Ok(Self {
            id: id.into(),
            previous,
            coinbase_head: coinbase(2, "coinbase 1")?,
            coinbase_tail: coinbase(3, "coinbase 2")?,
            branches: branches(params.get(4))?,
            version: word(5, "version")?,
            nbits: word(6, "nbits")?,
            ntime: word(7, "ntime")?,
            // Some pools leave the flag out; then old work stays valid.
            clean: params.get(8).and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// The coinbase transaction with both parts of the extranonce.
    #[must_use]
    pub fn coinbase(&self, extranonce1: &[u8], extranonce2: &[u8]) -> Vec<u8> {
        [&self.coinbase_head, extranonce1, extranonce2, &self.coinbase_tail].concat()
    }

    /// Merkle root over a coinbase and this job's branches, internal order.
    #[must_use]
    pub fn merkle_root(&self, coinbase: &[u8]) -> [u8; 32] {
        self.branches
            .iter()
            .fold(double_sha256(coinbase), |node, branch| double_sha256(&[node, *branch].concat()))
    }

    /// The header for a miner's choices.
    #[must_use]
    pub fn header(&self, extranonce: &Extranonce, roll: &Roll) -> Header {
        let coinbase = self.coinbase(&extranonce.first, &roll.extranonce2);
        Header {
            version: rolled_version(self.version, roll.version_mask, roll.version_bits),
            previous: self.previous,
            merkle_root: self.merkle_root(&coinbase),
            ntime: roll.ntime,
            nbits: self.nbits,
        }
    }

    /// The `params` of `mining.submit` for a share found with `roll`.
    ///
    /// The sixth parameter, the bits as rolled, is sent only where rolling was granted.
    #[must_use]
    pub fn submit_params(&self, worker: &str, roll: &Roll, nonce: u32) -> Vec<String> {
        let mut params = vec![
            worker.to_owned(),
            self.id.clone(),
            hex::encode(&roll.extranonce2),
            format!("{:08x}", roll.ntime),
            format!("{nonce:08x}"),
        ];
        if roll.version_mask != 0 {
            params.push(format!("{:08x}", roll.version_bits & roll.version_mask));
        }
        params
    }
}

/// Version of a header: the job's outside the mask, the miner's bits inside it.
#[must_use]
pub fn rolled_version(job_version: u32, mask: u32, bits: u32) -> u32 {
    (job_version & !mask) | (bits & mask)
}

fn branches(list: Option<&Value>) -> Result<Vec<[u8; 32]>, HashError> {
    let refuse = |why: String| HashError::Field { field: "merkle branches".into(), why };
    let list = list.and_then(Value::as_array).ok_or_else(|| refuse("expected a list".into()))?;
    if list.len() > BRANCHES_MAX {
        return Err(refuse(format!("{} of them, at most {BRANCHES_MAX} fit a block", list.len())));
    }
    list.iter()
        .map(|item| {
            let text = item.as_str().ok_or_else(|| refuse("expected text".into()))?;
            hex::decode_exact("merkle branch", text)
        })
        .collect()
}

fn text<'a>(params: &'a Value, index: usize, field: &str) -> Result<&'a str, HashError> {
    params.get(index).and_then(Value::as_str).ok_or_else(|| HashError::Field {
        field: field.into(),
        why: format!("expected text at position {index}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{CpuBackend, ScanJob, ScanRequest, Target, scan, vectors};
    use proptest::prelude::*;
    use serde_json::json;
    use std::ops::ControlFlow;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn jobs_become_shares_end_to_end() {
        for case in vectors::list("stratum_v1_jobs.json") {
            let name = vectors::text(&case["name"]);
            let extranonce = Extranonce::from_subscribe(&case["subscribe_result"]).unwrap();
            let job = Job::from_notify(&case["notify_params"]).unwrap();
            let mask = &case["version_rolling_mask"];
            let submit = case["submit_params"].as_array().unwrap();
            let roll = Roll {
                extranonce2: hex::decode("x", vectors::text(&case["extranonce2_hex"]), 8).unwrap(),
                ntime: vectors::hex_word(&submit[3]),
                version_bits: vectors::hex_word(&case["version_bits_hex"]),
                version_mask: if mask.is_null() { 0 } else { vectors::hex_word(mask) },
            };
            assert_eq!(roll.extranonce2.len(), extranonce.second_size);
            let coinbase = job.coinbase(&extranonce.first, &roll.extranonce2);
            assert_eq!(hex::encode(&coinbase), vectors::text(&case["coinbase_hex"]), "{name}");
            let txid: [u8; 32] = vectors::bytes(&case["coinbase_txid_internal_hex"]);
            assert_eq!(double_sha256(&coinbase), txid);
            let root: [u8; 32] = vectors::bytes(&case["merkle_root_internal_hex"]);
            assert_eq!(job.merkle_root(&coinbase), root, "{name}");

            let header = job.header(&extranonce, &roll);
            assert_eq!(header.version, vectors::hex_word(&case["final_version_hex"]));
            let previous = Target::of_hash(&header.previous);
            assert_eq!(previous, vectors::target(&case["prev_display"]));
            let whole: [u8; 80] = vectors::bytes(&case["header_hex"]);
            assert_eq!(header.prefix(), whole[..76]);

            let target = Target::from_difficulty(case["set_difficulty"].as_f64().unwrap()).unwrap();
            let published = vectors::target(&case["share_target_hex"]);
            assert_eq!(target.0[..8], published.0[..8], "{name}: top bits of the share target");
            let job_state = ScanJob::new(&header.prefix(), published).midstate.state;
            assert_eq!(job_state.to_vec(), vectors::words(&case["midstate_words"]));

            let start = u32::try_from(case["scan_start"].as_u64().unwrap()).unwrap();
            let request = ScanRequest { header: header.prefix(), target, start, count: 1 << 32 };
            let mut first = None;
            let stop = AtomicBool::new(false);
            scan(&mut CpuBackend::best(), &request, &stop, &mut |hit| {
                first = Some(hit);
                ControlFlow::Break(())
            })
            .unwrap();
            let hit = first.unwrap();
            assert_eq!(u64::from(hit.nonce), case["first_hit_nonce"].as_u64().unwrap(), "{name}");
            let number = Target::of_hash(&hit.hash);
            assert_eq!(number, vectors::target(&case["hash_display"]));
            vectors::assert_close(number.difficulty(), &case["share_difficulty"]);
            let network = Target::from_nbits(job.nbits).unwrap();
            assert_eq!(number <= network, case["meets_network_target"].as_bool().unwrap());
            let worker = vectors::text(&submit[0]);
            assert_eq!(json!(job.submit_params(worker, &roll, hit.nonce)), json!(submit), "{name}");
            assert_eq!(header.with_nonce(hit.nonce), whole);
        }
    }

    #[test]
    fn extranonce_counters_fill_their_size() {
        let of = |second_size| Extranonce { first: vec![], second_size };
        assert_eq!(of(2).second(0x0001_0203), [2, 3]);
        assert_eq!(of(4).second(0x0001_0203), [0, 1, 2, 3]);
        assert_eq!(of(10).second(u64::MAX), [0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn broken_jobs_name_the_field() {
        let good = &vectors::list("stratum_v1_jobs.json")[3]["notify_params"];
        let fields = [
            "job id",
            "prevhash",
            "coinbase 1",
            "coinbase 2",
            "merkle branches",
            "version",
            "nbits",
            "ntime",
        ];
        for (index, field) in fields.into_iter().enumerate() {
            for bad in [json!(null), json!(7), json!({}), json!(["zz"])] {
                let mut params = good.clone();
                params[index] = bad;
                let error = Job::from_notify(&params).unwrap_err().to_string();
                let named = error.contains(field) || error.contains("merkle branch");
                assert!(named, "{field}: {error}");
            }
        }
        let mut deep = good.clone();
        deep[4] = json!(vec!["00".repeat(32); BRANCHES_MAX + 1]);
        assert!(Job::from_notify(&deep).is_err());
        for size in [json!(0), json!(33), json!(-1), json!("4"), json!(1u64 << 60)] {
            assert!(Extranonce::from_subscribe(&json!([[], "00", size])).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_notify_never_panics(parts in proptest::collection::vec(".{0,80}", 0..10)) {
            let _ = Job::from_notify(&json!(parts));
            let _ = Extranonce::from_subscribe(&json!(parts));
        }
    }
}
