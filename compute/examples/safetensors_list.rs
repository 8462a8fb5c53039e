//! Lists the tensors of a safetensors file: name, dtype, shape, sum of the weights, tab by tab.
//!
//! Usage: cargo run --example `safetensors_list` -- FILE

use std::path::PathBuf;

use roadbed_compute::gguf::dequant::dequantise;
use roadbed_compute::safetensors::SafetensorsFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("which file?")?);
    let file = SafetensorsFile::open(&path)?;
    for tensor in file.tensors() {
        let sum = tensor.weight_type().map(|kind| {
            dequantise(kind, file.data(tensor)).iter().map(|w| f64::from(*w)).sum::<f64>()
        });
        let sum = sum.map_or_else(|| "-".to_owned(), |sum| format!("{sum:.9e}"));
        println!("{}\t{}\t{:?}\t{sum}", tensor.name, tensor.dtype, tensor.shape);
    }
    Ok(())
}
