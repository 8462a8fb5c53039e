//! What the link knows and what is due next. No socket, no clock: times and packets come in, messages go out.
//!
//! A message is offered by [`LinkState::next`] and stays due until [`LinkState::sent`] says that the client took it, so
//! a full client queue delays and never loses. Journal rows go out in order within a window; a window that stays
//! unacknowledged is sent again from its beginning.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use roadbed_protocol::topics::{self, RigLeaf};
use roadbed_protocol::{AgentId, FarmId, RigId};

/// Journal rows sent and not acknowledged by the controller. One commit of the controller's store takes as many.
pub const WINDOW_MAX: usize = 32;
/// An unacknowledged window is sent again after this long: several commits of a busy store.
pub const RESEND_AFTER: Duration = Duration::from_secs(5);
/// Least time between two state reports of a rig. The broker syncs a disk for each retained message.
pub const STATE_SPACING: Duration = Duration::from_secs(1);
/// Answers that wait while the broker is away; older ones go first, the controller asks again.
const ACKS_MAX: usize = 256;

/// Whether messages can flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Subscribing,
    Up,
}

/// Which of the due messages it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    Presence,
    Ack,
    State(RigId),
}

/// A message that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub body: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
    due: Due,
}

/// Newest state of a rig.
#[derive(Default)]
struct StateSlot {
    body: Vec<u8>,
    dirty: bool,
    sent_at: Option<Instant>,
}

/// The link's memory.
pub struct LinkState {
    farm: FarmId,
    agent: AgentId,
    rigs: BTreeSet<RigId>,
    online: Vec<u8>,
    phase: Phase,
    presence_due: bool,
    states: BTreeMap<RigId, StateSlot>,
    acks: VecDeque<(RigId, Vec<u8>)>,
    /// Highest row the controller has, as far as we know.
    acknowledged: u64,
    /// Rows sent since, oldest first.
    in_flight: VecDeque<u64>,
    /// Highest row ever sent in this life; an acknowledgement beyond it is about another journal.
    highest_sent: u64,
    /// When the window last moved.
    moved_at: Option<Instant>,
}

impl LinkState {
    /// A link that is down. `online` is the body of the presence message.
    #[must_use]
    pub fn new(farm: FarmId, agent: AgentId, rigs: BTreeSet<RigId>, online: Vec<u8>) -> Self {
        Self {
            farm,
            agent,
            rigs,
            online,
            phase: Phase::Down,
            presence_due: false,
            states: BTreeMap::new(),
            acks: VecDeque::new(),
            acknowledged: 0,
            in_flight: VecDeque::new(),
            highest_sent: 0,
            moved_at: None,
        }
    }

    /// The broker took the login. Gives the topics to subscribe; nothing is sent before they are granted, or an answer
    /// to what we say could pass us by.
    pub fn connected(&mut self) -> Vec<String> {
        self.phase = Phase::Subscribing;
        let mut filters = vec![topics::agent_command(&self.farm, &self.agent)];
        for rig in &self.rigs {
            filters.push(topics::rig(&self.farm, rig, RigLeaf::Assignment));
            filters.push(topics::rig(&self.farm, rig, RigLeaf::Command));
        }
        filters
    }

    /// The broker answered the subscription, one answer a topic. True when all are granted and the link is up; else the
    /// connection is of no use.
    pub fn subscribed(&mut self, granted: &[bool]) -> bool {
        let all = granted.len() == 1 + 2 * self.rigs.len() && granted.iter().all(|yes| *yes);
        if all && self.phase == Phase::Subscribing {
            self.phase = Phase::Up;
            self.presence_due = true;
            self.rewind();
            for slot in self.states.values_mut() {
                slot.dirty = true;
                slot.sent_at = None;
            }
        }
        all
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Down;
    }

    /// True while orders can arrive and messages leave.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// A rig's newest state; replaces one that waits.
    pub fn set_state(&mut self, rig: RigId, body: Vec<u8>) {
        let slot = self.states.entry(rig).or_default();
        slot.body = body;
        slot.dirty = true;
    }

    /// An answer to an order.
    pub fn push_ack(&mut self, rig: RigId, body: Vec<u8>) {
        if self.acks.len() == ACKS_MAX {
            self.acks.pop_front();
        }
        self.acks.push_back((rig, body));
    }

    /// The message that is due now, if any.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Outgoing> {
        if !self.is_up() {
            return None;
        }
        if self.presence_due {
            return Some(Outgoing {
                topic: topics::agent_will(&self.farm, &self.agent),
                body: self.online.clone(),
                retain: true,
                due: Due::Presence,
            });
        }
        if let Some((rig, body)) = self.acks.front() {
            return Some(Outgoing {
                topic: topics::rig(&self.farm, rig, RigLeaf::Ack),
                body: body.clone(),
                retain: false,
                due: Due::Ack,
            });
        }
        let (rig, slot) = self
            .states
            .iter()
            .find(|(_, slot)| slot.dirty && slot.due_at().is_none_or(|at| at <= now))?;
        Some(Outgoing {
            topic: topics::rig(&self.farm, rig, RigLeaf::State),
            body: slot.body.clone(),
            retain: true,
            due: Due::State(rig.clone()),
        })
    }

    /// The client took the message that [`LinkState::next`] gave.
    pub fn sent(&mut self, message: &Outgoing, now: Instant) {
        match &message.due {
            Due::Presence => self.presence_due = false,
            Due::Ack => {
                self.acks.pop_front();
            }
            Due::State(rig) => {
                if let Some(slot) = self.states.get_mut(rig) {
                    slot.dirty = false;
                    slot.sent_at = Some(now);
                }
            }
        }
    }

    /// Which journal rows are wanted: those after the first number, at most the second. `None` while the window is full.
    #[must_use]
    pub fn wanted_rows(&self) -> Option<(u64, usize)> {
        let room = WINDOW_MAX.saturating_sub(self.in_flight.len());
        let after = self.in_flight.back().copied().unwrap_or(self.acknowledged);
        (self.is_up() && room > 0).then_some((after, room))
    }

    /// The client took a row.
    pub fn row_sent(&mut self, seq: u64, now: Instant) {
        if self.in_flight.is_empty() {
            self.moved_at = Some(now);
        }
        self.in_flight.push_back(seq);
        self.highest_sent = self.highest_sent.max(seq);
    }

    /// The controller stored every row up to `seq`. True when they may be forgotten; an acknowledgement of rows that
    /// were never sent in this life is about another journal or another time.
    pub fn acknowledged(&mut self, seq: u64, now: Instant) -> bool {
        if seq > self.highest_sent || seq <= self.acknowledged {
            return false;
        }
        self.acknowledged = seq;
        while self.in_flight.front().is_some_and(|first| *first <= seq) {
            self.in_flight.pop_front();
        }
        self.moved_at = Some(now);
        true
    }

    /// Starts the window again if nothing was acknowledged for too long. True when it did.
    pub fn rewind_if_stuck(&mut self, now: Instant) -> bool {
        let stuck = self.resend_at().is_some_and(|at| at <= now);
        if stuck {
            self.rewind();
        }
        stuck
    }

    /// When to look again although nothing happened.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        if !self.is_up() {
            return None;
        }
        let states = self.states.values().filter(|slot| slot.dirty).filter_map(StateSlot::due_at);
        states.chain(self.resend_at()).min()
    }

    fn resend_at(&self) -> Option<Instant> {
        if self.in_flight.is_empty() { None } else { self.moved_at.map(|at| at + RESEND_AFTER) }
    }

    fn rewind(&mut self) {
        self.in_flight.clear();
        self.moved_at = None;
    }
}

impl StateSlot {
    fn due_at(&self) -> Option<Instant> {
        self.sent_at.map(|at| at + STATE_SPACING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rig() -> RigId {
        RigId::new("a").unwrap()
    }

    fn link() -> LinkState {
        LinkState::new(
            FarmId::new("west").unwrap(),
            AgentId::new("box").unwrap(),
            [rig()].into(),
            b"on".to_vec(),
        )
    }

    fn up() -> (LinkState, Instant) {
        let (mut link, now) = (link(), Instant::now());
        assert_eq!(link.connected().len(), 3);
        assert!(link.subscribed(&[true; 3]));
        (link, now)
    }

    fn drain(link: &mut LinkState, now: Instant) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        while let Some(message) = link.next(now) {
            link.sent(&message, now);
            bodies.push(message.body);
        }
        bodies
    }

    #[test]
    fn nothing_is_said_before_every_topic_is_granted() {
        let (mut link, now) = (link(), Instant::now());
        link.set_state(rig(), b"s".to_vec());
        assert_eq!(link.next(now), None);
        link.connected();
        assert_eq!((link.next(now), link.wanted_rows()), (None, None));
        assert!(!link.subscribed(&[true, false, true]));
        assert!(!link.subscribed(&[true]));
        assert!(!link.is_up());
        assert!(link.subscribed(&[true; 3]));
        assert_eq!(drain(&mut link, now), [b"on".to_vec(), b"s".to_vec()]);
    }

    #[test]
    fn states_are_newest_only_and_spaced() {
        let (mut link, now) = up();
        link.set_state(rig(), b"1".to_vec());
        assert_eq!(drain(&mut link, now), [b"on".to_vec(), b"1".to_vec()]);
        link.set_state(rig(), b"2".to_vec());
        link.set_state(rig(), b"3".to_vec());
        assert_eq!(link.next(now), None);
        assert_eq!(link.wake_at(), Some(now + STATE_SPACING));
        assert_eq!(drain(&mut link, now + STATE_SPACING), [b"3".to_vec()]);
        link.disconnected();
        link.connected();
        link.subscribed(&[true; 3]);
        assert_eq!(drain(&mut link, now), [b"on".to_vec(), b"3".to_vec()], "said again");
    }

    #[test]
    fn rows_flow_in_a_window_and_again_after_silence() {
        let (mut link, now) = up();
        assert_eq!(link.wanted_rows(), Some((0, WINDOW_MAX)));
        for seq in 1..=WINDOW_MAX as u64 {
            link.row_sent(seq, now);
        }
        assert_eq!(link.wanted_rows(), None, "the window is full");
        assert!(link.acknowledged(2, now));
        assert_eq!(link.wanted_rows(), Some((32, 2)));
        assert!(!link.rewind_if_stuck(now));
        assert!(link.rewind_if_stuck(now + RESEND_AFTER));
        assert_eq!(link.wanted_rows(), Some((2, WINDOW_MAX)), "from what is not acknowledged");
    }

    #[test]
    fn strange_acknowledgements_are_nothing() {
        let (mut link, now) = up();
        link.row_sent(5, now);
        link.row_sent(6, now);
        assert!(!link.acknowledged(500, now), "never sent");
        assert!(link.acknowledged(6, now));
        assert!(!link.acknowledged(5, now), "older");
        assert_eq!(link.wanted_rows(), Some((6, WINDOW_MAX)));
    }

    #[test]
    fn answers_are_bounded() {
        let (mut link, now) = up();
        for index in 0..ACKS_MAX + 5 {
            link.push_ack(rig(), index.to_string().into_bytes());
        }
        let said = drain(&mut link, now);
        assert_eq!(said.len(), 1 + ACKS_MAX);
        assert_eq!(said[1], b"5");
    }
}
