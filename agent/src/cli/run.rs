//! `roadbed-agent run`: the rigs of a config file under a controller.

use std::path::PathBuf;

use clap::Args;

use crate::asic::AsicDriver;
use crate::config::{self, RigHardware};
use crate::driver::RigDriver;
use crate::runtime::{self, AgentError, DriverContext};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The config file.
    #[arg(long)]
    pub config: PathBuf,
    /// Check the config, the key and the profiles, and leave.
    #[arg(long)]
    pub check: bool,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    if args.check {
        println!("{}: valid; {} rigs", args.config.display(), config.rigs.len());
        return Ok(());
    }
    let shutdown = runtime::ended_from_outside();
    runtime::run(config, &mut build_driver, shutdown).await?;
    Ok(())
}

fn build_driver(context: DriverContext<'_>) -> Result<Box<dyn RigDriver>, AgentError> {
    let rig = context.rig;
    let failed = |reason: String| AgentError::Driver { rig: rig.id.clone(), reason };
    match &rig.hardware {
        RigHardware::Asic(asic) => {
            let clock = context.config.clock;
            let driver = AsicDriver::spawn(&rig.id, asic, &rig.profile, clock, context.events);
            Ok(Box::new(driver.map_err(|error| failed(error.to_string()))?))
        }
        #[cfg(feature = "gpu")]
        RigHardware::Gpu(gpu) => {
            let clock = context.config.clock;
            let driver = crate::gpu::GpuDriver::spawn(
                gpu,
                &rig.profile,
                clock,
                context.journal,
                context.events,
            );
            Ok(Box::new(driver.map_err(|error| failed(error.to_string()))?))
        }
        #[cfg(not(feature = "gpu"))]
        RigHardware::Gpu(_) => {
            Err(failed("this agent was built without GPU support; use the full package".into()))
        }
    }
}
