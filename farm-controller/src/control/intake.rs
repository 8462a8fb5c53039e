//! What agents say, checked and turned into events of the farm machine. Pure.
//!
//! The broker has checked that the agent may publish on the topic. Here the body must be well-formed and must speak of
//! the rig and agent of that topic: a claim about another rig is dropped, whoever makes it.

use farm_core::FarmEvent;
use roadbed_protocol::topics::{self, RigLeaf, Topic};
use roadbed_protocol::{Ack, AgentId, FarmId, RigEventReport, RigId, StateReport, TelemetryBatch};
use serde::de::DeserializeOwned;

use crate::broker::BrokerEvent;

/// Samples in one batch, as `TelemetryBatch` promises.
const SAMPLES_MAX: usize = 60;

/// Why a message was dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{agent} on {topic}: {reason}")]
pub struct Dropped {
    /// Who sent it.
    pub agent: AgentId,
    /// Where.
    pub topic: String,
    /// What was wrong.
    pub reason: String,
}

/// Reads one event of the broker.
///
/// # Errors
/// [`Dropped`] when the message cannot be believed; nothing else is affected.
pub fn read(farm: &FarmId, event: BrokerEvent) -> Result<Option<FarmEvent>, Dropped> {
    match event {
        BrokerEvent::Connected(agent) => Ok(Some(FarmEvent::Presence { agent, online: true })),
        BrokerEvent::Disconnected(agent) => Ok(Some(FarmEvent::Presence { agent, online: false })),
        BrokerEvent::Published { agent, topic, payload } => {
            body(farm, &agent, &topic, &payload).map_err(|reason| Dropped { agent, topic, reason })
        }
    }
}

fn body(
    farm: &FarmId,
    agent: &AgentId,
    topic: &str,
    payload: &[u8],
) -> Result<Option<FarmEvent>, String> {
    let (rig, leaf) = match topics::parse(farm, topic) {
        Some(Topic::Rig(rig, leaf)) => (rig, leaf),
        // Presence comes from the connection itself, which cannot be forged.
        Some(Topic::AgentWill(_)) => return Ok(None),
        Some(Topic::AgentCommand(_) | Topic::GroupCommand(_)) | None => {
            return Err("nothing is expected there".to_owned());
        }
    };
    match leaf {
        RigLeaf::State => {
            let report: StateReport = parse(payload)?;
            same(&rig, &report.rig)?;
            same(agent, &report.agent)?;
            Ok(Some(FarmEvent::Report(Box::new(report))))
        }
        RigLeaf::Telemetry => {
            let batch: TelemetryBatch = parse(payload)?;
            same(&rig, &batch.rig)?;
            same(agent, &batch.agent)?;
            if batch.samples.len() > SAMPLES_MAX {
                return Err(format!("{} samples, at most {SAMPLES_MAX}", batch.samples.len()));
            }
            Ok(Some(FarmEvent::Telemetry(batch)))
        }
        RigLeaf::Event => {
            let event: RigEventReport = parse(payload)?;
            same(&rig, &event.rig)?;
            same(agent, &event.agent)?;
            Ok(Some(FarmEvent::Happened(event)))
        }
        RigLeaf::Ack => {
            let ack: Ack = parse(payload)?;
            same::<RigId>(&rig, &ack.rig)?;
            Ok(Some(FarmEvent::Acked(ack)))
        }
        RigLeaf::Assignment | RigLeaf::Command => Err("only the controller speaks there".into()),
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

fn same<T: PartialEq + std::fmt::Display>(topic: &T, body: &T) -> Result<(), String> {
    if topic == body { Ok(()) } else { Err(format!("speaks of {body}, not of {topic}")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roadbed_protocol::AckStatus;

    use super::*;

    fn farm() -> FarmId {
        FarmId::new("west").unwrap()
    }

    fn published(topic: &str, payload: &[u8]) -> BrokerEvent {
        BrokerEvent::Published {
            agent: AgentId::new("box").unwrap(),
            topic: topic.to_owned(),
            payload: payload.to_vec(),
        }
    }

    fn ack(rig: &str) -> Ack {
        Ack {
            rig: RigId::new(rig).unwrap(),
            envelope: "controller-1".into(),
            generation: Some(1),
            status: AckStatus::Accepted,
            reason: String::new(),
        }
    }

    #[test]
    fn an_ack_is_read() {
        let payload = serde_json::to_vec(&ack("asic-1")).unwrap();
        let event = published("roadbed/1/west/rig/asic-1/ack", &payload);
        assert_eq!(read(&farm(), event), Ok(Some(FarmEvent::Acked(ack("asic-1")))));
    }

    #[test]
    fn a_claim_about_another_rig_is_dropped() {
        let payload = serde_json::to_vec(&ack("asic-2")).unwrap();
        let event = published("roadbed/1/west/rig/asic-1/ack", &payload);
        let dropped = read(&farm(), event).unwrap_err();
        assert_eq!(dropped.reason, "speaks of asic-2, not of asic-1");
    }

    #[test]
    fn presence_is_the_connection_not_the_will() {
        let will = published("roadbed/1/west/agent/box/will", br#"{"online":true}"#);
        assert_eq!(read(&farm(), will), Ok(None));
    }

    proptest! {
        #[test]
        fn noise_is_dropped(leaf in 0_usize..6, noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let topic = format!("roadbed/1/west/rig/asic-1/{}", RigLeaf::ALL[leaf].word());
            prop_assert!(read(&farm(), published(&topic, &noise)).is_err());
        }
    }
}
