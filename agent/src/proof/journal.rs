//! What the proof side needs of a journal, and one in memory for `serve` without a data directory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use roadbed_compute::poc::Scheme;

use crate::journal::{Artifact, Journal, JournalError};

/// Rounds kept: the one under way and a few before it, in case a Network Node comes back to one.
pub const ROUNDS_KEPT_MAX: usize = 8;

/// Everything that makes two artifacts of one nonce equal. The same key is the same round, whenever it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoundKey {
    /// As the request spells it.
    pub block_hash: String,
    /// As the request spells it.
    pub public_key: String,
    /// Number of the MLNode.
    pub node_id: u32,
    /// MLNodes of the participant.
    pub node_count: u32,
    /// Number of this engine behind the MLNode: another group walks other nonces, so its positions mean other things.
    pub group_id: u32,
    /// Engines behind the MLNode.
    pub n_groups: u32,
    /// The served model.
    pub model: String,
    /// Tokens per sequence.
    pub seq_len: usize,
    /// Numbers in an artifact.
    pub k_dim: usize,
    /// Which generator of inputs.
    pub stronger_rng: bool,
    /// Which scheme, with its steps.
    pub scheme: Scheme,
}

impl RoundKey {
    /// All of it in one text; two keys have the same text only if they are the same.
    #[must_use]
    pub fn text(&self) -> String {
        let steps = match self.scheme {
            Scheme::Prefill => None,
            Scheme::Decode(terms) => Some(terms.max_tokens),
        };
        serde_json::json!([
            self.block_hash,
            self.public_key,
            self.node_id,
            self.node_count,
            self.group_id,
            self.n_groups,
            self.model,
            self.seq_len,
            self.k_dim,
            self.stronger_rng,
            steps,
        ])
        .to_string()
    }
}

/// A journalled artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArtifact {
    /// Which nonce.
    pub nonce: u32,
    /// As it is sent: the vector, or the points of a trajectory with one byte for each step.
    pub vector_b64: String,
}

/// What a round left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Position of the first nonce not worked on yet, from 0.
    pub next_index: u64,
    /// Computed, but not known to be delivered, oldest first.
    pub undelivered: Vec<StoredArtifact>,
}

/// The journal cannot read or write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("artifact journal: {0}")]
pub struct JournalFault(pub String);

/// Where artifacts are kept before they are sent. Every call may block for a disk; all are safe to repeat.
pub trait ArtifactJournal: Send + Sync + 'static {
    /// What is known of a round; nothing if it is new. Rounds long past may be forgotten here.
    ///
    /// # Errors
    /// [`JournalFault`].
    fn recover(&self, round: &RoundKey) -> Result<Recovered, JournalFault>;

    /// Keeps the outcome of the nonce at `index`; without a vector it gave NaN and is only passed over.
    ///
    /// # Errors
    /// [`JournalFault`].
    fn record(
        &self,
        round: &RoundKey,
        index: u64,
        nonce: u32,
        vector_b64: Option<&str>,
    ) -> Result<(), JournalFault>;

    /// Notes that the Network Node has these, and gives those that were not noted before: each counts once.
    ///
    /// # Errors
    /// [`JournalFault`].
    fn mark_delivered(&self, round: &RoundKey, nonces: &[u32]) -> Result<Vec<u32>, JournalFault>;
}

impl From<JournalError> for JournalFault {
    fn from(error: JournalError) -> Self {
        Self(error.to_string())
    }
}

/// The agent's own journal, on disk.
impl ArtifactJournal for Journal {
    fn recover(&self, round: &RoundKey) -> Result<Recovered, JournalFault> {
        let stored = self.recover_round(&round.text())?;
        let artifact = |artifact: Artifact| StoredArtifact {
            nonce: artifact.nonce,
            vector_b64: artifact.body,
        };
        Ok(Recovered {
            next_index: stored.next_index,
            undelivered: stored.undelivered.into_iter().map(artifact).collect(),
        })
    }

    fn record(
        &self,
        round: &RoundKey,
        index: u64,
        nonce: u32,
        vector_b64: Option<&str>,
    ) -> Result<(), JournalFault> {
        self.record_artifact(&round.text(), index, nonce, vector_b64)?;
        Ok(())
    }

    fn mark_delivered(&self, round: &RoundKey, nonces: &[u32]) -> Result<Vec<u32>, JournalFault> {
        Ok(Self::mark_delivered(self, &round.text(), nonces)?)
    }
}

#[derive(Default)]
struct Rows {
    next_index: u64,
    /// Nonce to vector, and whether it was delivered.
    artifacts: BTreeMap<u32, (String, bool)>,
}

/// A journal that lasts as long as the process.
#[derive(Default)]
pub struct MemoryJournal {
    rounds: Mutex<VecDeque<(RoundKey, Rows)>>,
}

impl MemoryJournal {
    fn with<T>(&self, round: &RoundKey, read: impl FnOnce(&mut Rows) -> T) -> T {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let found = rounds.iter().position(|(key, _)| key == round);
        // The round in use goes to the end, so that the front is the one to forget.
        let mut entry = found
            .and_then(|at| rounds.remove(at))
            .unwrap_or_else(|| (round.clone(), Rows::default()));
        let value = read(&mut entry.1);
        rounds.push_back(entry);
        while rounds.len() > ROUNDS_KEPT_MAX {
            rounds.pop_front();
        }
        value
    }
}

impl ArtifactJournal for MemoryJournal {
    fn recover(&self, round: &RoundKey) -> Result<Recovered, JournalFault> {
        Ok(self.with(round, |rows| Recovered {
            next_index: rows.next_index,
            undelivered: rows
                .artifacts
                .iter()
                .filter(|(_, (_, delivered))| !delivered)
                .map(|(&nonce, (vector, _))| StoredArtifact { nonce, vector_b64: vector.clone() })
                .collect(),
        }))
    }

    fn record(
        &self,
        round: &RoundKey,
        index: u64,
        nonce: u32,
        vector_b64: Option<&str>,
    ) -> Result<(), JournalFault> {
        self.with(round, |rows| {
            rows.next_index = rows.next_index.max(index + 1);
            if let Some(vector) = vector_b64 {
                rows.artifacts.entry(nonce).or_insert_with(|| (vector.to_owned(), false));
            }
        });
        Ok(())
    }

    fn mark_delivered(&self, round: &RoundKey, nonces: &[u32]) -> Result<Vec<u32>, JournalFault> {
        Ok(self.with(round, |rows| {
            let mut newly = Vec::new();
            for nonce in nonces {
                if let Some((_, delivered)) = rows.artifacts.get_mut(nonce)
                    && !std::mem::replace(delivered, true)
                {
                    newly.push(*nonce);
                }
            }
            newly
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block_hash: &str) -> RoundKey {
        RoundKey {
            block_hash: block_hash.into(),
            public_key: "pk".into(),
            node_id: 0,
            node_count: 1,
            group_id: 0,
            n_groups: 1,
            model: "m".into(),
            seq_len: 64,
            k_dim: 12,
            stronger_rng: false,
            scheme: Scheme::Prefill,
        }
    }

    #[test]
    fn a_round_goes_on_where_it_was() {
        let journal = MemoryJournal::default();
        let round = key("a");
        assert_eq!(journal.recover(&round).unwrap(), Recovered::default());
        journal.record(&round, 0, 0, Some("v0")).unwrap();
        journal.record(&round, 1, 2, None).unwrap();
        journal.record(&round, 2, 4, Some("v4")).unwrap();
        journal.record(&round, 0, 0, Some("again")).unwrap();
        assert_eq!(journal.mark_delivered(&round, &[0, 99]).unwrap(), [0]);
        assert_eq!(journal.mark_delivered(&round, &[0]).unwrap(), [0u32; 0]);
        let undelivered = vec![StoredArtifact { nonce: 4, vector_b64: "v4".into() }];
        assert_eq!(journal.recover(&round).unwrap(), Recovered { next_index: 3, undelivered });
        assert_eq!(journal.recover(&key("b")).unwrap(), Recovered::default());
    }

    #[tokio::test]
    async fn a_round_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let agent = roadbed_protocol::AgentId::new("box").unwrap();
        let group = |group_id| RoundKey { group_id, n_groups: 2, ..key("a") };
        let journal = Journal::open(folder.path(), &agent).unwrap();
        journal.record(&group(0), 0, 3, Some("v3")).unwrap();
        journal.record(&group(0), 1, 5, Some("v5")).unwrap();
        let newly = ArtifactJournal::mark_delivered(&journal, &group(0), &[3, 4]).unwrap();
        assert_eq!(newly, [3]);
        journal.shut_down().await;
        assert!(journal.record(&group(0), 2, 7, None).is_err());

        let journal = Journal::open(folder.path(), &agent).unwrap();
        let undelivered = vec![StoredArtifact { nonce: 5, vector_b64: "v5".into() }];
        let recovered = journal.recover(&group(0)).unwrap();
        assert_eq!(recovered, Recovered { next_index: 2, undelivered });
        // Positions of another group mean other nonces.
        assert_eq!(journal.recover(&group(1)).unwrap(), Recovered::default());
        assert_eq!(journal.recover(&key("a")).unwrap(), Recovered::default());
    }

    #[test]
    fn old_rounds_are_forgotten() {
        let journal = MemoryJournal::default();
        journal.record(&key("first"), 0, 0, Some("v")).unwrap();
        for n in 0..ROUNDS_KEPT_MAX {
            journal.record(&key(&n.to_string()), 0, 0, Some("v")).unwrap();
        }
        assert_eq!(journal.recover(&key("first")).unwrap(), Recovered::default());
        assert_eq!(journal.recover(&key("7")).unwrap().next_index, 1);
    }
}
