//! SHA-256d: Bitcoin's proof of work, on the CPU and in WGSL.
//!
//! A nonce search is the same whatever does it: a [`HashBackend`] looks through chunks of nonces
//! and every candidate is hashed once more in plain code before anyone hears of it. The rest is
//! what a pool client needs around the search: targets and difficulty, headers, and the assembly of
//! a header from a Stratum job.
//!
//! On a GPU this is a proof that the path works, not income: one ASIC out-hashes ten thousand
//! cards.

pub mod header;
pub mod hex;
pub mod job;
pub mod operations;
pub mod sha256;
pub mod target;
pub mod tuner;

#[cfg(target_arch = "aarch64")]
mod arm_sha2;
mod backend;
mod cpu;
mod gpu;
mod lanes;
mod prepared;
mod scan;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(test)]
mod vectors;
#[cfg(target_arch = "x86_64")]
mod x86_lanes;

pub use crate::kernels::hash::HashVariant;
pub use backend::BackendKind;
pub use cpu::CpuBackend;
pub use gpu::GpuBackend;
pub use header::Header;
pub use job::{Extranonce, Job, Roll};
pub use prepared::{Prepared, reject_mask};
pub use scan::{
    COUNT_MAX, HITS_MAX, HashBackend, Hit, ScanJob, ScanRequest, ScanSummary, collect, scan,
};
pub use target::Target;

/// Why a scan or the preparation of one failed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// A field of a job, header or request is not what it must be.
    #[error("{field}: {why}")]
    Field { field: String, why: String },
    /// A target that no hash could be compared with.
    #[error("bad target: {0}")]
    Target(String),
    /// It was given up before it was done.
    #[error("told to stop")]
    Stopped,
    #[error(transparent)]
    Gpu(#[from] crate::gpu::GpuError),
}
