//! `roadbed-agent miners list`: profiles, how far each was tested, and what is on this machine.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::models::printable;
use crate::config::miner_profile::MinerProfile;
use crate::config::miner_profiles;

/// A program that is asked for its version and runs on is none that has one.
const VERSION_WITHIN: Duration = Duration::from_secs(3);

/// Arguments of `miners list`.
#[derive(Debug, Args)]
#[command(after_help = "\
The programs are not part of Roadbed: download them yourself, and mind their licences and fees.
Examples:
  roadbed-agent miners list
  roadbed-agent miners list --json | jq -r '.miners[] | select(.path) | .name'")]
pub struct MinersListArgs {
    /// Folder of further profiles; they replace built-in ones of the same name.
    #[arg(long)]
    pub profiles: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

struct Row {
    profile: MinerProfile,
    path: Option<PathBuf>,
    version: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A profile that cannot be used.
pub async fn list(args: MinersListArgs) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for profile in miner_profiles(args.profiles.as_deref())? {
        let path = find(&profile.program);
        let version = match (&path, &profile.version_args) {
            (Some(path), Some(arguments)) => version(path, arguments).await,
            _ => None,
        };
        rows.push(Row { profile, path, version });
    }
    if args.json {
        let miners: Vec<Value> = rows.iter().map(document).collect();
        println!("{}", json!({ "miners": miners }));
        return Ok(());
    }
    let mut cells = vec![["NAME", "API", "TESTED", "PROGRAM", "VERSION"].map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        let program = match &row.path {
            Some(path) => path.display().to_string(),
            None => format!("{} is not in PATH", row.profile.program),
        };
        let version = row.version.clone().unwrap_or_else(|| "-".into());
        [
            row.profile.name.clone(),
            row.profile.api.dialect.to_string(),
            row.profile.tested.to_string(),
            program,
            version,
        ]
    }));
    print!("{}", table(&cells));
    println!("\nAlgorithms:");
    for Row { profile, .. } in &rows {
        let words: Vec<&str> = profile.algorithms.keys().map(String::as_str).collect();
        println!("  {}: {}", profile.name, words.join(", "));
    }
    Ok(())
}

fn document(row: &Row) -> Value {
    let Row { profile, path, version } = row;
    json!({
        "name": profile.name, "title": profile.title, "program": profile.program, "path": path,
        "version": version, "api": profile.api.dialect.to_string(), "tested": profile.tested.to_string(),
        "stops_by": if profile.stop.is_some() { "its API, then signals" } else { "signals" },
        "algorithms": profile.algorithms.keys().collect::<Vec<_>>(), "sources": profile.sources,
    })
}

/// Columns as wide as they must be.
fn table(rows: &[[String; 5]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Where a program is: the path itself, or the first of `PATH` that can be run.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| runs(path))
}

/// The first line a program says of its version.
async fn version(path: &Path, arguments: &[String]) -> Option<String> {
    let mut command = tokio::process::Command::new(path);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_WITHIN, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(printable(line))
}
