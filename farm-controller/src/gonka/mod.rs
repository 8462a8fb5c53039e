//! Gonka: what the controller asks a Network Node, and what it makes of the answers.
//!
//! ```text
//! Network Node -> [client] -> [parse] -> [reader] -> GonkaFacts -> core's advice -> commitments, incomes, alerts
//! ```
//!
//! The reading knows nothing of the farm, and what follows from it is reckoned in `farm_core::gonka`.

pub mod adviser;
pub mod client;
pub mod desk;
pub mod epoch_record;
pub mod feed;
pub mod fields;
pub mod figures;
pub mod maintenance;
pub mod parse;
pub mod preflight;
pub mod promised;
pub mod question;
pub mod reader;
pub mod registration;
pub mod service;
pub mod sketch;
pub mod view;
