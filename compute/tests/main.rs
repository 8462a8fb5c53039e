//! Integration tests of the compute crate: kernels against their twins, models against vectors.

mod adapters;
mod gguf_hostile;
mod greedy;
mod kernels_static;
mod models;
mod proof;
mod text;
mod tiny_models;
