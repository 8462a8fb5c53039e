//! Token ids of texts, to compare a real tokenizer with another implementation.
//!
//! `tokenizer_ids FILE < texts > ids`: FILE is a `tokenizer.json` or a GGUF file; each line of standard
//! input is a JSON string, each line of output a JSON list. `tests/peers/tokenizer_goldens.py check`
//! runs it.

use std::io::{BufRead, BufWriter, Write};
use std::path::Path;

use roadbed_compute::gguf::GgufFile;
use roadbed_compute::tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: tokenizer_ids FILE < texts > ids")?;
    let tokenizer = match path.strip_suffix(".json") {
        Some(_) => Tokenizer::from_tokenizer_json(&std::fs::read_to_string(&path)?, None)?,
        None => Tokenizer::from_metadata(&GgufFile::open(Path::new(&path))?.metadata)?,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        writeln!(out, "{}", serde_json::to_string(&tokenizer.encode(&text)?)?)?;
    }
    Ok(out.flush()?)
}
