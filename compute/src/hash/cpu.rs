//! Hashing on the CPU: the portable code, or the SHA extensions where the CPU has them.

use super::HashError;
use super::scan::{HashBackend, Hit, ScanJob};
#[cfg(target_arch = "x86_64")]
use super::sha_ni::ShaNi;

/// Nonces per chunk: about 10 ms at 3 MH/s, so a stop is prompt even on a slow, busy core.
const CHUNK: u32 = 1 << 15;

/// One thread of CPU hashing.
#[derive(Debug)]
pub struct CpuBackend {
    code: Code,
}

#[derive(Debug, Clone, Copy)]
enum Code {
    Portable,
    #[cfg(target_arch = "x86_64")]
    ShaNi(ShaNi),
}

impl CpuBackend {
    /// The fastest code this CPU runs.
    #[must_use]
    pub fn best() -> Self {
        Self::sha_ni().unwrap_or_else(Self::portable)
    }

    /// Code without any CPU extension; the oracle of the others.
    #[must_use]
    pub fn portable() -> Self {
        Self { code: Code::Portable }
    }

    /// Code for the SHA extensions; `None` if the CPU has none.
    #[must_use]
    pub fn sha_ni() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return ShaNi::detect().map(|token| Self { code: Code::ShaNi(token) });
        #[cfg(not(target_arch = "x86_64"))]
        None
    }
}

impl HashBackend for CpuBackend {
    fn name(&self) -> &str {
        match self.code {
            Code::Portable => "cpu portable",
            #[cfg(target_arch = "x86_64")]
            Code::ShaNi(_) => "cpu sha-ni",
        }
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
        match self.code {
            Code::Portable => {
                for offset in 0..count {
                    hits.extend(job.check(start.wrapping_add(offset)));
                }
            }
            #[cfg(target_arch = "x86_64")]
            Code::ShaNi(token) => {
                let top_word = job.target.top_word();
                token.scan(&job.midstate, top_word, start, count, &mut |nonce| {
                    hits.extend(job.check(nonce));
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Target;
    use crate::hash::scan::{ScanRequest, scan};
    use crate::hash::vectors::check_scans;
    use proptest::prelude::*;
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn portable_code_finds_every_published_hit() {
        check_scans(&mut CpuBackend::portable());
    }

    #[test]
    fn sha_extensions_find_every_published_hit() {
        match CpuBackend::sha_ni() {
            Some(mut backend) => check_scans(&mut backend),
            None => println!("SKIPPED: this CPU has no SHA extensions"),
        }
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

    proptest! {
        #[test]
        fn both_codes_report_the_same_hits(
            seed in any::<[u8; 32]>(), start in any::<u32>(), count in 0u32..600, top in any::<u8>()
        ) {
            let header: [u8; 76] = std::array::from_fn(|i| seed[i % 32] ^ i as u8);
            let mut target = [0xFFu8; 32];
            target[0] = top;
            let job = ScanJob::new(&header, Target(target));
            let mut plain = Vec::new();
            CpuBackend::portable().scan_chunk(&job, start, count, &mut plain).unwrap();
            let mut fast = Vec::new();
            CpuBackend::best().scan_chunk(&job, start, count, &mut fast).unwrap();
            prop_assert_eq!(plain, fast);
        }
    }
}
