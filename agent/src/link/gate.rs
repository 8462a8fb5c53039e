//! Which orders are believed: the signature, the address, the time and the counter are checked before anything else.
//!
//! The broker and its retained store are untrusted transport. An order that was seen before is not refused but passed
//! over in silence when the transport is known to repeat it (retained, marked as duplicate, or the latest one again),
//! because a refusal would tell the controller that the order itself was bad.

use std::collections::BTreeSet;

use roadbed_protocol::envelope::{Expected, TYP_ASSIGNMENT, TYP_COMMAND};
use roadbed_protocol::topics::{self, RigLeaf, Topic};
use roadbed_protocol::{
    Ack, AckStatus, AgentId, Assignment, Command, Envelope, EnvelopeError, FarmId, OpenedEnvelope,
    ReplayGuard, RigId, TrustedKeys, UnixMillis,
};

use super::RigOrder;

/// Longest envelope name that is repeated in an answer; ours are far shorter, and a forged one is not trusted with more.
const ENVELOPE_NAME_MAX: usize = 80;

/// How many orders came, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateCounts {
    /// Believed.
    pub accepted: u64,
    /// Repeated by the transport and passed over.
    pub duplicates: u64,
    /// Refused.
    pub refused: u64,
}

/// A message from the broker.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// The broker sent it from its retained store, or marked it as sent before.
    pub repeated: bool,
    /// Farm time.
    pub now: UnixMillis,
}

/// What a message turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// For a rig of this agent.
    ForRig(RigId, RigOrder),
    /// The controller stored every row of a journal up to a number.
    JournalAck {
        /// Which journal.
        journal: String,
        /// The number.
        seq: u64,
    },
    /// The controller lives; its farm time.
    Beacon(UnixMillis),
    /// Known already, or nothing at all.
    Ignored,
    /// Not obeyed.
    Refused {
        /// Why, for people.
        reason: String,
        /// The answer, where a rig of ours was meant.
        ack: Option<Ack>,
    },
}

/// Decides which orders are believed.
pub struct OrderGate {
    farm: FarmId,
    agent: AgentId,
    rigs: BTreeSet<RigId>,
    keys: TrustedKeys,
    guard: ReplayGuard,
    counts: GateCounts,
}

impl OrderGate {
    /// A gate for one agent; `guard` is what was seen before the restart.
    #[must_use]
    pub fn new(
        farm: FarmId,
        agent: AgentId,
        rigs: BTreeSet<RigId>,
        keys: TrustedKeys,
        guard: ReplayGuard,
    ) -> Self {
        Self { farm, agent, rigs, keys, guard, counts: GateCounts::default() }
    }

    /// Judges one message.
    pub fn judge(&mut self, delivery: Delivery<'_>) -> Verdict {
        if delivery.payload.is_empty() {
            // How a retained topic is cleared.
            return Verdict::Ignored;
        }
        let verdict = match topics::parse(&self.farm, delivery.topic) {
            Some(Topic::Rig(rig, RigLeaf::Assignment)) if self.rigs.contains(&rig) => {
                self.assignment(rig, delivery)
            }
            Some(Topic::Rig(rig, RigLeaf::Command)) if self.rigs.contains(&rig) => {
                self.rig_command(rig, delivery)
            }
            Some(Topic::AgentCommand(agent)) if agent == self.agent => self.agent_command(delivery),
            Some(
                Topic::Rig(..)
                | Topic::AgentWill(_)
                | Topic::AgentCommand(_)
                | Topic::GroupCommand(_),
            )
            | None => Err(Refusal::new(format!("nothing is expected on topic {}", delivery.topic))),
        };
        match verdict {
            Ok(Verdict::Ignored) => {
                self.counts.duplicates += 1;
                Verdict::Ignored
            }
            Ok(verdict) => {
                self.counts.accepted += 1;
                verdict
            }
            Err(refusal) => {
                self.counts.refused += 1;
                let envelope = envelope_name(delivery.payload);
                let ack = refusal.rig.zip(envelope).map(|(rig, envelope)| Ack {
                    rig,
                    envelope,
                    generation: None,
                    status: AckStatus::Refused,
                    reason: refusal.reason.clone(),
                });
                Verdict::Refused { reason: refusal.reason, ack }
            }
        }
    }

    /// What was seen, to be stored before the order is carried out.
    #[must_use]
    pub fn guard(&self) -> &ReplayGuard {
        &self.guard
    }

    /// Totals since the start.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        self.counts
    }

    fn assignment(&mut self, rig: RigId, delivery: Delivery<'_>) -> Result<Verdict, Refusal> {
        let Some(opened) = self
            .open::<Assignment>(TYP_ASSIGNMENT, rig.as_str(), delivery)
            .map_err(|error| Refusal::of(&rig, error))?
        else {
            return Ok(Verdict::Ignored);
        };
        let assignment = opened.body;
        if assignment.rig != rig || assignment.farm != self.farm {
            let reason = format!("assignment for {} of farm {}", assignment.rig, assignment.farm);
            return Err(Refusal { reason, rig: Some(rig) });
        }
        Ok(Verdict::ForRig(rig, RigOrder::Assigned { envelope: opened.id, assignment }))
    }

    fn rig_command(&mut self, rig: RigId, delivery: Delivery<'_>) -> Result<Verdict, Refusal> {
        let Some(opened) = self
            .open::<Command>(TYP_COMMAND, rig.as_str(), delivery)
            .map_err(|error| Refusal::of(&rig, error))?
        else {
            return Ok(Verdict::Ignored);
        };
        let envelope = opened.id;
        match opened.body {
            Command::Sync { rig: meant } if meant == rig => {
                Ok(Verdict::ForRig(rig, RigOrder::Sync { envelope }))
            }
            Command::ResetTrip { rig: meant, operator } if meant == rig => {
                Ok(Verdict::ForRig(rig, RigOrder::ResetTrip { envelope, operator }))
            }
            Command::Beacon { at } => Ok(Verdict::Beacon(at)),
            Command::Sync { .. } | Command::ResetTrip { .. } | Command::JournalAck { .. } => {
                Err(Refusal { reason: "the command means another machine".into(), rig: Some(rig) })
            }
        }
    }

    fn agent_command(&mut self, delivery: Delivery<'_>) -> Result<Verdict, Refusal> {
        let agent = self.agent.clone();
        let Some(opened) = self
            .open::<Command>(TYP_COMMAND, agent.as_str(), delivery)
            .map_err(|error| Refusal::new(error.to_string()))?
        else {
            return Ok(Verdict::Ignored);
        };
        match opened.body {
            Command::JournalAck { agent: meant, journal, seq } if meant == self.agent => {
                Ok(Verdict::JournalAck { journal, seq })
            }
            Command::Beacon { at } => Ok(Verdict::Beacon(at)),
            // One message to the host may ask for any of its rigs.
            Command::Sync { rig } if self.rigs.contains(&rig) => {
                Ok(Verdict::ForRig(rig, RigOrder::Sync { envelope: opened.id }))
            }
            Command::JournalAck { .. } | Command::Sync { .. } | Command::ResetTrip { .. } => {
                Err(Refusal::new("the command means another machine".into()))
            }
        }
    }

    /// `None` for an order the transport repeated.
    fn open<T: serde::de::DeserializeOwned>(
        &mut self,
        typ: &str,
        to: &str,
        delivery: Delivery<'_>,
    ) -> Result<Option<OpenedEnvelope<T>>, EnvelopeError> {
        let expected = Expected { typ, farm: &self.farm, to, now: delivery.now };
        match Envelope::open(delivery.payload, &self.keys, expected, &mut self.guard) {
            Ok(opened) => Ok(Some(opened)),
            Err(EnvelopeError::Replayed { seq, seen }) if delivery.repeated || seq == seen => {
                Ok(None)
            }
            // The retained copy of an order whose time is over is history, not an attack.
            Err(EnvelopeError::Expired(_)) if delivery.repeated => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Refusal {
    reason: String,
    rig: Option<RigId>,
}

impl Refusal {
    fn new(reason: String) -> Self {
        Self { reason, rig: None }
    }

    fn of(rig: &RigId, error: EnvelopeError) -> Self {
        Self { reason: error.to_string(), rig: Some(rig.clone()) }
    }
}

/// The name a message claims, for the answer; unverified, so cut short and never acted on.
fn envelope_name(payload: &[u8]) -> Option<String> {
    if payload.len() > roadbed_protocol::envelope::ENVELOPE_BYTES_MAX {
        return None;
    }
    let envelope: Envelope = serde_json::from_slice(payload).ok()?;
    Some(envelope.id.chars().take(ENVELOPE_NAME_MAX).collect())
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::envelope::Address;
    use roadbed_protocol::{Cause, Millis, Signer, Workload};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn farm() -> FarmId {
        FarmId::new("west").unwrap()
    }

    fn rig() -> RigId {
        RigId::new("gpu-1").unwrap()
    }

    fn signer(seed: u8) -> Signer {
        Signer::new("controller", &[seed; 32], 100)
    }

    fn gate() -> OrderGate {
        let mut keys = TrustedKeys::default();
        keys.insert("controller", &signer(1).public_key()).unwrap();
        OrderGate::new(
            farm(),
            AgentId::new("box").unwrap(),
            [rig()].into(),
            keys,
            ReplayGuard::default(),
        )
    }

    fn assignment(generation: u64) -> Assignment {
        Assignment {
            farm: farm(),
            rig: rig(),
            generation,
            workload: Workload::Idle,
            lease_until: NOW + Millis::from_mins(5),
            fallback: Workload::Idle,
            drain: Millis::ZERO,
            cause: Cause::Plan,
            reason: "test".into(),
        }
    }

    fn seal<T: serde::Serialize>(
        signer: &mut Signer,
        farm: &FarmId,
        to: &str,
        body: &T,
    ) -> Vec<u8> {
        let typ = if to == "box" { TYP_COMMAND } else { TYP_ASSIGNMENT };
        let address = Address { typ, farm, to, now: NOW, valid: Millis::from_mins(1) };
        signer.seal(address, body).unwrap().1
    }

    fn deliver(gate: &mut OrderGate, payload: &[u8], repeated: bool, now: UnixMillis) -> Verdict {
        let topic = topics::rig(&farm(), &rig(), RigLeaf::Assignment);
        gate.judge(Delivery { topic: &topic, payload, repeated, now })
    }

    fn refusal(verdict: Verdict) -> (String, Option<Ack>) {
        match verdict {
            Verdict::Refused { reason, ack } => (reason, ack),
            other => panic!("{other:?} was not refused"),
        }
    }

    #[test]
    fn a_good_order_passes_once() {
        let (mut gate, mut signer) = (gate(), signer(1));
        let older = seal(&mut signer, &farm(), "gpu-1", &assignment(1));
        let newer = seal(&mut signer, &farm(), "gpu-1", &assignment(2));
        assert!(matches!(deliver(&mut gate, &newer, false, NOW), Verdict::ForRig(..)));
        assert_eq!(deliver(&mut gate, &newer, false, NOW), Verdict::Ignored);
        assert_eq!(deliver(&mut gate, &older, true, NOW), Verdict::Ignored);
        let (reason, ack) = refusal(deliver(&mut gate, &older, false, NOW));
        assert!(reason.contains("replayed"), "{reason}");
        assert_eq!(ack.unwrap().status, AckStatus::Refused);
        assert_eq!(gate.counts(), GateCounts { accepted: 1, duplicates: 2, refused: 1 });
    }

    #[test]
    fn forged_expired_foreign_and_wild_orders_are_refused() {
        let mut gate = gate();
        let other_farm = FarmId::new("east").unwrap();
        let forged = seal(&mut signer(2), &farm(), "gpu-1", &assignment(1));
        let foreign = seal(&mut signer(1), &other_farm, "gpu-1", &assignment(1));
        let misdirected = seal(&mut signer(1), &farm(), "gpu-2", &assignment(1));
        let late = seal(&mut signer(1), &farm(), "gpu-1", &assignment(1));
        for (payload, now, word) in [
            (forged, NOW, "signature"),
            (foreign, NOW, "farm east"),
            (misdirected, NOW, "gpu-2"),
            (late, NOW + Millis::from_mins(2), "expired"),
            (b"{".to_vec(), NOW, "not an envelope"),
        ] {
            let (reason, _) = refusal(deliver(&mut gate, &payload, false, now));
            assert!(reason.contains(word), "{reason}");
        }
        assert_eq!(gate.counts().refused, 5);
        assert_eq!(gate.guard(), &ReplayGuard::default(), "a refused order leaves no trace");
    }

    #[test]
    fn only_the_own_journal_is_acknowledged() {
        let (mut gate, mut signer) = (gate(), signer(1));
        let topic = topics::agent_command(&farm(), &AgentId::new("box").unwrap());
        let mut deliver = |agent: &str| {
            let body = Command::JournalAck {
                agent: AgentId::new(agent).unwrap(),
                journal: "j".into(),
                seq: 7,
            };
            let payload = seal(&mut signer, &farm(), "box", &body);
            gate.judge(Delivery { topic: &topic, payload: &payload, repeated: false, now: NOW })
        };
        assert_eq!(deliver("box"), Verdict::JournalAck { journal: "j".into(), seq: 7 });
        assert!(matches!(deliver("other"), Verdict::Refused { ack: None, .. }));
    }
}
