//! The runtime: one task per rig owns its rig machine.
