//! Which group of nonces is whose in a round of Proof of Compute, and whether the round still runs.
//!
//! A node's nonces are shared out as `i + g*N + x*(G*N)`: two rigs with one group number would prove the same nonces, and
//! one number changed within a round would leave a hole. So the numbers of a round are fixed when it begins, kept in a
//! file, and, should that be lost, read off the rigs that still prove.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use roadbed_protocol::RigId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What makes a round this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    block_hash: String,
    public_key: String,
    node_id: i64,
    node_count: i64,
}

impl Identity {
    /// Of an order, or of what a rig says it proves.
    pub(super) fn of(fields: &Map<String, Value>) -> Option<Self> {
        Some(Self {
            block_hash: fields.get("block_hash")?.as_str()?.to_owned(),
            public_key: fields.get("public_key")?.as_str()?.to_owned(),
            node_id: fields.get("node_id")?.as_i64()?,
            node_count: fields.get("node_count")?.as_i64()?,
        })
    }
}

/// What a rig says of its proofs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It has no model to prove with, or no proof side.
    NoModel,
    /// It could prove and does not.
    Idle,
    /// It proves.
    Generating {
        /// The round, if it is told.
        identity: Option<Identity>,
        /// Group and number of groups, if they are told.
        group: Option<(u32, u32)>,
    },
}

impl Look {
    /// Reads one entry of `backends`.
    pub(super) fn of(backend: &Value) -> Self {
        if backend["status"] != "GENERATING" {
            return Self::Idle;
        }
        let Some(config) = backend["config"].as_object() else {
            return Self::Generating { identity: None, group: None };
        };
        let number = |name: &str| u32::try_from(config.get(name)?.as_u64()?).ok();
        Self::Generating {
            identity: Identity::of(config),
            group: number("group_id").zip(number("n_groups")),
        }
    }

    fn proves(&self, wanted: &Identity) -> Option<Option<(u32, u32)>> {
        match self {
            Self::Generating { identity: Some(identity), group } if identity == wanted => {
                Some(*group)
            }
            Self::Generating { .. } | Self::Idle | Self::NoModel => None,
        }
    }
}

/// A round: the order as it came, and who has which group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    order: Map<String, Value>,
    pub(super) n_groups: u32,
    groups: BTreeMap<RigId, u32>,
}

impl Round {
    pub(super) fn identity(&self) -> Option<Identity> {
        Identity::of(&self.order)
    }

    /// The group of a rig; one that joined when all were given away has none.
    pub(super) fn group(&self, rig: &RigId) -> Option<u32> {
        self.groups.get(rig).copied()
    }

    /// The order for a rig.
    pub(super) fn order(&self, rig: &RigId) -> Option<Vec<u8>> {
        let mut order = self.order.clone();
        order.insert("group_id".into(), json!(self.group(rig)?));
        order.insert("n_groups".into(), json!(self.n_groups));
        Some(Value::Object(order).to_string().into_bytes())
    }
}

/// Whether a round runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// It was ordered and not stopped.
    Yes,
    /// It was stopped.
    No,
    /// It was not stopped when the controller ended; it may be long over. A rig that still proves it says that it is not.
    Perhaps,
}

/// What a rig has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// To prove its group.
    Start,
    /// To end what it proves.
    Stop,
    /// First to end what it proves, then to prove its group.
    Change,
}

/// The last round and its file.
pub(super) struct RoundBook {
    round: Option<(Round, Running)>,
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    round: Round,
    running: bool,
}

impl RoundBook {
    /// With what the file knows. A file that cannot be read is as good as none: the rigs know.
    pub(super) fn open(file: PathBuf) -> Self {
        let kept = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .inspect_err(|error| {
                    tracing::warn!(file = %file.display(), %error, "the last proof round is not known; the rigs are asked");
                })
                .ok(),
            Err(_absent) => None,
        };
        let running = |yes| if yes { Running::Perhaps } else { Running::No };
        Self { round: kept.map(|kept| (kept.round, running(kept.running))), file }
    }

    /// The round of an order: the last one if it is the same, else as the rigs that prove it say, else a new one.
    /// `rigs` in the order of their places.
    pub(super) fn round_of(
        &self,
        mut order: Map<String, Value>,
        rigs: &[&RigId],
        looks: &[Look],
    ) -> Round {
        order.remove("group_id");
        order.remove("n_groups");
        let identity = Identity::of(&order);
        let last = self.round.as_ref().map(|(round, _)| round);
        let last = last.filter(|last| identity.is_some() && last.identity() == identity);
        let (n_groups, mut groups) = match last {
            Some(last) => (last.n_groups, last.groups.clone()),
            None => told_groups(identity.as_ref(), rigs, looks)
                .unwrap_or((u32::try_from(rigs.len()).unwrap_or(u32::MAX), BTreeMap::new())),
        };
        let mut free = {
            let taken: BTreeSet<u32> = groups.values().copied().collect();
            (0..n_groups).filter(move |group| !taken.contains(group))
        };
        for rig in rigs {
            if !groups.contains_key(*rig)
                && let Some(group) = free.next()
            {
                groups.insert((*rig).clone(), group);
            }
        }
        Round { order, n_groups, groups }
    }

    /// Whether this is the round that was ordered and not stopped.
    pub(super) fn runs(&self, look: &Look) -> bool {
        self.round.as_ref().is_some_and(|(round, running)| {
            *running != Running::No
                && round.identity().is_some_and(|identity| look.proves(&identity).is_some())
        })
    }

    /// The round begins.
    pub(super) fn begin(&mut self, round: Round) {
        self.round = Some((round, Running::Yes));
        self.keep();
    }

    /// The round ends.
    pub(super) fn end(&mut self) {
        if let Some((_, running)) = &mut self.round
            && *running != Running::No
        {
            *running = Running::No;
            self.keep();
        }
    }

    /// Whether there is a round that rigs could fall out of step with.
    pub(super) fn is_open(&self) -> bool {
        self.round.is_some()
    }

    /// What a rig has to be told, by what it says; a rig that proves the round confirms it.
    pub(super) fn due(&mut self, rig: &RigId, look: &Look) -> (Due, Option<Vec<u8>>) {
        let Some((round, running)) = &mut self.round else { return (Due::Nothing, None) };
        let Some(identity) = round.identity() else { return (Due::Nothing, None) };
        let own = round.group(rig).map(|group| (group, round.n_groups));
        let due = match (look, look.proves(&identity), *running) {
            (Look::NoModel, ..) => Due::Nothing,
            (_, Some(_), Running::No) => Due::Stop,
            (_, Some(group), Running::Yes | Running::Perhaps) => {
                *running = Running::Yes;
                match (group, own) {
                    // One that does not tell its group, or has none: left alone.
                    (None, _) | (Some(_), None) => Due::Nothing,
                    (Some(group), Some(own)) if group == own => Due::Nothing,
                    (Some(_), Some(_)) => Due::Change,
                }
            }
            (Look::Generating { .. }, None, Running::Yes) if own.is_some() => Due::Change,
            (Look::Idle, None, Running::Yes) if own.is_some() => Due::Start,
            (Look::Generating { .. } | Look::Idle, None, _) => Due::Nothing,
        };
        let order = match due {
            Due::Start | Due::Change => round.order(rig),
            Due::Nothing | Due::Stop => None,
        };
        (due, order)
    }

    fn keep(&self) {
        let Some((round, running)) = &self.round else { return };
        let kept = Kept { round: round.clone(), running: *running != Running::No };
        if let Err(error) = write(&self.file, &kept) {
            let file = self.file.display();
            tracing::warn!(%file, %error, "a restart of the controller would have to ask the rigs for their proof groups");
        }
    }
}

/// Groups as rigs say that prove this very round, if they agree on their number and no group is told twice.
fn told_groups(
    identity: Option<&Identity>,
    rigs: &[&RigId],
    looks: &[Look],
) -> Option<(u32, BTreeMap<RigId, u32>)> {
    let identity = identity?;
    let told = rigs.iter().zip(looks).filter_map(|(rig, look)| {
        let (group, n_groups) = look.proves(identity)??;
        (group < n_groups).then_some((*rig, group, n_groups))
    });
    let mut number = None;
    let mut groups = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (rig, group, n_groups) in told {
        if *number.get_or_insert(n_groups) == n_groups && taken.insert(group) {
            groups.insert(rig.clone(), group);
        }
    }
    Some((number?, groups))
}

/// All of the file or nothing.
fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let part = file.with_extension("part");
    let mut out = std::fs::File::create(&part)?;
    out.write_all(&serde_json::to_vec(kept)?)?;
    out.sync_all()?;
    std::fs::rename(&part, file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<RigId> {
        (0..count).map(|place| RigId::new(format!("gpu-{place}")).unwrap()).collect()
    }

    fn order(hash: &str) -> Map<String, Value> {
        let order = json!({
            "block_hash": hash, "block_height": 5, "public_key": "02ab", "node_id": 1, "node_count": 3,
            "params": {"model": "m", "seq_len": 64}, "url": "http://n/v2/a%252Fb", "group_id": 77,
        });
        order.as_object().unwrap().clone()
    }

    fn generating(hash: &str, group: u32, n_groups: u32) -> Look {
        let mut config = order(hash);
        config.insert("group_id".into(), json!(group));
        config.insert("n_groups".into(), json!(n_groups));
        Look::of(&json!({"status": "GENERATING", "config": config}))
    }

    fn book(folder: &tempfile::TempDir) -> RoundBook {
        RoundBook::open(folder.path().join("round.json"))
    }

    #[test]
    fn a_round_outlives_the_controller_and_is_confirmed_by_a_rig() {
        let folder = tempfile::tempdir().unwrap();
        let rigs = ids(2);
        let refs: Vec<&RigId> = rigs.iter().collect();
        let mut first = book(&folder);
        let round = first.round_of(order("A"), &refs, &[Look::Idle, Look::Idle]);
        assert_eq!((round.n_groups, round.group(&rigs[1])), (2, Some(1)));
        let sent: Value = serde_json::from_slice(&round.order(&rigs[1]).unwrap()).unwrap();
        assert_eq!(sent["group_id"], 1);
        assert_eq!(sent["url"], "http://n/v2/a%252Fb");
        first.begin(round.clone());
        assert_eq!(first.due(&rigs[0], &Look::Idle).0, Due::Start);
        assert_eq!(first.due(&rigs[0], &Look::NoModel).0, Due::Nothing);
        assert_eq!(first.due(&rigs[0], &generating("A", 0, 2)).0, Due::Nothing);
        assert_eq!(first.due(&rigs[0], &generating("A", 1, 2)).0, Due::Change);
        assert_eq!(first.due(&rigs[0], &generating("OLD", 0, 2)).0, Due::Change);
        // The next one does not know whether it is over, until a rig says that it is not.
        let mut next = book(&folder);
        assert_eq!(next.due(&rigs[0], &Look::Idle).0, Due::Nothing);
        assert_eq!(next.due(&rigs[0], &generating("OTHER", 0, 2)).0, Due::Nothing);
        assert_eq!(next.due(&rigs[1], &generating("A", 1, 2)).0, Due::Nothing);
        let (due, sent) = next.due(&rigs[0], &Look::Idle);
        assert_eq!((due, sent), (Due::Start, round.order(&rigs[0])));
        // The rigs in another order keep their groups while the round is the same.
        let turned = next.round_of(order("A"), &[&rigs[1], &rigs[0]], &[Look::Idle, Look::Idle]);
        assert_eq!(turned.group(&rigs[0]), Some(0));
        next.end();
        assert_eq!(book(&folder).due(&rigs[0], &generating("A", 0, 2)).0, Due::Stop);
        assert_eq!(book(&folder).due(&rigs[0], &Look::Idle).0, Due::Nothing);
    }

    #[test]
    fn a_lost_or_damaged_file_is_made_up_by_the_rigs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("round.json"), b"{\"round\":").unwrap();
        let rigs = ids(3);
        let refs: Vec<&RigId> = rigs.iter().collect();
        let looks = [generating("A", 2, 7), Look::Idle, generating("A", 0, 7)];
        let round = book(&folder).round_of(order("A"), &refs, &looks);
        assert_eq!(round.n_groups, 7);
        assert_eq!(
            rigs.iter().map(|rig| round.group(rig)).collect::<Vec<_>>(),
            [Some(2), Some(1), Some(0)]
        );
        let full = [generating("A", 0, 2), generating("A", 1, 2), Look::Idle];
        assert_eq!(book(&folder).round_of(order("A"), &refs, &full).group(&rigs[2]), None);
    }

    fn any_look() -> impl Strategy<Value = Look> {
        prop_oneof![
            Just(Look::Idle),
            Just(Look::NoModel),
            (prop_oneof![Just("A"), Just("B")], 0_u32..9, 0_u32..9)
                .prop_map(|(hash, group, n)| generating(hash, group, n)),
        ]
    }

    proptest! {
        #[test]
        fn no_group_is_given_twice(
            looks in proptest::collection::vec(any_look(), 1..8), kept in any::<bool>(),
            more in 0_usize..3,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut book = book(&folder);
            let rigs = ids(looks.len() + more);
            let known: Vec<&RigId> = rigs.iter().take(looks.len()).collect();
            if kept {
                let round = book.round_of(order("A"), &known, &looks);
                book.begin(round);
            }
            let all: Vec<&RigId> = rigs.iter().collect();
            let mut all_looks = looks.clone();
            all_looks.resize(all.len(), Look::Idle);
            let round = book.round_of(order("A"), &all, &all_looks);
            let groups: Vec<u32> = rigs.iter().filter_map(|rig| round.group(rig)).collect();
            let distinct: BTreeSet<u32> = groups.iter().copied().collect();
            prop_assert_eq!(groups.len(), distinct.len());
            prop_assert!(groups.iter().all(|group| *group < round.n_groups));
        }
    }
}
