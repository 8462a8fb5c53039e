//! One pool's connection: the socket and TLS under its dialect. Connects while it is wanted, and comes back after a loss.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadbed_protocol::Millis;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::dialect::{Action, Cause, Dialect};
use super::meter::HashMeter;
use super::switchboard::Switched;
use super::work::{Find, Work};
use super::{MinerClock, PoolStats};

/// A pool is across the internet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A pool that does not take our farewell in this time is left without.
const FAREWELL_WITHIN: Duration = Duration::from_millis(500);
/// A pool that does not take a line in this time is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between two connections, doubled up to the last.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A connection that lived this long was a good one; the next wait is the first again.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(500);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
type Writer = WriteHalf<Box<dyn Stream>>;

/// What a line tells the switchboard.
#[derive(Debug)]
pub enum LineEvent {
    /// The pool gives this work.
    Work(Arc<Work>),
    /// It has none for now.
    Rest,
    /// The connection ended or there was none, for a reason of its dialect's if there is one.
    Ended(Option<Cause>),
}

/// Everything the task owns.
pub struct Line {
    /// Its place in the list.
    pub pool: usize,
    pub dialect: Box<dyn Dialect>,
    /// Host and port as configured.
    pub place: (String, u16),
    /// For pools that speak TLS; or why there is none.
    pub tls: Option<Result<TlsConnector, String>>,
    pub wanted: watch::Receiver<bool>,
    pub finds: mpsc::Receiver<Find>,
    pub events: mpsc::Sender<(usize, LineEvent)>,
    pub stats: watch::Sender<PoolStats>,
    /// Where the hashes done for each pool are counted.
    pub switched: watch::Receiver<Switched>,
    pub meter: HashMeter,
    pub clock: MinerClock,
}

/// Why a connection ended.
struct End {
    reason: String,
    cause: Option<Cause>,
    to: Option<(String, u16)>,
    wait: Duration,
}

impl End {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause: None, to: None, wait: Duration::ZERO }
    }

    fn unwanted() -> Self {
        Self::because("not needed now")
    }
}

impl Line {
    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        self.keep_connected(&stop).await;
        self.dialect.disconnected();
        self.publish(false, "stopped");
    }

    async fn keep_connected(&mut self, stop: &CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        let mut place = self.place.clone();
        loop {
            let wanted = self.wanted.wait_for(|wanted| *wanted);
            if stop.run_until_cancelled(wanted).await.is_none_or(|wanted| wanted.is_err()) {
                break;
            }
            let opened = Instant::now();
            let end = self.connect_once(&place, stop).await;
            self.dialect.disconnected();
            self.publish(false, &end.reason);
            tracing::info!("pool {}:{}: {}", place.0, place.1, end.reason);
            let told = self.events.send((self.pool, LineEvent::Ended(end.cause)));
            if stop.run_until_cancelled(told).await.is_none_or(|told| told.is_err()) {
                break;
            }
            if !*self.wanted.borrow() {
                backoff = BACKOFF_FIRST;
                continue;
            }
            let sent_on = end.to.is_some();
            // A place the pool named is tried once; the configured one is always right again.
            place = end.to.unwrap_or_else(|| self.place.clone());
            if opened.elapsed() >= GOOD_CONNECTION {
                backoff = BACKOFF_FIRST;
            }
            let wait = if sent_on || end.wait > Duration::ZERO { end.wait } else { backoff };
            if stop.run_until_cancelled(self.rest(jittered(wait))).await != Some(true) {
                break;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits, with the books kept and finds of the dead connection thrown away; false when all is over.
    async fn rest(&mut self, wait: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return true,
                find = self.finds.recv() => match find {
                    Some(find) => { self.dialect.found(self.now(), &find); }
                    None => return false,
                },
            }
        }
    }

    async fn connect_once(&mut self, place: &(String, u16), stop: &CancellationToken) -> End {
        let mut wanted = self.wanted.clone();
        let stream = tokio::select! {
            stream = timeout(CONNECT_TIMEOUT, connect(place, self.tls.as_ref())) => stream,
            () = unwanted(&mut wanted, stop) => return End::unwanted(),
        };
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(reason)) => return End::because(format!("no connection: {reason}")),
            Err(_) => return End::because("no connection in time"),
        };
        self.stats.send_modify(|stats| stats.connections += 1);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut actions = self.dialect.connected(self.now());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chunk = [0u8; 4096];
        loop {
            tokio::select! {
                done = self.carry_out(actions, &mut writer) => if let Err(end) = done {
                    return end;
                },
                // In the middle of a write there is nothing more to say.
                () = unwanted(&mut wanted, stop) => return End::unwanted(),
            }
            self.publish(true, "");
            actions = tokio::select! {
                read = reader.read(&mut chunk) => match read {
                    Ok(0) => return End::because("it closed the connection"),
                    Ok(count) => self.dialect.bytes(self.now(), &chunk[..count]),
                    Err(error) => return End::because(error.to_string()),
                },
                Some(find) = self.finds.recv() => self.dialect.found(self.now(), &find),
                _ = ticks.tick() => {
                    self.measure();
                    self.dialect.tick(self.now())
                }
                () = unwanted(&mut wanted, stop) => {
                    let last = self.dialect.leaving();
                    let farewell = async {
                        let _ = self.carry_out(last, &mut writer).await;
                        writer.shutdown().await
                    };
                    // A pool that does not take it is left all the same.
                    let _ = timeout(FAREWELL_WITHIN, farewell).await;
                    return End::unwanted();
                }
            };
        }
    }

    async fn carry_out(&mut self, actions: Vec<Action>, writer: &mut Writer) -> Result<(), End> {
        for action in actions {
            match action {
                Action::Send(bytes) => {
                    let write = async {
                        writer.write_all(&bytes).await?;
                        writer.flush().await
                    };
                    match timeout(WRITE_TIMEOUT, write).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Err(End::because(error.to_string())),
                        Err(_) => return Err(End::because("it takes nothing any more")),
                    }
                }
                Action::Hash(work) => self.tell(LineEvent::Work(work)).await?,
                Action::Rest => self.tell(LineEvent::Rest).await?,
                Action::Close { reason, cause, to, wait } => {
                    let wait = Duration::from_millis(wait.0);
                    return Err(End { reason, cause: Some(cause), to, wait });
                }
            }
        }
        Ok(())
    }

    /// Tells the dialect how fast its pool is hashed for.
    fn measure(&mut self) {
        let hashes = self.switched.borrow().hashes.get(self.pool).copied().unwrap_or(0);
        let rate = self.meter.sample(self.now(), hashes);
        self.dialect.measured(rate);
    }

    async fn tell(&mut self, event: LineEvent) -> Result<(), End> {
        let told = self.events.send((self.pool, event)).await;
        told.map_err(|_| End::because("the miner has ended"))
    }

    fn publish(&self, connected: bool, trouble: &str) {
        let report = self.dialect.report();
        self.stats.send_modify(|stats| {
            stats.connected = connected;
            if report.mining {
                stats.trouble.clear();
            } else if !trouble.is_empty() {
                trouble.clone_into(&mut stats.trouble);
            }
            stats.report = report;
        });
    }

    fn now(&self) -> Millis {
        (self.clock)()
    }
}

/// Waits until the pool is not wanted any more, or nobody is.
async fn unwanted(wanted: &mut watch::Receiver<bool>, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        _ = wanted.wait_for(|wanted| !*wanted) => {}
    }
}

async fn connect(
    (host, port): &(String, u16),
    tls: Option<&Result<TlsConnector, String>>,
) -> Result<Box<dyn Stream>, String> {
    let words = |error: io::Error| error.to_string();
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(words)?;
    stream.set_nodelay(true).map_err(words)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let tls = tls.as_ref().map_err(Clone::clone)?;
    let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    Ok(Box::new(stream))
}

/// Up to a quarter more, so that a farm's miners do not all come back at once.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Without entropy all come at once, which is no reason not to come.
    let _ = getrandom::fill(&mut byte);
    wait + wait / 4 * u32::from(byte[0]) / 255
}
