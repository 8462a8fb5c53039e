//! The socket of a Stratum conversation: connects, carries lines, comes back after a loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadbed_protocol::Millis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::MinerStats;
use super::address::PoolAddress;
use super::dialect::{Action, Dialect};
use super::hasher::Board;
use super::meter::HashMeter;

/// A pool is across the internet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A pool that does not take a line in this time is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between two connections, doubled up to the last.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A connection that lived this long was a good one; the next wait is the first again.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// Everything the task owns.
pub struct Link {
    pub dialect: Box<dyn Dialect>,
    pub address: PoolAddress,
    pub board: Arc<Board>,
    pub finds: mpsc::Receiver<super::work::Find>,
    pub stats: watch::Sender<MinerStats>,
    pub stop: CancellationToken,
    pub began: Instant,
    pub meter: HashMeter,
}

/// Why a connection ended.
struct End {
    reason: String,
    to: Option<(String, u16)>,
    wait: Duration,
}

impl End {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), to: None, wait: Duration::ZERO }
    }
}

impl Link {
    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connect_forever() => {}
        }
        self.board.stop();
        self.dialect.disconnected();
        self.publish(false, "stopped");
    }

    async fn connect_forever(&mut self) {
        let mut backoff = BACKOFF_FIRST;
        let configured = (self.address.host.clone(), self.address.port);
        let mut place = configured.clone();
        loop {
            let opened = Instant::now();
            let end = self.connect_once(&place).await;
            self.board.give(None);
            self.dialect.disconnected();
            tracing::info!("pool {}: {}", self.address, end.reason);
            self.publish(false, &end.reason);
            let sent_on = end.to.is_some();
            // A place the pool named is tried once; the configured one is always right again.
            place = end.to.unwrap_or_else(|| configured.clone());
            if opened.elapsed() >= GOOD_CONNECTION {
                backoff = BACKOFF_FIRST;
            }
            let wait = if sent_on || end.wait > Duration::ZERO { end.wait } else { backoff };
            self.rest(jittered(wait)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits, with the books kept and finds of the dead connection thrown away.
    async fn rest(&mut self, wait: Duration) {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                find = self.finds.recv() => match find {
                    Some(find) => { self.dialect.found(self.now(), &find); }
                    None => return,
                },
            }
        }
    }

    async fn connect_once(&mut self, (host, port): &(String, u16)) -> End {
        let place = (host.as_str(), *port);
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::because(format!("no connection: {error}")),
            Err(_) => return End::because("no connection in time"),
        };
        if let Err(error) = stream.set_nodelay(true) {
            return End::because(error.to_string());
        }
        self.stats.send_modify(|stats| stats.connections += 1);
        let (mut reader, mut writer) = stream.into_split();
        let opening = self.dialect.connected(self.now());
        if let Err(end) = self.carry_out(opening, &mut writer).await {
            return end;
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chunk = [0u8; 4096];
        loop {
            let actions = tokio::select! {
                read = reader.read(&mut chunk) => match read {
                    Ok(0) => return End::because("it closed the connection"),
                    Ok(count) => self.dialect.bytes(self.now(), &chunk[..count]),
                    Err(error) => return End::because(error.to_string()),
                },
                Some(find) = self.finds.recv() => self.dialect.found(self.now(), &find),
                _ = ticks.tick() => self.dialect.tick(self.now()),
            };
            if let Err(end) = self.carry_out(actions, &mut writer).await {
                return end;
            }
            self.publish(true, "");
        }
    }

    async fn carry_out(
        &mut self,
        actions: Vec<Action>,
        writer: &mut OwnedWriteHalf,
    ) -> Result<(), End> {
        for action in actions {
            match action {
                Action::Send(bytes) => {
                    match timeout(WRITE_TIMEOUT, writer.write_all(&bytes)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Err(End::because(error.to_string())),
                        Err(_) => return Err(End::because("it takes no lines any more")),
                    }
                }
                Action::Hash(work) => self.board.give(Some(work)),
                Action::Rest => self.board.give(None),
                Action::Close { reason, cause: _, to, wait } => {
                    return Err(End { reason, to, wait: Duration::from_millis(wait.0) });
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, connected: bool, trouble: &str) {
        let hashes = self.board.hashes();
        let now = self.now();
        let hashrate = self.meter.sample(now, hashes);
        let report = self.dialect.report();
        self.stats.send_modify(|stats| {
            stats.connected = connected;
            stats.mining = report.mining;
            stats.difficulty = report.difficulty;
            stats.jobs = report.jobs;
            stats.garbage = report.garbage;
            stats.shares = report.shares;
            stats.hashes = hashes;
            stats.hashrate = hashrate;
            if report.mining {
                stats.trouble.clear();
            } else if !trouble.is_empty() {
                trouble.clone_into(&mut stats.trouble);
            }
        });
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Up to a quarter more, so that a farm's miners do not all come back at once.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Without entropy all come at once, which is no reason not to come.
    let _ = getrandom::fill(&mut byte);
    wait + wait / 4 * u32::from(byte[0]) / 255
}
