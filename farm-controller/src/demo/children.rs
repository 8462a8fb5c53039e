//! The demo's other processes: started beside this executable, watched, ended with it.
//!
//! Each child has our end of a pipe as standard input and ends when that closes, so none outlives the demo even when the
//! demo is killed. A child that ends by itself is a failure, told with the last lines of its log.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::process::{Child, Command};

/// How long a child may take to end once it was asked.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often the children are looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Lines of a dead child's log that are told.
const LOG_LINES_TOLD: usize = 12;

/// The running children.
#[derive(Default)]
pub(super) struct Children {
    running: Vec<Running>,
}

struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Children {
    /// Starts `program`, which must lie beside this executable, with its output in `log`.
    ///
    /// # Errors
    /// When it is not there or does not start.
    pub fn start(
        &mut self,
        name: &str,
        program: &str,
        arguments: Vec<OsString>,
        log: &Path,
    ) -> anyhow::Result<()> {
        let own = std::env::current_exe().context("where this executable lies")?;
        let path = own.with_file_name(program);
        anyhow::ensure!(
            path.exists(),
            "{} is not there; build it: cargo build --release -p roadbed-agent -p farm-tests",
            path.display()
        );
        let file = File::create(log).with_context(|| format!("log {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("log {}", log.display()))?;
        let child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start of {}", path.display()))?;
        self.running.push(Running { name: name.to_owned(), child, log: log.to_owned() });
        Ok(())
    }

    /// Returns when a child has ended by itself, with what it said last.
    pub async fn ended(&mut self) -> anyhow::Error {
        loop {
            for running in &mut self.running {
                match running.child.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => {
                        let tail = tail(&running.log);
                        return anyhow!("{} ended by itself ({status}):\n{tail}", running.name);
                    }
                    Err(error) => return anyhow!("{} cannot be watched: {error}", running.name),
                }
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Ends all of them: standard input closes; who does not listen is killed.
    pub async fn stop(&mut self) {
        for running in &mut self.running {
            drop(running.child.stdin.take());
        }
        for running in &mut self.running {
            if tokio::time::timeout(STOP_PATIENCE, running.child.wait()).await.is_err() {
                tracing::warn!(name = %running.name, "does not end; killed");
                let _ = running.child.kill().await;
            }
        }
        self.running.clear();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_TOLD);
    lines.get(from..).unwrap_or_default().iter().map(|line| format!("    {line}\n")).collect()
}
