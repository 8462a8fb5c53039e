//! An agent's real faces and a Network Node with its chain, in one process: whole epochs in seconds, and what interrupts them.
//!
//! Behind the faces stands the stand-in engine of the other tests, whose artifacts are computed from the nonce, so that a
//! fault can be placed between two nonces; one module runs a real, tiny model. A test steps the blocks. It waits only for
//! things that must come, and never for time to pass.

mod any_order;
mod epoch;
mod fan_out;
mod interruptions;
mod killed_process;
mod real_model;
mod rig;
