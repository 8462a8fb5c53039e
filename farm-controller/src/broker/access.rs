//! Who may say and hear what. Pure: exact topics, no wildcard is ever granted.
//!
//! An agent publishes state, telemetry, event and ack of its own rigs and its own last will; it subscribes to the
//! assignments and commands of its own rigs and to its own commands. Everything else is refused, `$share/…`, `#` and `+`
//! included, because the embedded broker hands filters over raw.

use std::collections::{BTreeMap, BTreeSet};

use roadbed_protocol::topics::{self, RigLeaf, Topic};
use roadbed_protocol::{AgentId, FarmId, RigId, UnixMillis, login};

/// One agent's key and rigs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAccess {
    /// Its public ed25519 key.
    pub key: [u8; 32],
    /// The rigs it hosts.
    pub rigs: BTreeSet<RigId>,
}

/// Every agent of the farm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster(BTreeMap<AgentId, AgentAccess>);

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client id is no agent's, or not the user's.
    #[error("client id is not the agent's id")]
    ClientId,
    /// No password, a wrong one or an old one.
    #[error("{0}")]
    Credentials(String),
    /// The last will is on a topic that is not the agent's own.
    #[error("the last will is not on the agent's own topic")]
    Will,
}

/// What a client says when it connects.
#[derive(Debug, Clone, Copy)]
pub struct Knock<'a> {
    /// MQTT client id.
    pub client_id: &'a str,
    /// MQTT user name.
    pub user: Option<&'a str>,
    /// MQTT password: a login token.
    pub password: Option<&'a [u8]>,
    /// Topic of the last will, if there is one.
    pub will_topic: Option<&'a str>,
    /// Wall clock.
    pub now: UnixMillis,
}

impl Roster {
    /// Adds or replaces an agent.
    pub fn insert(&mut self, agent: AgentId, access: AgentAccess) {
        self.0.insert(agent, access);
    }

    /// Number of agents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when nobody may log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of rigs of all agents.
    #[must_use]
    pub fn rigs(&self) -> usize {
        self.0.values().map(|access| access.rigs.len()).sum()
    }

    /// Checks a login.
    ///
    /// # Errors
    /// [`Refusal`], which says what was wrong.
    pub fn admit(&self, farm: &FarmId, knock: Knock<'_>) -> Result<AgentId, Refusal> {
        let agent = AgentId::new(knock.client_id).map_err(|_| Refusal::ClientId)?;
        if knock.user != Some(knock.client_id) {
            return Err(Refusal::ClientId);
        }
        let access = self.0.get(&agent).ok_or(Refusal::ClientId)?;
        let password =
            knock.password.ok_or_else(|| Refusal::Credentials("no login token".to_owned()))?;
        login::verify(password, &access.key, &agent, farm, knock.now)
            .map_err(|error| Refusal::Credentials(error.to_string()))?;
        if knock.will_topic.is_some_and(|will| will != topics::agent_will(farm, &agent)) {
            return Err(Refusal::Will);
        }
        Ok(agent)
    }

    /// True when the agent may publish there.
    #[must_use]
    pub fn may_publish(&self, farm: &FarmId, agent: &str, topic: &str) -> bool {
        self.allows(farm, agent, topic, true)
    }

    /// True when the agent may subscribe to exactly that.
    #[must_use]
    pub fn may_subscribe(&self, farm: &FarmId, agent: &str, filter: &str) -> bool {
        self.allows(farm, agent, filter, false)
    }

    fn allows(&self, farm: &FarmId, agent: &str, topic: &str, publish: bool) -> bool {
        let Ok(agent) = AgentId::new(agent) else {
            return false;
        };
        let Some(access) = self.0.get(&agent) else {
            return false;
        };
        match topics::parse(farm, topic) {
            Some(Topic::Rig(rig, leaf)) => access.rigs.contains(&rig) && grants(leaf, publish),
            Some(Topic::AgentWill(whose)) => publish && whose == agent,
            Some(Topic::AgentCommand(whose)) => !publish && whose == agent,
            Some(Topic::GroupCommand(_)) | None => false,
        }
    }
}

fn grants(leaf: RigLeaf, publish: bool) -> bool {
    leaf.is_from_rig() == publish
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadbed_protocol::Millis;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn farm() -> FarmId {
        FarmId::new("west").unwrap()
    }

    fn roster() -> Roster {
        let mut roster = Roster::default();
        for (agent, rig, secret) in [("box-a", "asic-1", 1_u8), ("box-b", "asic-2", 2)] {
            roster.insert(
                AgentId::new(agent).unwrap(),
                AgentAccess {
                    key: login::public_key(&[secret; 32]),
                    rigs: BTreeSet::from([RigId::new(rig).unwrap()]),
                },
            );
        }
        roster
    }

    fn token(agent: &str, secret: u8) -> String {
        let agent = AgentId::new(agent).unwrap();
        login::sign(&[secret; 32], &agent, &farm(), NOW, Millis::from_mins(2)).unwrap()
    }

    fn knock<'a>(client_id: &'a str, user: &'a str, token: &'a str) -> Knock<'a> {
        Knock {
            client_id,
            user: Some(user),
            password: Some(token.as_bytes()),
            will_topic: None,
            now: NOW,
        }
    }

    #[test]
    fn only_the_agent_itself_gets_in() {
        let (roster, farm) = (roster(), farm());
        let (a, b) = (token("box-a", 1), token("box-b", 2));
        assert!(roster.admit(&farm, knock("box-a", "box-a", &a)).is_ok());
        assert_eq!(roster.admit(&farm, knock("box-a", "box-b", &b)), Err(Refusal::ClientId));
        assert_eq!(roster.admit(&farm, knock("nobody", "nobody", &a)), Err(Refusal::ClientId));
        for bad in ["", "x", &b, &token("box-a", 2)] {
            assert!(matches!(
                roster.admit(&farm, knock("box-a", "box-a", bad)),
                Err(Refusal::Credentials(_))
            ));
        }
        let silent = Knock { password: None, ..knock("box-a", "box-a", &a) };
        assert!(matches!(roster.admit(&farm, silent), Err(Refusal::Credentials(_))));
    }

    #[test]
    fn a_will_cannot_speak_for_others() {
        let (roster, farm, token) = (roster(), farm(), token("box-a", 1));
        let with = |will| Knock { will_topic: Some(will), ..knock("box-a", "box-a", &token) };
        assert!(roster.admit(&farm, with("roadbed/1/west/agent/box-a/will")).is_ok());
        for will in ["roadbed/1/west/rig/asic-2/command", "roadbed/1/west/agent/box-b/will", "#"] {
            assert_eq!(roster.admit(&farm, with(will)), Err(Refusal::Will), "{will}");
        }
    }

    #[test]
    fn every_topic_of_another_is_refused() {
        let (roster, farm) = (roster(), farm());
        for leaf in RigLeaf::ALL {
            let own = topics::rig(&farm, &RigId::new("asic-1").unwrap(), leaf);
            let other = topics::rig(&farm, &RigId::new("asic-2").unwrap(), leaf);
            assert_eq!(roster.may_publish(&farm, "box-a", &own), leaf.is_from_rig(), "{own}");
            assert_eq!(roster.may_subscribe(&farm, "box-a", &own), !leaf.is_from_rig(), "{own}");
            assert!(!roster.may_publish(&farm, "box-a", &other), "{other}");
            assert!(!roster.may_subscribe(&farm, "box-a", &other), "{other}");
        }
    }

    #[test]
    fn no_wildcard_is_granted() {
        let (roster, farm) = (roster(), farm());
        for filter in [
            "#",
            "+/#",
            "roadbed/1/west/#",
            "roadbed/1/west/rig/+/command",
            "roadbed/1/west/rig/asic-1/#",
            "roadbed/1/west/rig/asic-1/+",
            "$share/g/roadbed/1/west/rig/asic-1/command",
            "$SYS/#",
            "roadbed/1/west/group/all/command",
        ] {
            assert!(!roster.may_subscribe(&farm, "box-a", filter), "{filter}");
        }
    }
}
