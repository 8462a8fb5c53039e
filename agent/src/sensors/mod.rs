//! Power and heat sensors of a GPU rig.
