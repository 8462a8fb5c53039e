//! The driver of a GPU rig.
