//! Work and finds: what a pool's dialect hands to the hash threads, and what comes back.
//!
//! A job is either a coinbase that we complete with our extranonce and hash up to the merkle root (Stratum V1, extended
//! channels of Stratum V2), or a merkle root that the pool fixed (standard channels). The threads see neither: they ask
//! for the n-th header of a work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roadbed_compute::hash::job::rolled_version;
use roadbed_compute::hash::{Extranonce, Header, Job, Roll, Target};

/// Version variants of a work with a coinbase: four bits are within every mask.
const VERSIONS: u64 = 16;
/// Seconds a header's time may run ahead of its job's, rolled only when nothing else is left: far below the two hours
/// that Bitcoin allows, because pools allow less.
const TIME_AHEAD_MAX: u64 = 600;
/// Bits of a work's number that count the works of one pool; above them stands the pool.
const COUNT_BITS: u32 = 48;

/// Where the headers of a work come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A coinbase to be completed.
    Coinbase {
        /// The job.
        job: Job,
        /// Our corner of its search space.
        extranonce: Extranonce,
    },
    /// A header whose merkle root the pool fixed; `id` is the pool's name of the job.
    Header {
        /// The pool's name of it.
        id: u32,
        /// The header, to be rolled in version and time.
        header: Header,
    },
}

/// A job with everything a hash thread needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Where its headers come from.
    pub source: Source,
    /// Version bits that may be rolled.
    pub version_mask: u32,
    /// What a hash must meet to be a share.
    pub target: Target,
    /// The same as the pool counts it.
    pub difficulty: f64,
    /// Names it among all works of this miner, see [`WorkNumbers`].
    pub number: u64,
}

impl Work {
    /// What is rolled for header `index`; none when the search space ends before it. Two indices never give the same
    /// header, nor the same extranonce until all are used up: foundation-stratum tells duplicates without looking at the
    /// version. Time is rolled last.
    #[must_use]
    pub fn roll(&self, index: u64) -> Option<Roll> {
        let bits = self.version_mask.count_ones();
        let (versions, extranonces, ntime) = match &self.source {
            Source::Coinbase { job, extranonce } => {
                let bytes = u32::try_from(extranonce.second_size).unwrap_or(u32::MAX);
                let extranonces = 256u64.checked_pow(bytes).unwrap_or(u64::MAX);
                (VERSIONS.min(1 << bits), extranonces, job.ntime)
            }
            Source::Header { id: _, header } => (1 << bits, 1, header.ntime),
        };
        let (round, counter) = (index / extranonces, index % extranonces);
        let (ahead, variant) = (round / versions, (counter % versions + round) % versions);
        if ahead > TIME_AHEAD_MAX {
            return None;
        }
        let extranonce2 = match &self.source {
            Source::Coinbase { job: _, extranonce } => extranonce.second(counter),
            Source::Header { .. } => Vec::new(),
        };
        Some(Roll {
            extranonce2,
            ntime: ntime.checked_add(u32::try_from(ahead).ok()?)?,
            version_bits: spread(u32::try_from(variant).ok()?, self.version_mask),
            version_mask: self.version_mask,
        })
    }

    /// The header with these choices.
    #[must_use]
    pub fn header(&self, roll: &Roll) -> Header {
        match &self.source {
            Source::Coinbase { job, extranonce } => job.header(extranonce, roll),
            Source::Header { id: _, header } => Header {
                version: rolled_version(header.version, roll.version_mask, roll.version_bits),
                ntime: roll.ntime,
                ..*header
            },
        }
    }
}

/// The bits of `value` laid into the set bits of `mask`, lowest first.
fn spread(value: u32, mask: u32) -> u32 {
    let places = (0..u32::BITS).filter(|bit| mask >> bit & 1 == 1);
    places.enumerate().fold(0, |bits, (index, place)| {
        let bit = u32::try_from(index).ok().and_then(|index| value.checked_shr(index)).unwrap_or(0);
        bits | ((bit & 1) << place)
    })
}

/// A hash that meets the target of its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// Number of the work.
    pub work: u64,
    /// What was rolled.
    pub roll: Roll,
    /// The nonce.
    pub nonce: u32,
}

/// Gives each work of a pool its number. It rises, and names the pool, so that a late find comes back to the connection
/// its work came from.
#[derive(Debug, Clone)]
pub struct WorkNumbers {
    pool: u64,
    count: Arc<AtomicU64>,
}

impl WorkNumbers {
    /// For the pool at this place of the list.
    #[must_use]
    pub fn of_pool(pool: usize) -> Self {
        Self { pool: pool as u64, count: Arc::default() }
    }

    /// The next number.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.pool << COUNT_BITS | (self.count.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The pool whose work has this number.
    #[must_use]
    pub fn pool_of(number: u64) -> usize {
        usize::try_from(number >> COUNT_BITS).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const MASK: u32 = 0x1FFF_E000;

    fn work(source: Source, version_mask: u32) -> Work {
        let target = Target([0xFF; 32]);
        Work { source, version_mask, target, difficulty: 1.0, number: 1 }
    }

    fn coinbase(second_size: usize) -> Source {
        let job = Job {
            id: "j".into(),
            previous: [1; 32],
            coinbase_head: vec![2],
            coinbase_tail: vec![3],
            branches: vec![],
            version: 0x2000_0000,
            nbits: 0x1d00_ffff,
            ntime: 1_000,
            clean: true,
        };
        Source::Coinbase { job, extranonce: Extranonce { first: vec![9], second_size } }
    }

    fn fixed(ntime: u32) -> Source {
        let header = Header {
            version: 0x2000_0000,
            previous: [1; 32],
            merkle_root: [4; 32],
            ntime,
            nbits: 0x1d00_ffff,
        };
        Source::Header { id: 7, header }
    }

    #[test]
    fn every_index_is_another_header_until_the_space_ends() {
        for (work, headers) in [
            (work(coinbase(1), MASK), 16 * 256 * 601),
            (work(coinbase(1), 0), 256 * 601),
            (work(fixed(1_000), 0x6000), 4 * 601),
            (work(fixed(1_000), 0), 601),
        ] {
            let step = headers / 601;
            let seen: HashSet<[u8; 76]> =
                (0..step).map(|index| work.header(&work.roll(index).unwrap()).prefix()).collect();
            assert_eq!(seen.len() as u64, step);
            assert_eq!(work.roll(step - 1).unwrap().ntime, 1_000, "time is rolled last");
            assert_eq!(work.roll(step).unwrap().ntime, 1_001);
            assert!(work.roll(headers - 1).is_some() && work.roll(headers).is_none());
        }
        assert!(work(coinbase(8), MASK).roll(u64::MAX).is_some());
        assert!(work(fixed(u32::MAX), 0).roll(1).is_none(), "time does not wrap");
    }

    #[test]
    fn variants_stay_within_the_mask_and_differ() {
        let bits: Vec<u32> = (0..16).map(|variant| spread(variant, MASK)).collect();
        assert_eq!(bits[..4], [0, 0x2000, 0x4000, 0x6000]);
        assert!(bits.iter().all(|bits| bits & !MASK == 0));
        assert_eq!(spread(u32::MAX, u32::MAX), u32::MAX);
        assert_eq!(spread(7, 0), 0);
    }

    #[test]
    fn a_number_leads_back_to_its_pool() {
        let numbers = WorkNumbers::of_pool(3);
        let (first, second) = (numbers.next(), numbers.next());
        assert!(second > first);
        assert_eq!((WorkNumbers::pool_of(first), WorkNumbers::pool_of(second)), (3, 3));
    }
}
