//! Where messages go: `roadbed/1/<farm>/…`. One place, so that the broker's ACL and both ends agree.

use crate::ids::{AgentId, FarmId, GroupId, RigId};

/// Prefix of every topic; the number is the major version of the wire.
pub const PREFIX: &str = "roadbed/1";

/// The last part of a rig's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RigLeaf {
    /// Signed assignment, retained, controller to rig.
    Assignment,
    /// Signed command, controller to rig.
    Command,
    /// Retained state report, rig to controller.
    State,
    /// Telemetry batch, rig to controller.
    Telemetry,
    /// Journalled event, rig to controller.
    Event,
    /// Answer to an assignment or command, rig to controller.
    Ack,
}

impl RigLeaf {
    /// Every leaf.
    pub const ALL: [Self; 6] =
        [Self::Assignment, Self::Command, Self::State, Self::Telemetry, Self::Event, Self::Ack];

    /// The word in the topic.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Assignment => "assignment",
            Self::Command => "command",
            Self::State => "state",
            Self::Telemetry => "telemetry",
            Self::Event => "event",
            Self::Ack => "ack",
        }
    }

    /// True for what the rig's agent may publish; the rest it may only subscribe.
    #[must_use]
    pub const fn is_from_rig(self) -> bool {
        match self {
            Self::State | Self::Telemetry | Self::Event | Self::Ack => true,
            Self::Assignment | Self::Command => false,
        }
    }
}

/// `roadbed/1/<farm>/rig/<rig>/<leaf>`
#[must_use]
pub fn rig(farm: &FarmId, rig: &RigId, leaf: RigLeaf) -> String {
    format!("{PREFIX}/{farm}/rig/{rig}/{}", leaf.word())
}

/// `roadbed/1/<farm>/agent/<agent>/will`: the last will, `{"online":false}`, or `{"online":true}` after connecting.
#[must_use]
pub fn agent_will(farm: &FarmId, agent: &AgentId) -> String {
    format!("{PREFIX}/{farm}/agent/{agent}/will")
}

/// `roadbed/1/<farm>/agent/<agent>/command`: signed commands to the agent itself, as journal acknowledgements.
#[must_use]
pub fn agent_command(farm: &FarmId, agent: &AgentId) -> String {
    format!("{PREFIX}/{farm}/agent/{agent}/command")
}

/// `roadbed/1/<farm>/group/<group>/command`
#[must_use]
pub fn group_command(farm: &FarmId, group: &GroupId) -> String {
    format!("{PREFIX}/{farm}/group/{group}/command")
}

/// A topic of a farm, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// A rig's topic.
    Rig(RigId, RigLeaf),
    /// An agent's last will.
    AgentWill(AgentId),
    /// Commands to an agent.
    AgentCommand(AgentId),
    /// Commands to a group.
    GroupCommand(GroupId),
}

/// Takes a concrete topic apart; `None` for another farm, another version or anything unknown.
#[must_use]
pub fn parse(farm: &FarmId, topic: &str) -> Option<Topic> {
    let rest = topic.strip_prefix(PREFIX)?.strip_prefix('/')?;
    let rest = rest.strip_prefix(farm.as_str())?.strip_prefix('/')?;
    let mut parts = rest.split('/');
    let (class, id, leaf) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    match (class, leaf) {
        ("agent", "will") => AgentId::new(id).ok().map(Topic::AgentWill),
        ("agent", "command") => AgentId::new(id).ok().map(Topic::AgentCommand),
        ("group", "command") => GroupId::new(id).ok().map(Topic::GroupCommand),
        ("rig", word) => {
            let leaf = RigLeaf::ALL.into_iter().find(|leaf| leaf.word() == word)?;
            RigId::new(id).ok().map(|rig| Topic::Rig(rig, leaf))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_parsed() {
        let farm = FarmId::new("west").unwrap();
        let id = RigId::new("gpu-1").unwrap();
        for leaf in RigLeaf::ALL {
            assert_eq!(parse(&farm, &rig(&farm, &id, leaf)), Some(Topic::Rig(id.clone(), leaf)));
        }
        let agent = AgentId::new("box").unwrap();
        assert_eq!(parse(&farm, &agent_will(&farm, &agent)), Some(Topic::AgentWill(agent.clone())));
        assert_eq!(parse(&farm, &agent_command(&farm, &agent)), Some(Topic::AgentCommand(agent)));
    }

    #[test]
    fn strangers_are_nothing() {
        let farm = FarmId::new("west").unwrap();
        for topic in [
            "",
            "roadbed/1/east/rig/a/state",
            "roadbed/2/west/rig/a/state",
            "roadbed/1/west/rig/a/state/x",
            "roadbed/1/west/rig/+/state",
            "roadbed/1/west/rig/a/unknown",
            "roadbed/1/westrig/a/state",
        ] {
            assert_eq!(parse(&farm, topic), None, "{topic}");
        }
    }
}
