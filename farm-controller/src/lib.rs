//! The controller of a farm: feeds, store, broker, control loop, console.

pub mod console;
pub mod view;
