//! `roadbed-agent models synth`: a model of random weights in the shape of a real one.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::synthetic::{Architecture, Shape, Synthetic, UnknownName};
use serde_json::json;

use crate::cli::progress::{Progress, bytes};
use crate::engine::space::require_space;

/// Written at once to the disk.
const BUFFER_BYTES: usize = 4 << 20;

/// Arguments of `models synth`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roadbed-agent models synth --shape tiny --quant q8_0 tiny.gguf
  roadbed-agent models synth --shape 7b --quant q4_k --seed 1 /data/7b-q4_k.gguf
  roadbed-agent models synth --shape tiny --arch gemma3 --quant f16 gemma3.gguf

The same arguments give the same file on every machine. What such a model says is noise.")]
pub struct ModelsSynthArgs {
    /// The file to write; it must not exist.
    pub out: PathBuf,
    /// Size: tiny, 135m, 360m, 0.5b, 1b, 3b, 7b, 8b or 13b.
    #[arg(long)]
    pub shape: String,
    /// Type of the matrices, as GGUF calls them: f32, f16, bf16, q8_0, q4_0, q4_1, q4_k and so on.
    #[arg(long, default_value = "q4_0")]
    pub quant: String,
    /// Architecture: llama, qwen2, qwen3, gemma2 or gemma3.
    #[arg(long, default_value = "llama")]
    pub arch: String,
    /// The same seed gives the same weights.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// A name that is none, a file that exists, a disk that is full.
pub async fn synth(args: ModelsSynthArgs) -> anyhow::Result<()> {
    let model = Synthetic {
        architecture: args.arch.parse::<Architecture>()?,
        shape: Shape::named(&args.shape)?,
        kind: tensor_type(&args.quant)?,
        seed: args.seed,
    };
    let out = args.out.clone();
    let written = model.clone();
    tokio::task::spawn_blocking(move || write(&written, &out)).await??;
    let size = std::fs::metadata(&args.out)?.len();
    if args.json {
        let document = json!({
            "path": args.out, "bytes": size, "parameters": model.parameters(),
            "architecture": model.architecture.word(), "shape": model.shape.name,
            "quant": model.kind.to_string(), "seed": model.seed,
        });
        println!("{document}");
    } else {
        println!("{} ({}, {} weights)", args.out.display(), bytes(size), model.parameters());
    }
    Ok(())
}

fn tensor_type(word: &str) -> Result<TensorType, UnknownName> {
    let known = || TensorType::ALL.into_iter();
    known().find(|kind| kind.to_string().eq_ignore_ascii_case(word)).ok_or_else(|| {
        let names: Vec<String> = known().map(|kind| kind.to_string().to_lowercase()).collect();
        UnknownName::new("type", word, names.iter().map(String::as_str))
    })
}

/// Writes beside the target and renames, so that a broken run leaves nothing that looks like a model.
fn write(model: &Synthetic, out: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!out.exists(), "{} exists already", out.display());
    let folder = match out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    let name = out.file_name().with_context(|| format!("{} names no file", out.display()))?;
    require_space(folder, model.bytes())?;
    let part = folder.join(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
    let outcome = write_part(model, &part).and_then(|()| Ok(std::fs::rename(&part, out)?));
    if outcome.is_err() {
        // The error that counts is the first one.
        drop(std::fs::remove_file(&part));
    }
    outcome.with_context(|| format!("cannot write {}", out.display()))
}

fn write_part(model: &Synthetic, part: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(part)?);
    let mut progress = Progress::new(model.shape.name, 0, Some(model.bytes()));
    model.write(&mut file, &mut |done| progress.at(done))?;
    file.flush()?;
    progress.end(model.bytes());
    Ok(())
}
