//! The hands of the supervisor: one task that owns the child, asks the API, and looks at memory.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use roadbed_protocol::{
    HashesPerSecond, JobCounters, Millis, PoolReport, PoolShares, PoolStanding,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::api::Api;
use super::launch::Launch;
use super::leftover::{self, Noted};
use super::memory::{self, MemoryGauge};
use super::reply::Figures;
use super::supervisor::{Effect, Ended, Event, Limits, State, Supervisor, Then};
use crate::child::ChildProcess;

/// Between two looks at the clock; a stop is noticed within it.
const TICK: Duration = Duration::from_millis(100);

/// What is wanted of a miner; it only goes down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    Stop,
    Cut,
}

/// What an external miner does and has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExternalStatus {
    /// One word: `starting`, `hashing`, ..
    pub word: &'static str,
    /// Its API answers, and it hashes at its floor or above.
    pub hashing: bool,
    /// What it said last; nothing while it does not answer.
    pub figures: Option<Figures>,
    /// Shares of all its starts.
    pub shares: ExternalShares,
    /// Hashes done, by its word: what it said of its rate, for as long as it said so.
    pub hashes: u64,
    /// Starts after the first.
    pub restarts: u64,
    /// Why it does not hash; empty while it does.
    pub trouble: String,
    /// A person must look.
    pub alarm: bool,
    /// How it ended, once it has.
    pub ended: Option<Result<Ended, String>>,
    /// Orders taken in.
    heard: u64,
}

/// Shares by what became of them, over all starts; they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExternalShares {
    /// Taken.
    pub accepted: u64,
    /// Refused.
    pub rejected: u64,
    /// Too late.
    pub stale: u64,
}

impl ExternalStatus {
    /// Its rate; nothing while it does not answer.
    #[must_use]
    pub fn hashrate(&self) -> HashesPerSecond {
        self.figures.as_ref().and_then(|figures| figures.hashrate).unwrap_or_default()
    }

    /// The part of a rig's counters that mining fills.
    #[must_use]
    pub fn counters(&self) -> JobCounters {
        let ExternalShares { accepted, rejected, stale } = self.shares;
        JobCounters {
            shares_submitted: accepted + rejected + stale,
            shares_accepted: accepted,
            shares_rejected: rejected,
            shares_stale: stale,
            ..JobCounters::default()
        }
    }
}

/// What a miner is started with beside its launch.
pub struct Surroundings {
    /// Where running miners are written down, if anywhere.
    pub notes: Option<PathBuf>,
    /// Tells of the GPUs' memory.
    pub gauge: Box<dyn MemoryGauge>,
    /// How patient supervision is.
    pub limits: Limits,
    /// Where alarms go.
    pub alarms: Option<mpsc::Sender<String>>,
}

/// A supervised miner; dropping it kills it.
pub struct ExternalHandle {
    launch: Launch,
    wanted: watch::Sender<(Wanted, u64)>,
    status: watch::Receiver<ExternalStatus>,
}

/// Starts a miner and its supervision, on the current tokio runtime.
#[must_use]
pub fn start(launch: Launch, surroundings: Surroundings) -> ExternalHandle {
    let (wanted, wants) = watch::channel((Wanted::Run, 0));
    let (told, status) =
        watch::channel(ExternalStatus { word: "starting", ..ExternalStatus::default() });
    let supervisor = Supervisor::new(launch.terms(), surroundings.limits);
    let runner = Runner {
        launch: launch.clone(),
        surroundings,
        supervisor,
        told,
        began: Instant::now(),
        child: None,
        asking: None,
        before: None,
        counted: ExternalShares::default(),
        answered: None,
        spawned: 0,
        heard: 0,
    };
    tokio::spawn(runner.run(wants));
    ExternalHandle { launch, wanted, status }
}

impl ExternalHandle {
    /// What it is and for whom it hashes.
    #[must_use]
    pub fn description(&self) -> String {
        self.launch.description()
    }

    /// Its pool as a rig's report tells it; nothing where its own command line names one.
    #[must_use]
    pub fn pool_report(&self) -> Option<PoolReport> {
        let url = self.launch.pool()?.to_string();
        let status = self.status();
        let standing = match (status.hashing, status.figures.is_some()) {
            (true, _) => PoolStanding::Hashing,
            (false, true) => PoolStanding::Connecting,
            (false, false) => PoolStanding::Away,
        };
        let ExternalShares { accepted, rejected, stale } = status.shares;
        let report = PoolReport {
            url,
            standing,
            hashes: status.hashes,
            // Miners do not tell it in one unit.
            difficulty_millionths: 0,
            shares: PoolShares { accepted, stale, other: rejected, ..PoolShares::default() },
            answer_after: None,
            trouble: status.trouble,
        };
        Some(report.bounded())
    }

    /// What it does and has done.
    #[must_use]
    pub fn status(&self) -> ExternalStatus {
        self.status.borrow().clone()
    }

    /// Ends it. Returns at once.
    pub fn stop(&self) {
        self.want(Wanted::Stop);
    }

    /// Ends it without the gentler means. Returns at once.
    pub fn cut(&self) {
        self.want(Wanted::Cut);
    }

    /// Waits until it has ended: every process gone, GPU memory free as far as anybody tells. To be called after
    /// [`Self::stop`].
    ///
    /// # Errors
    /// A process or memory of it is still there; another [`Self::stop`] looks and tries again.
    pub async fn ended(&self) -> Result<Ended, String> {
        let (_, sent) = *self.wanted.borrow();
        let mut status = self.status.clone();
        let over = |status: &ExternalStatus| status.heard >= sent && status.ended.is_some();
        let ended = status.wait_for(over).await;
        match ended {
            Ok(status) => status.ended.clone().unwrap_or(Ok(Ended::NeverRan)),
            Err(_) => Err("the miner's supervision died".into()),
        }
    }

    /// Waits until a person must look.
    pub async fn alarmed(&self) {
        // An error says that supervision died, which a person must look at too.
        drop(self.status.clone().wait_for(|status| status.alarm).await);
    }

    fn want(&self, wanted: Wanted) {
        self.wanted.send_modify(|(now, sent)| {
            *sent += 1;
            *now = match (*now, wanted) {
                (Wanted::Cut, _) => Wanted::Cut,
                (Wanted::Run | Wanted::Stop, wanted) => wanted,
            };
        });
    }
}

type Asking = Pin<Box<dyn Future<Output = Event> + Send>>;

struct Running {
    process: ChildProcess,
    api: Api,
    /// Its end was told.
    exited: bool,
    _noted: Option<Noted>,
}

struct Runner {
    launch: Launch,
    surroundings: Surroundings,
    supervisor: Supervisor,
    told: watch::Sender<ExternalStatus>,
    began: Instant,
    child: Option<Running>,
    asking: Option<Asking>,
    /// Memory that was taken before the first start.
    before: Option<Vec<u64>>,
    /// The running program's own counters as they were last seen.
    counted: ExternalShares,
    /// When it answered last.
    answered: Option<Millis>,
    spawned: u64,
    /// Orders taken in.
    heard: u64,
}

impl Runner {
    async fn run(mut self, mut wants: watch::Receiver<(Wanted, u64)>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.handle(Event::Run);
        loop {
            let event = tokio::select! {
                changed = wants.changed() => {
                    if changed.is_err() {
                        // The handle is gone: dropping the child kills it and all it started.
                        return;
                    }
                    let wanted;
                    (wanted, self.heard) = *wants.borrow_and_update();
                    match wanted {
                        Wanted::Run => continue,
                        Wanted::Stop => Event::Stop,
                        Wanted::Cut => Event::Cut,
                    }
                }
                how = exited(&mut self.child) => Event::Exited(how),
                event = asked(&mut self.asking) => {
                    self.asking = None;
                    if let Event::Answered(figures) = &event {
                        self.count(figures);
                    }
                    event
                }
                _ = ticks.tick() => Event::Tick,
            };
            self.handle(event);
        }
    }

    /// Feeds the supervisor and does what it says, until nothing is left to do.
    fn handle(&mut self, event: Event) {
        let figures = match &event {
            Event::Answered(figures) => Some(figures.clone()),
            _ => None,
        };
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.supervisor.handle(self.now(), event) {
                events.extend(self.carry_out(effect));
            }
        }
        self.tell(figures);
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn => return self.spawn().err().map(Event::SpawnFailed),
            Effect::Ask => {
                if let (None, Some(child)) = (&self.asking, &self.child) {
                    let look = child.api.clone().look();
                    self.asking = Some(Box::pin(async move {
                        look.await.map_or_else(Event::Unanswered, Event::Answered)
                    }));
                }
            }
            Effect::AskToStop => {
                if let Some(child) = &self.child {
                    let stop = child.api.clone().stop();
                    // Whether it was taken is seen by its end; what it says helps when it does not.
                    tokio::spawn(async move {
                        if let Err(problem) = stop.await {
                            tracing::debug!("the miner's API stop: {problem}");
                        }
                    });
                }
            }
            Effect::Terminate => self.child.iter().for_each(|child| child.process.terminate()),
            Effect::Kill => self.child.iter().for_each(|child| child.process.kill()),
            Effect::LookAtGroup => {
                let left = self.child.as_mut().is_some_and(|child| !child.process.is_gone());
                if !left {
                    self.asking = None;
                    self.child = None;
                }
                return Some(Event::Group { left });
            }
            Effect::LookAtMemory => {
                let now = self.surroundings.gauge.used();
                return Some(Event::Memory(memory::judge(self.before.as_deref(), now.as_deref())));
            }
            Effect::Alarm(reason) => {
                tracing::error!(
                    miner = self.launch.description(),
                    "the miner needs a person: {reason}"
                );
                if let Some(alarms) = &self.surroundings.alarms {
                    // A full channel holds one that says the same.
                    drop(alarms.try_send(reason));
                }
            }
        }
        None
    }

    fn spawn(&mut self) -> Result<(), String> {
        let start = self.launch.prepare()?;
        // Of the first start: what an earlier one left behind is not excused by a later one.
        self.before = self.before.take().or_else(|| self.surroundings.gauge.used());
        self.counted = ExternalShares::default();
        self.answered = None;
        let process = ChildProcess::start(&start.command, &start.manners)?;
        let noted = leftover::note(self.surroundings.notes.as_deref(), process.id(), &start.mark);
        self.child = Some(Running { process, api: start.api, exited: false, _noted: noted });
        self.spawned += 1;
        Ok(())
    }

    /// Adds what is new to the shares and hashes of all starts.
    fn count(&mut self, figures: &Figures) {
        let new = |seen: Option<u64>, counted: &mut u64| {
            let Some(seen) = seen else { return 0 };
            let before = std::mem::replace(counted, seen);
            // A counter that fell began anew.
            seen.checked_sub(before).unwrap_or(seen)
        };
        let shares = ExternalShares {
            accepted: new(figures.accepted, &mut self.counted.accepted),
            rejected: new(figures.rejected, &mut self.counted.rejected),
            stale: new(figures.stale, &mut self.counted.stale),
        };
        let now = self.now();
        let passed = now.0 - self.answered.replace(now).unwrap_or(now).0;
        let rate = figures.hashrate.unwrap_or_default().0;
        // Rates stand below an exahash; the product needs more.
        let hashes = u128::from(rate) * u128::from(passed) / 1_000;
        self.told.send_modify(|told| {
            told.hashes = told.hashes.saturating_add(u64::try_from(hashes).unwrap_or(u64::MAX));
            told.shares.accepted += shares.accepted;
            told.shares.rejected += shares.rejected;
            told.shares.stale += shares.stale;
        });
    }

    fn tell(&mut self, figures: Option<Figures>) {
        let floor = self.launch.terms().floor.0.max(1);
        let (restarts, heard) = (self.spawned.saturating_sub(1), self.heard);
        let state = self.supervisor.state();
        let (word, trouble) = describe(state);
        let ended = match state {
            State::Off(ended) => Some(Ok(*ended)),
            State::Alarm { reason, left_over: true } => Some(Err(reason.clone())),
            State::Starting { .. }
            | State::Hashing(_)
            | State::Stopping { .. }
            | State::Confirming { .. }
            | State::Waiting { .. }
            | State::Alarm { .. } => None,
        };
        let alarm = matches!(state, State::Alarm { .. });
        let answers = matches!(state, State::Hashing(_));
        self.told.send_if_modified(|told| {
            let figures = match (answers, figures) {
                (false, _) => None,
                (true, Some(figures)) => Some(figures),
                (true, None) => told.figures.clone(),
            };
            let rate = figures.as_ref().and_then(|figures| figures.hashrate).unwrap_or_default();
            let next = ExternalStatus {
                word,
                hashing: answers && rate.0 >= floor,
                figures,
                shares: told.shares,
                hashes: told.hashes,
                restarts,
                trouble,
                alarm,
                ended,
                heard,
            };
            let changed = *told != next;
            *told = next;
            changed
        });
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// One word, and why it does not hash.
fn describe(state: &State) -> (&'static str, String) {
    match state {
        State::Off(_) => ("off", String::new()),
        State::Starting { .. } => ("starting", "its API has not answered yet".into()),
        State::Hashing(_) => ("hashing", String::new()),
        State::Stopping { then, .. } | State::Confirming { then, .. } => match then {
            Then::Off => ("stopping", String::new()),
            Then::Restart(reason) | Then::Alarm(reason) => ("restarting", reason.clone()),
        },
        State::Waiting { reason, .. } => ("waiting", reason.clone()),
        State::Alarm { reason, .. } => ("alarm", reason.clone()),
    }
}

/// How the child ended, once; never while there is none.
async fn exited(child: &mut Option<Running>) -> String {
    match child {
        Some(running) if !running.exited => {
            let how = running.process.exited().await;
            running.exited = true;
            how
        }
        Some(_) | None => std::future::pending().await,
    }
}

async fn asked(asking: &mut Option<Asking>) -> Event {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}
