//! The command line of `roadbed`: one file a command, this one only tells them apart.
//!
//! What a command finds out goes to standard output, `--json` as one document; logs and errors go to standard error.
//! Exit code 1 is a failure with its reason, 2 a wrong command line.

mod coins;
mod console;
mod demo;
mod gonka;
mod gonka_advice;
mod gonka_asking;
mod gonka_maintenance;
mod gonka_text;
mod hashprice;
mod hold;
mod plan;
mod policy;
mod rigs;
mod table;

mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use table::Table;

/// A farm controller: prices and promises in, orders for every rig out.
#[derive(Debug, Parser)]
#[command(name = "roadbed", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller of a site, and its HTTP gateway if the site file has one
    Up(up::UpArgs),
    /// Open the console of a running controller
    Console(console::ConsoleArgs),
    /// Run the demo farm: a real day of prices, emulated miners, a real GPU rig
    Demo(demo::DemoArgs),
    /// Gonka: the chain, our MLNodes, their eligibility and income
    #[command(subcommand)]
    Gonka(gonka::GonkaCommand),
    /// Show what each coin pays each kind of GPU rig, and what energy leaves of it
    Coins(coins::CoinsArgs),
    /// Show what hashing earns now, from which parts, and what energy may cost for it
    Hashprice(hashprice::HashpriceArgs),
    /// Hold rigs at their power floor; asks back when that breaks a promise
    Hold(hold::HoldArgs),
    /// Let held rigs go back to the plan
    Release(hold::ReleaseArgs),
    /// Show what the planner would do, slot by slot, with its reasons
    Plan(plan::PlanArgs),
    /// Check policy, site and profile files
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Show every rig of a running controller
    Rigs(rigs::RigsArgs),
}

impl Cli {
    /// True when standard output belongs to the console, and logs would spoil it.
    #[must_use]
    pub fn draws(&self) -> bool {
        match &self.command {
            Command::Console(_) => true,
            Command::Demo(args) => args.draws(),
            Command::Up(_)
            | Command::Gonka(_)
            | Command::Coins(_)
            | Command::Hashprice(_)
            | Command::Hold(_)
            | Command::Release(_)
            | Command::Plan(_)
            | Command::Policy(_)
            | Command::Rigs(_) => false,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What failed, where, and what to do.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::run(args).await,
        Command::Console(args) => console::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Gonka(command) => gonka::run(command).await,
        Command::Coins(args) => coins::run(&args).await,
        Command::Hashprice(args) => hashprice::run(&args).await,
        Command::Hold(args) => hold::hold(args).await,
        Command::Release(args) => hold::release(args).await,
        Command::Plan(args) => plan::run(&args),
        Command::Policy(policy::PolicyCommand::Check(args)) => policy::run(&args),
        Command::Rigs(args) => rigs::run(args).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_end() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}
