//! Integration tests of the compute crate: kernels against their twins, models against vectors.

mod kernels_static;
