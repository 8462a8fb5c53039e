//! `roadbed-agent miners check`: a profile before it is used.

use std::path::PathBuf;

use clap::Args;

use crate::config::load_miner_profile;
use crate::config::miner_profile::{Argument, Blank, Blanks};

/// Arguments of `miners check`.
#[derive(Debug, Args)]
#[command(after_help = "A profile is explained in profiles/miners/README.md.")]
pub struct MinersCheckArgs {
    /// The profile, YAML.
    pub profile: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The key that is wrong, and how.
pub fn check(args: &MinersCheckArgs) -> anyhow::Result<()> {
    let profile = load_miner_profile(&args.profile)?;
    let mut blanks = Blanks::default();
    for blank in [
        Blank::PoolHost,
        Blank::PoolPort,
        Blank::PoolUrl,
        Blank::User,
        Blank::Password,
        Blank::Algorithm,
        Blank::ApiPort,
        Blank::ApiToken,
        Blank::Gpus,
    ] {
        blanks.set(blank, blank.to_string());
    }
    let arguments = profile.arguments(&blanks, false);
    let arguments = arguments.map_err(|blank| anyhow::anyhow!("{blank} has no value"))?;
    println!("{}: valid; {}, {}", args.profile.display(), profile.title, profile.tested);
    println!("starts:  {} {}", profile.program, arguments.join(" "));
    let options =
        profile.command.iter().filter(|argument| matches!(argument, Argument::IfKnown(_)));
    if options.count() > 0 {
        println!("         (what has no value at a start is left out where the profile says so)");
    }
    let questions: Vec<&str> = profile.api.ask.iter().map(|(_, what)| what.as_str()).collect();
    println!("asks:    {}, {}", profile.api.dialect, questions.join(" and "));
    let figures: Vec<&str> = profile.read.rules().map(|(key, _)| key).collect();
    println!("reads:   {}", figures.join(", "));
    println!(
        "ends by: {}SIGTERM, SIGKILL",
        profile.stop.map_or(String::new(), |stop| format!("{stop}, "))
    );
    Ok(())
}
