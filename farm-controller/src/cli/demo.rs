//! `roadbed demo`: the whole farm in one command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::DayTime;
use crate::demo::{self, DemoSettings};

/// Arguments of `roadbed demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// One line per decision instead of the console; also when standard output is no terminal
    #[arg(long)]
    headless: bool,
    /// Wall minutes a day of 24 hours takes
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Time of day at which to begin
    #[arg(long, default_value = "00:00")]
    from: DayTime,
    /// Hours to run
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Model file or catalogue name
    #[arg(long, default_value = "smollm2-135m")]
    model: String,
    /// GPU adapter by name or PCI id; the best one when absent
    #[arg(long, default_value = "auto")]
    adapter: String,
    /// Folder for configs, logs and store; a new temporary one when absent
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// The summary as one JSON document; decisions go to standard error
    #[arg(long)]
    json: bool,
}

impl DemoArgs {
    pub(super) fn draws(&self) -> bool {
        demo::draws(self.headless, self.json)
    }
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let summary = demo::run(DemoSettings {
        headless: args.headless,
        minutes: args.minutes,
        from: args.from,
        hours: args.hours,
        model: args.model,
        adapter: args.adapter,
        work_dir: args.work_dir,
        json: args.json,
    })
    .await?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{summary}");
    }
    let failed: Vec<&str> = summary.failed().map(|claim| claim.name).collect();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join("; "));
    Ok(ExitCode::FAILURE)
}
