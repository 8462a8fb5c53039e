//! `roadbed policy check`: says everything that is wrong with config files before a farm finds out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::check_file;

/// Commands about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy, site or profile files; exit code 1 when one is wrong
    Check(CheckArgs),
}

/// Arguments of `roadbed policy check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files to check; a site is checked with its policy and profiles
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut documents = Vec::new();
    let mut all_valid = true;
    for file in &args.files {
        match check_file(file) {
            Ok(kind) => {
                documents.push(json!({"file": file, "valid": true, "kind": kind.word()}));
                if !args.json {
                    println!("{}: a valid {}", file.display(), kind.word());
                }
            }
            Err(error) => {
                all_valid = false;
                let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
                documents.push(json!({"file": file, "valid": false, "errors": lines}));
                if !args.json {
                    eprintln!("{error}");
                }
            }
        }
    }
    if args.json {
        println!("{}", json!({"valid": all_valid, "files": documents}));
    }
    Ok(if all_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
