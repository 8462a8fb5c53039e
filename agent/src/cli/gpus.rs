//! `roadbed-agent gpus`: the adapters of this machine, as `--gpu` and the config file name them.

use clap::Args;
use roadbed_compute::list_adapters;
use serde_json::{Value, json};

use super::progress::bytes;
use crate::engine::adapter_memory::adapter_memory;

/// Arguments of `gpus`.
#[derive(Debug, Args)]
pub struct GpusArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The list cannot be made.
pub async fn run(args: GpusArgs) -> anyhow::Result<()> {
    let gpus = tokio::task::spawn_blocking(|| {
        let adapters = list_adapters();
        adapters.into_iter().map(|adapter| (adapter_memory(&adapter), adapter)).collect::<Vec<_>>()
    })
    .await?;
    if args.json {
        let gpu = |(memory, adapter): &(Option<u64>, _)| {
            let mut gpu = json!(adapter);
            gpu["memory_bytes"] = json!(memory);
            gpu
        };
        println!("{}", Value::from(gpus.iter().map(gpu).collect::<Vec<_>>()));
        return Ok(());
    }
    for (memory, adapter) in &gpus {
        println!("{adapter}; memory {}", memory.map_or("not known".into(), bytes));
    }
    if gpus.is_empty() {
        println!("no GPU: install a Vulkan driver");
    }
    Ok(())
}
