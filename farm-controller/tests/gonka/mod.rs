//! Gonka's feed: answers read, questions paced, Network Nodes that are away, slow, hostile or of another opinion.

mod adviser;
mod desk;
mod feed;
mod hold;
mod network_node;
mod parse;
mod reader;
mod registration;
mod tls;

use std::path::Path;

use serde_json::Value;

/// An answer out of `tests/data/gonka/chain`.
fn answer(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/gonka/chain");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The host that the answers call ours.
const ADDRESS: &str = "gonka1farm00000000000000000000000000000000";
const MODEL: &str = "MiniMaxAI/MiniMax-M2.7";
