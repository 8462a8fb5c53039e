//! Integration tests of the compute crate: kernels against their twins, models against vectors.

mod gguf_hostile;
mod kernels_static;
mod models;
mod text;
