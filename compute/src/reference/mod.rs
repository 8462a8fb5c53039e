//! CPU twins of the kernels.
