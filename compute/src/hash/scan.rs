//! Searching a range of nonces: one interface for every backend, stopped promptly.
//!
//! A backend only knows how to look through a small chunk. The loop here asks for chunks until the
//! range is done, the stop flag is up or the receiver of the hits has had enough, so a rig that is
//! told to serve a model stops hashing within one chunk, whatever does the hashing.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::prepared::{Prepared, reject_mask};
use super::sha256::{Midstate, bytes};
use super::{HashError, Target};

/// Most nonces in a range: all there are.
pub const COUNT_MAX: u64 = 1 << 32;

/// Most hits [`collect`] keeps; a target so easy that it gives more is a test, not mining.
pub const HITS_MAX: usize = 1 << 20;

/// A range of nonces of one header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRequest {
    /// The 76 bytes before the nonce, as hashed.
    pub header: [u8; 76],
    pub target: Target,
    /// First nonce; the range wraps past 2^32.
    pub start: u32,
    /// Number of nonces, at most [`COUNT_MAX`].
    pub count: u64,
}

/// A nonce whose hash meets the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    pub nonce: u32,
    /// Internal byte order.
    pub hash: [u8; 32],
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanSummary {
    /// Nonces looked at, from the start of the range.
    pub hashes: u64,
    /// Whether the whole range was looked at.
    pub complete: bool,
}

/// A header prepared for scanning.
#[derive(Debug, Clone, Copy)]
pub struct ScanJob {
    pub midstate: Midstate,
    /// What the kernels start from.
    pub prepared: Prepared,
    pub target: Target,
    /// Bits that the last state word of no share has; see [`reject_mask`].
    pub mask: u32,
}

impl ScanJob {
    #[must_use]
    pub fn new(header: &[u8; 76], target: Target) -> Self {
        let midstate = Midstate::new(header);
        let mask = reject_mask(target.top_word());
        Self { prepared: Prepared::new(&midstate), midstate, target, mask }
    }

    /// The full check of one nonce, on the CPU: a backend's candidates pass through it.
    #[must_use]
    pub fn check(&self, nonce: u32) -> Option<Hit> {
        let hash = bytes(self.midstate.double_hash(nonce));
        self.target.admits(&hash).then_some(Hit { nonce, hash })
    }
}

/// Something that can look through nonces.
pub trait HashBackend: Send {
    /// For logs and telemetry: `cpu portable`, `cpu sha-ni x4`, or an adapter's name.
    fn name(&self) -> &str;

    /// Nonces to ask for at once: a millisecond or two of a CPU's work, a few tens of a GPU's, so that a stop and
    /// a new job are prompt.
    fn chunk(&self) -> u32;

    /// Appends every hit among `count` nonces from `start` (modulo 2^32), in that order.
    ///
    /// # Errors
    /// When the device fails; the chunk then counts as not looked at.
    fn scan_chunk(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
        hits: &mut Vec<Hit>,
    ) -> Result<(), HashError>;
}

/// Scans a range, handing each hit to `sink` as soon as its chunk is done.
///
/// # Errors
/// A count above [`COUNT_MAX`], or a failure of the backend.
pub fn scan(
    backend: &mut dyn HashBackend,
    request: &ScanRequest,
    stop: &AtomicBool,
    sink: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> Result<ScanSummary, HashError> {
    if request.count > COUNT_MAX {
        return Err(HashError::Field {
            field: "count".into(),
            why: format!("{} nonces, there are only {COUNT_MAX}", request.count),
        });
    }
    let job = ScanJob::new(&request.header, request.target);
    let mut hits = Vec::new();
    let mut hashes = 0u64;
    while hashes < request.count {
        if stop.load(Ordering::Relaxed) {
            return Ok(ScanSummary { hashes, complete: false });
        }
        let left = request.count - hashes;
        let count = u32::try_from(left).unwrap_or(u32::MAX).min(backend.chunk().max(1));
        // Nonce arithmetic is modulo 2^32, so the low word of the offset is the offset.
        let start = request.start.wrapping_add(hashes as u32);
        hits.clear();
        backend.scan_chunk(&job, start, count, &mut hits)?;
        hashes += u64::from(count);
        for &hit in &hits {
            if sink(hit).is_break() {
                return Ok(ScanSummary { hashes, complete: false });
            }
        }
    }
    Ok(ScanSummary { hashes, complete: true })
}

/// Scans a range and returns its hits in range order, at most [`HITS_MAX`] of them.
///
/// # Errors
/// As [`scan`].
pub fn collect(
    backend: &mut dyn HashBackend,
    request: &ScanRequest,
    stop: &AtomicBool,
) -> Result<(Vec<Hit>, ScanSummary), HashError> {
    let mut hits = Vec::new();
    let summary = scan(backend, request, stop, &mut |hit| {
        hits.push(hit);
        if hits.len() < HITS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok((hits, summary))
}
