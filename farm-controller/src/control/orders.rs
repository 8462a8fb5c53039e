//! Orders to agents: signed, addressed, published. Nothing else in the controller holds the key.

use roadbed_protocol::envelope::{Address, TYP_ASSIGNMENT, TYP_COMMAND};
use roadbed_protocol::topics::{self, RigLeaf};
use roadbed_protocol::{
    AgentId, Assignment, Command, EnvelopeError, FarmId, Millis, RigId, Signer, UnixMillis,
};
use serde::Serialize;

use crate::broker::Message;

/// How long a command may lie with the broker before the rig must refuse it.
const COMMAND_VALID: Millis = Millis::from_mins(60);

/// The controller's pen.
pub struct Orders {
    farm: FarmId,
    signer: Signer,
}

impl Orders {
    /// A pen with the controller's key.
    #[must_use]
    pub fn new(farm: FarmId, signer: Signer) -> Self {
        Self { farm, signer }
    }

    /// Last counter used.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.signer.seq()
    }

    /// An assignment, retained, valid as long as its lease: what the broker keeps after that is refused by the rig.
    ///
    /// # Errors
    /// [`EnvelopeError::Body`] when it cannot be written, which does not happen for a valid assignment.
    pub fn assign(
        &mut self,
        now: UnixMillis,
        assignment: &Assignment,
    ) -> Result<Message, EnvelopeError> {
        let to = assignment.rig.as_str();
        let topic = topics::rig(&self.farm, &assignment.rig, RigLeaf::Assignment);
        let valid = assignment.lease_until.since(now);
        self.seal(TYP_ASSIGNMENT, to, now, valid, topic, true, assignment)
    }

    /// A command to a rig.
    ///
    /// # Errors
    /// As [`Orders::assign`].
    pub fn command_rig(
        &mut self,
        now: UnixMillis,
        rig: &RigId,
        command: &Command,
    ) -> Result<Message, EnvelopeError> {
        let topic = topics::rig(&self.farm, rig, RigLeaf::Command);
        self.seal(TYP_COMMAND, rig.as_str(), now, COMMAND_VALID, topic, false, command)
    }

    /// A command to an agent.
    ///
    /// # Errors
    /// As [`Orders::assign`].
    pub fn command_agent(
        &mut self,
        now: UnixMillis,
        agent: &AgentId,
        command: &Command,
    ) -> Result<Message, EnvelopeError> {
        let topic = topics::agent_command(&self.farm, agent);
        self.seal(TYP_COMMAND, agent.as_str(), now, COMMAND_VALID, topic, false, command)
    }

    #[expect(clippy::too_many_arguments, reason = "the three callers above give them names")]
    fn seal<T: Serialize>(
        &mut self,
        typ: &str,
        to: &str,
        now: UnixMillis,
        valid: Millis,
        topic: String,
        retain: bool,
        body: &T,
    ) -> Result<Message, EnvelopeError> {
        let address = Address { typ, farm: &self.farm, to, now, valid };
        let (_, payload) = self.signer.seal(address, body)?;
        Ok(Message { topic, payload, retain })
    }
}
