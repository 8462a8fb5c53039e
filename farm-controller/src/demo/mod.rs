//! The whole farm in one command: a real day of prices on a fast clock, emulated miners, a pool that re-hashes every share,
//! a stand-in of Gonka's Network Node, a customer, and a GPU rig that is this machine.
//!
//! Everything runs as it would on a farm: the controller as `roadbed up` runs it, two agents as their own processes, the
//! stand-ins as a third. The demo only writes their files, starts them, watches that none dies, and in the end holds
//! what the controller booked against what the stand-ins saw. A claim that does not hold is named, and the exit code
//! says so.

mod children;
mod claims;
mod day;
mod decisions;
mod judgements;
mod summary;
mod workdir;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use roadbed_protocol::{RigKind, UnixMillis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{DayTime, Site, local_hour_minute};
use crate::controller::Controller;
use crate::store;
use crate::view::FarmView;
use children::Children;
pub use day::Day;
use decisions::Decisions;
use judgements::Judgements;
pub use summary::Summary;
use workdir::WorkDir;

/// How long, after the day, the farm may take until everything the stand-ins saw is booked. Wall time.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks at that.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// What is asked of a demo.
#[derive(Debug, Clone)]
pub struct DemoSettings {
    /// Lines instead of the console.
    pub headless: bool,
    /// Wall minutes for a day of 24 hours.
    pub minutes: f64,
    /// Time of the day at which it begins.
    pub from: DayTime,
    /// Hours of it that are run.
    pub hours: u64,
    /// Model file or catalogue name.
    pub model: String,
    /// GPU adapter: `auto`, a name or a PCI id.
    pub adapter: String,
    /// Where files, logs and the store go; a fresh temporary folder when absent.
    pub work_dir: Option<PathBuf>,
    /// One JSON document at the end; decisions go to standard error then.
    pub json: bool,
}

/// How the day ended.
enum Ending {
    /// It passed.
    Passed,
    /// A person ended it.
    Interrupted,
    /// Something died.
    Failed(anyhow::Error),
}

/// Whether a demo with these wishes draws on the terminal.
#[must_use]
pub fn draws(headless: bool, json: bool) -> bool {
    !headless && !json && std::io::stdout().is_terminal()
}

/// Runs the demo to its end.
///
/// # Errors
/// When something could not be started or died. Claims that do not hold are in the summary, not here.
pub async fn run(settings: DemoSettings) -> anyhow::Result<Summary> {
    let work = WorkDir::create(settings.work_dir.clone())?;
    let day = Day::of(&settings, &workdir::template()?)?;
    let files = work.write(&settings, &day)?;
    let site = Site::load(&files.site)?;
    let mut controller = Controller::start(&site).await?;
    let mut children = Children::default();
    let engines = tokio::spawn(engines(controller.views()));
    let started = start_children(&mut children, &files, &work);
    let ending = match started {
        Ok(()) => live(&settings, &site, &day, &mut controller, &mut children).await,
        Err(error) => Ending::Failed(error),
    };
    let judged = match &ending {
        Ending::Passed => Some(settle(&files, &controller, &mut children).await),
        Ending::Interrupted | Ending::Failed(_) => None,
    };
    children.stop().await;
    controller.stop().await?;
    let engines = engines.await.unwrap_or_default();
    match ending {
        Ending::Failed(error) => {
            Err(error.context(format!("logs are in {}", work.path().display())))
        }
        Ending::Interrupted => anyhow::bail!("ended before the day was over; no claim was judged"),
        Ending::Passed => {
            let judgements = judged.context("the stand-ins were not asked")??;
            let kept = store::read_kept(&site.store_path())?;
            Ok(Summary::new(&site, &day, &kept, &judgements, engines, work.path()))
        }
    }
}

fn start_children(
    children: &mut Children,
    files: &workdir::Files,
    work: &WorkDir,
) -> anyhow::Result<()> {
    let config = |path: &PathBuf| vec!["--config".into(), path.clone().into_os_string()];
    children.start(
        "standins",
        "roadbed-standins",
        config(&files.standins),
        &work.log("standins"),
    )?;
    for (agent, path) in &files.agents {
        let arguments = [vec!["run".into()], config(path)].concat();
        children.start(agent, "roadbed-agent", arguments, &work.log(agent))?;
    }
    Ok(())
}

/// Lets the day pass.
async fn live(
    settings: &DemoSettings,
    site: &Site,
    day: &Day,
    controller: &mut Controller,
    children: &mut Children,
) -> Ending {
    let cancel = CancellationToken::new();
    let views = controller.views();
    let watching = tokio::spawn(watch_farm(settings, site, controller, cancel.clone()));
    let remaining = day.clock.wall_span(day.end.since(day.clock.now()));
    let console_left = async {
        if draws(settings.headless, settings.json) {
            let _ = cancel.cancelled().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let ending = tokio::select! {
        () = tokio::time::sleep(remaining) => Ending::Passed,
        () = console_left => Ending::Interrupted,
        _ = tokio::signal::ctrl_c() => Ending::Interrupted,
        error = children.ended() => Ending::Failed(error),
        error = controller.ended() => Ending::Failed(error.into()),
    };
    drop(views);
    cancel.cancel();
    let _ = watching.await;
    ending
}

/// The console, or a line a decision; fires `cancel` when the person at the console leaves.
fn watch_farm(
    settings: &DemoSettings,
    site: &Site,
    controller: &Controller,
    cancel: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let draws = draws(settings.headless, settings.json);
    let (to_stderr, offset) = (settings.json, site.utc_offset_minutes);
    let (views, actions) = (controller.views(), controller.actions());
    async move {
        if draws {
            let shown = crate::console::run(views, actions, "demo".into(), cancel.clone()).await;
            if let Err(error) = shown {
                tracing::warn!(%error, "the console could not be drawn");
            }
            cancel.cancel();
        } else {
            tell(views, offset, to_stderr, cancel).await;
        }
    }
}

async fn tell(
    mut views: watch::Receiver<FarmView>,
    offset_minutes: i16,
    to_stderr: bool,
    cancel: CancellationToken,
) {
    let mut decisions = Decisions::default();
    loop {
        let news = decisions.news(&views.borrow_and_update());
        for line in news {
            let who = line.rig.as_ref().map_or("farm", |rig| rig.as_str());
            let text =
                format!("{} {who:<7} {}", local_hour_minute(line.at, offset_minutes), line.text);
            if to_stderr { eprintln!("{text}") } else { println!("{text}") }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

/// The engines that GPU rigs named while the views lasted.
async fn engines(mut views: watch::Receiver<FarmView>) -> BTreeSet<String> {
    let mut engines = BTreeSet::new();
    loop {
        let view = views.borrow_and_update().clone();
        let gpus = view.rigs.into_iter().filter(|rig| rig.kind == RigKind::Gpu);
        engines.extend(gpus.map(|rig| rig.engine).filter(|engine| !engine.is_empty()));
        if views.changed().await.is_err() {
            return engines;
        }
    }
}

/// Asks the stand-ins what they saw, then waits until the controller has booked all of it.
async fn settle(
    files: &workdir::Files,
    controller: &Controller,
    children: &mut Children,
) -> anyhow::Result<Judgements> {
    let mut judgements = Judgements::fetch(&files.status_url).await?;
    judgements.passed = judgements::passed(&files.gateway_url).await?;
    let deadline = tokio::time::Instant::now() + SETTLE_DEADLINE;
    let views = controller.views();
    loop {
        judgements.booked = judgements::Booked::of(&views.borrow());
        if judgements.lost() == 0 || tokio::time::Instant::now() >= deadline {
            return Ok(judgements);
        }
        tokio::select! {
            () = tokio::time::sleep(SETTLE_PAUSE) => {}
            error = children.ended() => return Err(error),
        }
    }
}

/// Farm time as a wall clock of the site shows it.
fn site_time(at: UnixMillis, site: &Site) -> String {
    local_hour_minute(at, site.utc_offset_minutes)
}
