//! Hashing on the CPU: the fastest code this CPU runs, found by trying them once.
//!
//! Which is fastest is not to be told from a list of features: the SHA extensions beat AVX2 everywhere,
//! AVX-512 beats them where a core has the width, and how many streams an SHA unit wants differs. So each
//! code that the CPU has instructions for is timed for a millisecond when the first backend is made.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(target_arch = "aarch64")]
use super::arm_sha2::ArmSha2;
use super::scan::{HashBackend, Hit, ScanJob};
#[cfg(target_arch = "x86_64")]
use super::sha_ni::ShaNi;
#[cfg(target_arch = "x86_64")]
use super::x86_lanes::{self, Avx2, Avx512};
use super::{HashError, Target, lanes};

/// Nonces per chunk: 1 ms at the 2 MH/s of portable code, so a new job is taken up at once even on a slow,
/// busy core; the work around a chunk is less than a hundred hashes.
const CHUNK: u32 = 1 << 11;
/// Nonces of one trial.
const TRIAL: u32 = 1 << 12;
/// One nonce in 256 passes, so that a trial has something to find.
const TRIAL_MASK: u32 = 0xFF;
/// Trials of each code; the shortest counts, for others on the machine only add to one.
const TRIALS: usize = 3;

/// One thread of CPU hashing.
#[derive(Debug, Clone)]
pub struct CpuBackend {
    code: Code,
}

#[derive(Debug, Clone, Copy)]
enum Code {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    ShaNi2(ShaNi),
    #[cfg(target_arch = "x86_64")]
    ShaNi4(ShaNi),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    ArmSha2(ArmSha2),
    #[cfg(target_arch = "aarch64")]
    ArmSha4(ArmSha2),
}

impl CpuBackend {
    /// The fastest code this CPU runs; tried out at the first call, some milliseconds.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Code> = OnceLock::new();
        Self { code: *BEST.get_or_init(fastest) }
    }

    /// Every code this CPU runs, portable first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Code::all().into_iter().map(|code| Self { code }).collect()
    }

    /// Code without any CPU extension.
    #[must_use]
    pub fn portable() -> Self {
        Self { code: Code::Portable }
    }
}

impl Code {
    #[cfg(target_arch = "x86_64")]
    fn all() -> Vec<Self> {
        let (sha, wide) = (ShaNi::detect(), Avx512::detect().map(Self::Avx512));
        [Some(Self::Portable), Some(Self::Sse2), Avx2::detect().map(Self::Avx2)]
            .into_iter()
            .chain([sha.map(Self::ShaNi2), sha.map(Self::ShaNi4), wide])
            .flatten()
            .collect()
    }

    #[cfg(target_arch = "aarch64")]
    fn all() -> Vec<Self> {
        let sha = ArmSha2::detect();
        [Some(Self::Portable), sha.map(Self::ArmSha2), sha.map(Self::ArmSha4)]
            .into_iter()
            .flatten()
            .collect()
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn all() -> Vec<Self> {
        vec![Self::Portable]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "cpu portable",
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => "cpu sse2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "cpu avx2",
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi2(_) => "cpu sha-ni x2",
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi4(_) => "cpu sha-ni x4",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "cpu avx-512",
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha2(_) => "cpu armv8-sha2 x2",
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha4(_) => "cpu armv8-sha2 x4",
        }
    }

    fn scan(self, job: &ScanJob, start: u32, count: u32, candidate: &mut dyn FnMut(u32)) {
        let (prepared, mask) = (&job.prepared, job.mask);
        match self {
            Self::Portable => lanes::one::scan(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => x86_lanes::scan_sse2(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.scan(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi2(token) => token.scan::<2>(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi4(token) => token.scan::<4>(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.scan(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha2(token) => token.scan::<2>(prepared, mask, start, count, candidate),
            #[cfg(target_arch = "aarch64")]
            Self::ArmSha4(token) => token.scan::<4>(prepared, mask, start, count, candidate),
        }
    }
}

/// The shortest trial among the codes that find what the portable one finds: a code that this CPU gets wrong
/// costs speed, not shares.
fn fastest() -> Code {
    let job = ScanJob { mask: TRIAL_MASK, ..ScanJob::new(&[0; 76], Target::MAX) };
    let mut expected = Vec::new();
    Code::Portable.scan(&job, 0, TRIAL, &mut |nonce| expected.push(nonce));
    let mut timed: Vec<(Duration, Code)> =
        Code::all().into_iter().map(|code| (Duration::MAX, code)).collect();
    for _ in 0..TRIALS {
        timed.retain_mut(|(shortest, code)| {
            let mut found = Vec::with_capacity(expected.len());
            let began = Instant::now();
            code.scan(&job, 0, TRIAL, &mut |nonce| found.push(nonce));
            *shortest = began.elapsed().min(*shortest);
            let right = found == expected;
            if !right {
                tracing::warn!(
                    code = code.name(),
                    "finds other nonces than portable code: not used"
                );
            }
            right
        });
    }
    let (_, code) =
        timed.into_iter().min_by_key(|(time, _)| *time).unwrap_or((Duration::ZERO, Code::Portable));
    tracing::debug!(code = code.name(), "fastest code of this CPU");
    code
}

impl HashBackend for CpuBackend {
    fn name(&self) -> &str {
        self.code.name()
    }

    fn chunk(&self) -> u32 {
        CHUNK
    }

    fn scan_chunk(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
        hits: &mut Vec<Hit>,
    ) -> Result<(), HashError> {
        self.code.scan(job, start, count, &mut |nonce| hits.extend(job.check(nonce)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::scan::{ScanRequest, scan};
    use crate::hash::vectors::check_scans;
    use proptest::prelude::*;
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn every_code_finds_every_published_hit() {
        for mut backend in CpuBackend::all() {
            println!("{}", backend.name());
            check_scans(&mut backend);
        }
        let best = CpuBackend::best();
        assert!(CpuBackend::all().iter().any(|backend| backend.name() == best.name()));
    }

    #[test]
    fn a_stop_ends_a_scan_after_one_chunk() {
        let request =
            ScanRequest { header: [7; 76], target: Target::MAX, start: 5, count: 1 << 32 };
        let stop = AtomicBool::new(false);
        let mut backend = CpuBackend::best();
        let mut first = None;
        let summary = scan(&mut backend, &request, &stop, &mut |hit| {
            first.get_or_insert(hit.nonce);
            stop.store(true, Ordering::Relaxed);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((first, summary.hashes, summary.complete), (Some(5), u64::from(CHUNK), false));
        let broken =
            scan(&mut backend, &request, &AtomicBool::new(false), &mut |_| ControlFlow::Break(()));
        assert!(!broken.unwrap().complete);
        let none = ScanRequest { count: (1 << 32) + 1, ..request };
        assert!(scan(&mut backend, &none, &stop, &mut |_| ControlFlow::Continue(())).is_err());
    }

    /// The plainest way there is: the double hash of each nonce in turn.
    fn twin(job: &ScanJob, start: u32, count: u32) -> Vec<Hit> {
        (0..count).filter_map(|offset| job.check(start.wrapping_add(offset))).collect()
    }

    fn agree(job: &ScanJob, start: u32, count: u32) {
        let expected = twin(job, start, count);
        for mut backend in CpuBackend::all() {
            let mut hits = Vec::new();
            backend.scan_chunk(job, start, count, &mut hits).unwrap();
            assert_eq!(hits, expected, "{} from {start} over {count}", backend.name());
        }
    }

    #[test]
    fn counts_that_no_vector_divides_and_the_wrap_of_nonces() {
        let job = ScanJob::new(&[9; 76], Target::MAX);
        for count in (0..=35).chain([63, 64, 65]) {
            for start in [0, 1, u32::MAX, u32::MAX - 15, u32::MAX - 16, 1 << 31] {
                agree(&job, start, count);
            }
        }
    }

    #[test]
    fn a_hash_equal_to_the_target_is_work_and_one_above_is_not() {
        let any = ScanJob::new(&[4; 76], Target::MAX);
        for nonce in 0..200 {
            let target = Target::of_hash(&any.check(nonce).unwrap().hash);
            let mut below = target.0;
            // The number one less; a hash that ends in zero bytes borrows.
            for byte in below.iter_mut().rev() {
                let (less, borrow) = byte.overflowing_sub(1);
                *byte = less;
                if !borrow {
                    break;
                }
            }
            for mut backend in CpuBackend::all() {
                for (target, expected) in [(target, true), (Target(below), false)] {
                    let job = ScanJob::new(&[4; 76], target);
                    let mut hits = Vec::new();
                    backend.scan_chunk(&job, nonce, 1, &mut hits).unwrap();
                    assert_eq!(!hits.is_empty(), expected, "{} at {nonce}", backend.name());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_code_reports_the_twins_hits(
            seed in any::<[u8; 32]>(), start in any::<u32>(), count in 0u32..300,
            top in any::<u32>(), shift in 0u32..10,
        ) {
            let header: [u8; 76] = std::array::from_fn(|i| seed[i % 32] ^ i as u8);
            let mut target = [0xFFu8; 32];
            target[..4].copy_from_slice(&(top >> shift).to_be_bytes());
            agree(&ScanJob::new(&header, Target(target)), start, count);
        }
    }
}
