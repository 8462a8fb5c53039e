//! The task that keeps a server: brings it up, looks after it, brings it up again, lets it go.
//!
//! ```text
//!        load                  it answers
//! Down ---------> Starting ------------------> Up
//!  ^  ^            |  ^                         |
//!  |  +-- fails ---+  +--- lost, twice in ten --+
//!  |                       minutes at most      |
//!  +---------- unload, or lost too often -------+
//! ```
//! An unload is heard in every state; a start takes minutes with a large model and is broken off by it. A server of
//! somebody else's is never started or stopped, only asked; when it was lost too often it is still looked for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use roadbed_compute::poc::DecodeRefusal;
use roadbed_compute::{AdapterKind, AdapterSummary};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::super::backend::ModelInfo;
use super::super::fault::EngineFault;
use super::super::recovery::Recoveries;
use super::super::service::EngineState;
use super::probe::{self, Reading, Served};
use super::service::Shared;
use crate::child::{ChildProcess, Manners};

/// Looks in a row at which a server does not answer before it counts as lost, as in the network's own nodes.
const MISSES_MAX: u32 = 3;
/// Between two lines that say a start is still waited for.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);
/// A connection breaks a moment before the end of its process is known, which explains more.
const DEATH_WAIT_MAX: Duration = Duration::from_millis(500);
/// Whether somebody listens at an address is known at once.
const OCCUPIED_WAIT_MAX: Duration = Duration::from_secs(1);

type Loaded = Result<Arc<ModelInfo>, EngineFault>;

/// What the handles want.
pub(super) enum Order {
    Load { done: oneshot::Sender<Loaded> },
    Unload { done: oneshot::Sender<()> },
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Down,
    Starting,
    Up,
    Ended,
}

struct Keeper {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    process: Option<ChildProcess>,
    recoveries: Recoveries,
    /// The server is being brought up again after it was lost; waited for so long before.
    recovering: Option<Duration>,
    waiters: Vec<oneshot::Sender<Loaded>>,
    stage: Stage,
}

/// Keeps a server until told to end, or until nobody holds a handle any more.
pub(super) async fn keep(shared: Arc<Shared>, orders: mpsc::Receiver<Order>) {
    let ended = shared.ended.clone();
    let mut keeper = Keeper {
        shared,
        orders,
        process: None,
        recoveries: Recoveries::default(),
        recovering: None,
        waiters: vec![],
        stage: Stage::Down,
    };
    loop {
        match keeper.stage {
            Stage::Down => keeper.rest().await,
            Stage::Starting => keeper.bring_up().await,
            Stage::Up => keeper.watch().await,
            Stage::Ended => break,
        }
    }
    ended.send_replace(true);
}

impl Keeper {
    /// Waits for an order; looks for a server of somebody else's that was given up.
    async fn rest(&mut self) {
        let gone = matches!(&*self.shared.state.borrow(), EngineState::Failed { .. });
        let look = gone && self.shared.config.command.is_none();
        let shared = Arc::clone(&self.shared);
        let found = async move {
            loop {
                tokio::time::sleep(shared.bounds.look_every).await;
                let wanted = shared.config.model.as_deref();
                if let Reading::Answers(served) = probe::look(&shared.wire, wanted).await {
                    return served;
                }
            }
        };
        tokio::select! {
            order = self.orders.recv() => self.take(order).await,
            served = found, if look => self.ready(served),
        }
    }

    /// Brings the server up, unless an order comes first that says otherwise.
    async fn bring_up(&mut self) {
        let served_as = self.shared.served_as.clone();
        self.shared.state.send_replace(EngineState::Loading { served_as });
        let pause = self.recovering;
        let came = loop {
            let shared = &self.shared;
            let coming = async {
                tokio::time::sleep(pause.unwrap_or_default()).await;
                start(shared, &mut self.process).await
            };
            tokio::select! {
                order = self.orders.recv() => match order {
                    // The one under way is what is wanted; it goes on with a process it may have started.
                    Some(Order::Load { done }) => self.waiters.push(done),
                    order => return self.take(order).await,
                },
                came = coming => break came,
            }
        };
        match came {
            Ok(served) => self.ready(served),
            Err(reason) if self.recovering.is_some() => self.lost(reason).await,
            Err(reason) => self.fail(EngineFault::Load { reason }).await,
        }
    }

    fn ready(&mut self, served: Served) {
        tracing::info!(
            server = %self.shared.config.url, model = served.model, as_ = self.shared.served_as,
            proofs = ?served.proofs, "the server answers"
        );
        let info = Arc::new(self.info(&served));
        self.shared.set_served(Some(served));
        self.shared.forgive();
        self.recovering = None;
        self.shared.state.send_replace(EngineState::Ready(Arc::clone(&info)));
        self.stage = Stage::Up;
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Ok(Arc::clone(&info))));
        }
    }

    fn info(&self, served: &Served) -> ModelInfo {
        let url = &self.shared.config.url;
        let adapter = AdapterSummary {
            index: 0,
            name: format!("the server at {url}"),
            backend: "openai-upstream".into(),
            kind: AdapterKind::Unknown,
            pci_bus_id: None,
            driver: String::new(),
        };
        ModelInfo {
            served_as: self.shared.served_as.clone(),
            adapters: vec![adapter.clone()],
            adapter,
            // The others are the server's own matter.
            context_tokens: served.context_tokens.unwrap_or_default(),
            vocabulary: 0,
            end_ids: vec![],
            weights: None,
            memory_bytes: 0,
            grammars: None,
            answers_max: self.shared.config.concurrent,
            decode: Err(DecodeRefusal::NotOurs),
        }
    }

    /// Looks after a server that answers until it is lost or an order comes.
    async fn watch(&mut self) {
        let mut misses = 0;
        loop {
            let shared = Arc::clone(&self.shared);
            let check = async move {
                tokio::select! {
                    () = shared.suspect.notified() => deep_look(&shared).await,
                    () = tokio::time::sleep(shared.bounds.health_every) => {
                        probe::is_alive(&shared.wire).await.map_err(|fault| Bad::Miss(fault.to_string()))
                    }
                }
            };
            tokio::select! {
                order = self.orders.recv() => {
                    self.take(order).await;
                    if self.stage != Stage::Up {
                        return;
                    }
                }
                how = exited(&mut self.process) => return self.lost(how).await,
                seen = check => match seen {
                    Ok(()) => misses = 0,
                    Err(Bad::Lost(reason)) => return self.lost(reason).await,
                    Err(Bad::Miss(reason)) => {
                        misses += 1;
                        tracing::warn!(misses, reason, "the server does not answer");
                        if misses >= MISSES_MAX {
                            return self.lost(reason).await;
                        }
                    }
                },
            }
        }
    }

    /// The server is gone: it is brought up again, unless that was tried too often of late.
    async fn lost(&mut self, reason: String) {
        let reason = match &mut self.process {
            None => reason,
            Some(process) => {
                let died = tokio::time::timeout(DEATH_WAIT_MAX, process.exited()).await;
                died.unwrap_or(reason)
            }
        };
        tracing::error!(server = %self.shared.config.url, reason, "the server is lost");
        self.shared.set_served(None);
        let served_as = self.shared.served_as.clone();
        self.shared.state.send_replace(EngineState::Loading { served_as });
        self.shared.stop_work();
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
        if !self.recoveries.allow(Instant::now()) {
            self.recovering = None;
            return self.fail(EngineFault::ServerLost { reason }).await;
        }
        let before = u32::try_from(self.recoveries.recent()).unwrap_or(u32::MAX).saturating_sub(1);
        let pause = self.shared.bounds.restart * 4_u32.saturating_pow(before);
        self.recovering = Some(pause);
        self.shared.restarts.fetch_add(1, Ordering::Relaxed);
        self.stage = Stage::Starting;
    }

    async fn fail(&mut self, fault: EngineFault) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
        let served_as = self.shared.served_as.clone();
        tracing::error!(model = served_as, %fault, "no server answers");
        self.shared.set_served(None);
        self.shared.state.send_replace(EngineState::Failed { served_as, fault: fault.clone() });
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Err(fault.clone())));
        }
        self.stage = Stage::Down;
    }

    async fn take(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Load { done }) => {
                let info = self.shared.state.borrow().model().cloned();
                match info {
                    Some(info) => drop(done.send(Ok(info))),
                    None => {
                        self.waiters.push(done);
                        self.stage = Stage::Starting;
                    }
                }
            }
            Some(Order::Unload { done }) => {
                self.halt().await;
                self.stage = Stage::Down;
                let _gone = done.send(());
            }
            Some(Order::End) | None => {
                self.halt().await;
                self.stage = Stage::Ended;
            }
        }
    }

    /// Lets the server go; one of ours is gone when this returns.
    async fn halt(&mut self) {
        self.shared.stop_work();
        match self.process.take() {
            Some(process) => process.stop().await,
            None => self.shared.stop_proofs().await,
        }
        self.recovering = None;
        self.shared.set_served(None);
        self.shared.state.send_replace(EngineState::Empty);
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Err(EngineFault::Cancelled)));
        }
    }
}

/// What a look has found.
enum Bad {
    /// It did not answer this time.
    Miss(String),
    /// It answers pages but makes no tokens.
    Lost(String),
}

/// Requests fail: can it make a token at all?
async fn deep_look(shared: &Shared) -> Result<(), Bad> {
    match probe::look(&shared.wire, shared.config.model.as_deref()).await {
        Reading::Answers(_) => {
            shared.forgive();
            Ok(())
        }
        Reading::Silent(fault) => Err(Bad::Lost(fault.to_string())),
        Reading::Never(why) => Err(Bad::Lost(why)),
    }
}

/// How the process ended; never, if there is none.
async fn exited(process: &mut Option<ChildProcess>) -> String {
    match process {
        Some(process) => process.exited().await,
        None => std::future::pending().await,
    }
}

/// Starts the server if it is ours and not yet started, and waits until it answers.
async fn start(shared: &Shared, process: &mut Option<ChildProcess>) -> Result<Served, String> {
    if let (Some(command), None) = (&shared.config.command, &process) {
        refuse_occupied(shared).await?;
        *process = Some(ChildProcess::start(
            command,
            &Manners { what: "server", secrets: Vec::from_iter(shared.config.api_key.clone()) },
        )?);
    }
    let mut last = "nothing was heard of it".to_owned();
    let wait = shared.config.start_wait;
    let answered = tokio::time::timeout(wait, until_it_answers(shared, process, &mut last)).await;
    answered.unwrap_or_else(|_elapsed| {
        let words = process.as_ref().map(ChildProcess::last_words).unwrap_or_default();
        Err(format!(
            "the server at {} did not answer within {} s ({last}){words}",
            shared.config.url,
            wait.as_secs_f64()
        ))
    })
}

async fn until_it_answers(
    shared: &Shared,
    process: &mut Option<ChildProcess>,
    last: &mut String,
) -> Result<Served, String> {
    let began = Instant::now();
    let mut told = began;
    loop {
        let look = probe::look(&shared.wire, shared.config.model.as_deref());
        match or_exited(process, look).await? {
            Reading::Answers(served) => return Ok(served),
            Reading::Never(why) => return Err(why),
            Reading::Silent(fault) => *last = fault.to_string(),
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            tracing::info!(
                server = %shared.config.url, seconds = began.elapsed().as_secs(), last,
                "waiting for the server to answer"
            );
        }
        or_exited(process, tokio::time::sleep(shared.bounds.start_poll)).await?;
    }
}

/// What `future` gives, unless the process ends first.
async fn or_exited<T>(
    process: &mut Option<ChildProcess>,
    future: impl Future<Output = T>,
) -> Result<T, String> {
    tokio::select! {
        biased;
        how = exited(process) => Err(how),
        value = future => Ok(value),
    }
}

/// Whoever listens at the address already would be taken for the server we start.
async fn refuse_occupied(shared: &Shared) -> Result<(), String> {
    let (host, port) = shared.config.url.host_port();
    let connect = TcpStream::connect((host.as_str(), port));
    match tokio::time::timeout(OCCUPIED_WAIT_MAX, connect).await {
        Ok(Ok(_taken)) => Err(format!(
            "something listens at {} already; end it, or leave `command` out to use it as it is",
            shared.config.url
        )),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}
