//! The journal: what must not be lost, on disk before it is sent.
