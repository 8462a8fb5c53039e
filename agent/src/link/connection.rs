//! The two tasks that move bytes.
//!
//! A new client is built for every connection: the client is known to wedge on what it remembers of a session the
//! broker has lost, a login token lives for minutes only, and nothing is lost by forgetting, because the journal replays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roadbed_protocol::topics;
use roadbed_protocol::{Ack, ReplayGuard, RigId};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::gate::{Delivery, GateCounts, OrderGate, Verdict};
use super::state::LinkState;
use super::{FromRig, LinkSettings, RigOrder, options};
use crate::journal::{Journal, JournalError};

/// Messages that may wait inside the client.
const CLIENT_QUEUE_MAX: usize = 64;
/// Packets that may wait between the poll task and the link task.
const PACKETS_MAX: usize = 64;
/// First wait after a lost connection; doubles with each failure in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest wait. With jitter a whole farm that gets its power back does not knock in the same second.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A connection that lasted this long was a good one, and the waits begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// A client queue that is full is tried again this soon.
const FULL_WAIT: Duration = Duration::from_millis(20);
/// Where the journal keeps the counters of seen orders.
const GUARD_KEY: &str = "replay-guard";

/// What the poll task tells.
enum FromBroker {
    /// A new client; the one before is of no use any more.
    Client(AsyncClient),
    /// The broker took the login.
    Connected,
    /// The answer to the subscription.
    Granted(Vec<bool>),
    /// A message.
    Message(Publish),
    /// The connection is gone.
    Lost,
}

/// The counters of seen orders, as the last life left them.
pub(super) async fn load_guard(journal: &Journal) -> Result<ReplayGuard, JournalError> {
    let Some(bytes) = journal.get(GUARD_KEY).await? else { return Ok(ReplayGuard::default()) };
    serde_json::from_slice(&bytes).map_err(|error| JournalError::Write {
        what: "read the counters of seen orders".into(),
        reason: error.to_string(),
    })
}

/// The link task.
pub(super) struct Link {
    settings: LinkSettings,
    journal: Journal,
    gate: OrderGate,
    state: LinkState,
    inboxes: BTreeMap<RigId, mpsc::Sender<RigOrder>>,
    client: Option<AsyncClient>,
    up: watch::Sender<bool>,
    counts: watch::Sender<GateCounts>,
    /// The client's queue was full; try again soon.
    full: bool,
}

impl Link {
    pub(super) fn new(
        settings: LinkSettings,
        journal: Journal,
        guard: ReplayGuard,
        inboxes: BTreeMap<RigId, mpsc::Sender<RigOrder>>,
        up: watch::Sender<bool>,
        counts: watch::Sender<GateCounts>,
    ) -> Self {
        let rigs = || inboxes.keys().cloned().collect();
        let (farm, agent) = (settings.farm.clone(), settings.agent.clone());
        let keys = settings.trusted_keys.clone();
        Self {
            gate: OrderGate::new(farm.clone(), agent.clone(), rigs(), keys, guard),
            state: LinkState::new(farm, agent, rigs(), options::presence(true)),
            settings,
            journal,
            inboxes,
            client: None,
            up,
            counts,
            full: false,
        }
    }

    pub(super) async fn run(
        mut self,
        mut reports: mpsc::Receiver<FromRig>,
        closing: CancellationToken,
    ) {
        let (packets_in, mut packets) = mpsc::channel(PACKETS_MAX);
        let ended = CancellationToken::new();
        let poller = poll(self.settings.clone(), packets_in, ended.clone());
        let poller = AbortOnDropHandle::new(tokio::spawn(poller));
        let mut newest = self.journal.newest();
        loop {
            let wake = self.wake_in();
            tokio::select! {
                () = closing.cancelled() => break,
                Some(packet) = packets.recv() => self.take(packet).await,
                Some(report) = reports.recv() => self.take_report(report),
                Ok(()) = newest.changed() => {}
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => {}
            }
            // Everything that waits is taken before anything is sent: newer states replace older ones.
            while let Ok(report) = reports.try_recv() {
                self.take_report(report);
            }
            self.pump().await;
        }
        while let Ok(report) = reports.try_recv() {
            self.take_report(report);
        }
        self.pump().await;
        self.say_goodbye();
        // The poll task sends what is queued, meets the end of the connection and ends with it.
        ended.cancel();
        if tokio::time::timeout(GOODBYE_MAX, poller).await.is_err() {
            tracing::debug!("the broker did not close the connection in time");
        }
        self.up.send_replace(false);
    }

    fn wake_in(&self) -> Option<Duration> {
        let due = self.state.wake_at().map(|at| at.saturating_duration_since(Instant::now()));
        if self.full { Some(due.map_or(FULL_WAIT, |due| due.min(FULL_WAIT))) } else { due }
    }

    async fn take(&mut self, packet: FromBroker) {
        match packet {
            FromBroker::Client(client) => self.client = Some(client),
            FromBroker::Connected => {
                let filters = self
                    .state
                    .connected()
                    .into_iter()
                    .map(|topic| Filter::new(topic, QoS::AtLeastOnce));
                if let Some(client) = &self.client
                    && let Err(error) = client.try_subscribe_many(filters)
                {
                    // The queue of a new client is empty, so this is a connection that died already.
                    tracing::debug!("cannot subscribe: {error}");
                }
            }
            FromBroker::Granted(granted) => {
                if self.state.subscribed(&granted) {
                    tracing::info!(broker = %self.settings.broker.host, port = self.settings.broker.port, "connected");
                    self.up.send_replace(true);
                } else {
                    tracing::error!(
                        "the broker refuses some of this agent's topics: check that the site lists its rigs"
                    );
                    self.hang_up();
                }
            }
            FromBroker::Message(publish) => self.take_message(&publish).await,
            FromBroker::Lost => {
                self.state.disconnected();
                self.full = false;
                self.up.send_replace(false);
            }
        }
    }

    async fn take_message(&mut self, publish: &Publish) {
        let topic = String::from_utf8_lossy(&publish.topic);
        let verdict = self.gate.judge(Delivery {
            topic: &topic,
            payload: &publish.payload,
            repeated: publish.retain || publish.dup,
            now: self.settings.clock.now(),
        });
        self.counts.send_replace(self.gate.counts());
        match verdict {
            Verdict::Ignored => return,
            Verdict::Refused { reason, ack } => {
                tracing::warn!(%topic, "order refused: {reason}");
                if let Some(ack) = ack {
                    self.push_ack(&ack);
                }
                return;
            }
            Verdict::ForRig(..) | Verdict::JournalAck { .. } | Verdict::Beacon(_) => {}
        }
        self.store_guard().await;
        match verdict {
            Verdict::ForRig(rig, order) => {
                if let Some(inbox) = self.inboxes.get(&rig)
                    && let Err(error) = inbox.try_send(order)
                {
                    tracing::error!(%rig, "order dropped, the controller repeats it: {error}");
                }
            }
            Verdict::JournalAck { journal, seq } => {
                // One about a journal that was lost says nothing of this one's rows.
                if journal == self.journal.id()
                    && self.state.acknowledged(seq, Instant::now())
                    && let Err(error) = self.journal.forget_up_to(seq).await
                {
                    tracing::error!("acknowledged rows stay: {error}");
                }
            }
            Verdict::Beacon(at) => tracing::debug!(%at, "the controller lives"),
            Verdict::Ignored | Verdict::Refused { .. } => {}
        }
    }

    /// Before an order is carried out, so that it cannot be replayed after a crash.
    async fn store_guard(&self) {
        let stored = match serde_json::to_vec(self.gate.guard()) {
            Ok(bytes) => {
                self.journal.put(GUARD_KEY, bytes).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = stored {
            // Obeyed all the same: an agent with a broken disk must still be able to curtail.
            tracing::error!("the counter of seen orders is not stored: {error}");
        }
    }

    fn take_report(&mut self, report: FromRig) {
        match report {
            FromRig::State(report) => match serde_json::to_vec(report.as_ref()) {
                Ok(body) => self.state.set_state(report.rig, body),
                Err(error) => tracing::error!("a state report cannot be written: {error}"),
            },
            FromRig::Ack(ack) => self.push_ack(&ack),
        }
    }

    fn push_ack(&mut self, ack: &Ack) {
        match serde_json::to_vec(ack) {
            Ok(body) => self.state.push_ack(ack.rig.clone(), body),
            Err(error) => tracing::error!("an answer cannot be written: {error}"),
        }
    }

    /// Hands over to the client what is due and what it has room for.
    async fn pump(&mut self) {
        self.full = false;
        let now = Instant::now();
        if self.state.rewind_if_stuck(now) {
            tracing::debug!("journal rows are sent again: no acknowledgement came");
        }
        while let Some(message) = self.state.next(now) {
            if !self.publish(&message.topic, message.retain, message.body.clone()) {
                return;
            }
            self.state.sent(&message, now);
        }
        while let Some((after, room)) = self.state.wanted_rows() {
            let rows = match self.journal.rows_after(after, room).await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::error!("journal rows cannot be sent: {error}");
                    return;
                }
            };
            if rows.is_empty() {
                return;
            }
            for row in rows {
                let topic = topics::rig(&self.settings.farm, &row.rig, row.class.leaf());
                if !self.publish(&topic, false, row.body) {
                    return;
                }
                self.state.row_sent(row.seq, now);
            }
        }
    }

    /// False when the client has no room, or is gone.
    fn publish(&mut self, topic: &str, retain: bool, body: Vec<u8>) -> bool {
        let Some(client) = &self.client else { return false };
        let taken = client.try_publish(topic, QoS::AtLeastOnce, retain, body).is_ok();
        self.full = !taken;
        taken
    }

    fn say_goodbye(&mut self) {
        if self.state.is_up() {
            let topic = topics::agent_will(&self.settings.farm, &self.settings.agent);
            self.publish(&topic, true, options::presence(false));
        }
        self.hang_up();
    }

    fn hang_up(&self) {
        if let Some(client) = &self.client
            && let Err(error) = client.try_disconnect()
        {
            tracing::debug!("no goodbye: {error}");
        }
    }
}

/// Connects, polls and connects again. Never publishes, so it is never stuck in its own queue.
async fn poll(settings: LinkSettings, packets: mpsc::Sender<FromBroker>, ended: CancellationToken) {
    let mut failures: u32 = 0;
    while !ended.is_cancelled() {
        let began = Instant::now();
        match options::fresh(&settings) {
            Ok(options) => {
                let (client, events) = AsyncClient::new(options, CLIENT_QUEUE_MAX);
                if packets.send(FromBroker::Client(client)).await.is_err() {
                    return;
                }
                let reason = poll_connection(events, &packets, &ended).await;
                if ended.is_cancelled() || packets.send(FromBroker::Lost).await.is_err() {
                    return;
                }
                tracing::warn!("the link is down: {reason}");
            }
            Err(error) => tracing::error!("no login token: {error}"),
        }
        failures = if began.elapsed() >= GOOD_AFTER { 1 } else { failures.saturating_add(1) };
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(backoff(failures, jitter())) => {}
        }
    }
}

/// Polls one connection to its end and says why it ended.
async fn poll_connection(
    mut events: EventLoop,
    packets: &mpsc::Sender<FromBroker>,
    ended: &CancellationToken,
) -> String {
    let mut connected = false;
    loop {
        let event = tokio::select! {
            event = events.poll() => event,
            // Before it is connected there is nobody to say goodbye to.
            () = ended.cancelled(), if !connected => return "closed".into(),
        };
        let packet = match event {
            Ok(Event::Incoming(packet)) => packet,
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return "closed".into(),
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => return options::explain(&error),
        };
        let told = match packet {
            Packet::ConnAck(_) => {
                connected = true;
                FromBroker::Connected
            }
            Packet::SubAck(answer) => FromBroker::Granted(
                answer
                    .return_codes
                    .iter()
                    .map(|code| matches!(code, SubscribeReasonCode::Success(_)))
                    .collect(),
            ),
            Packet::Publish(publish) => FromBroker::Message(publish),
            Packet::Disconnect(goodbye) => {
                return format!("the broker closed the connection: {:?}", goodbye.reason_code);
            }
            _ => continue,
        };
        if packets.send(told).await.is_err() {
            return "closed".into();
        }
    }
}

/// The wait before attempt number `failures` + 1: half fixed, half by `jitter` in 0..=255.
fn backoff(failures: u32, jitter: u8) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let whole = doubled.min(BACKOFF_MAX);
    whole / 2 + whole * u32::from(jitter) / 512
}

fn jitter() -> u8 {
    let mut byte = [0];
    // Without entropy every agent waits alike, which is a nuisance and no fault.
    getrandom::fill(&mut byte).map_or(128, |()| byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert_eq!(backoff(1, 0), BACKOFF_FIRST / 2);
        assert!(backoff(3, 0) > backoff(2, 0));
        assert!(backoff(1, 255) <= BACKOFF_FIRST);
        assert!(backoff(u32::MAX, 255) <= BACKOFF_MAX);
    }
}
