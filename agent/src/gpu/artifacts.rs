//! The proof side's journal, kept in the agent's.

use crate::journal::{Journal, JournalError};
use crate::proof::{ArtifactJournal, JournalFault, Recovered, RoundKey, StoredArtifact};

/// Artifacts in the agent's journal.
pub(super) struct JournalledArtifacts {
    journal: Journal,
}

impl JournalledArtifacts {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal }
    }
}

fn fault(error: JournalError) -> JournalFault {
    JournalFault(error.to_string())
}

/// Everything that decides an artifact, in one text; a JSON array, so that no two keys can run together.
fn name(round: &RoundKey) -> String {
    serde_json::json!([
        round.block_hash,
        round.public_key,
        round.node_id,
        round.node_count,
        round.model,
        round.seq_len,
        round.k_dim,
        round.stronger_rng,
    ])
    .to_string()
}

impl ArtifactJournal for JournalledArtifacts {
    fn recover(&self, round: &RoundKey) -> Result<Recovered, JournalFault> {
        let stored = self.journal.recover_round(&name(round)).map_err(fault)?;
        let undelivered = stored
            .undelivered
            .into_iter()
            .map(|artifact| StoredArtifact { nonce: artifact.nonce, vector_b64: artifact.body })
            .collect();
        Ok(Recovered { next_index: stored.next_index, undelivered })
    }

    fn record(
        &self,
        round: &RoundKey,
        index: u64,
        nonce: u32,
        vector_b64: Option<&str>,
    ) -> Result<(), JournalFault> {
        self.journal.record_artifact(&name(round), index, nonce, vector_b64).map_err(fault)?;
        Ok(())
    }

    fn mark_delivered(&self, round: &RoundKey, nonces: &[u32]) -> Result<Vec<u32>, JournalFault> {
        self.journal.mark_delivered(&name(round), nonces).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::AgentId;

    use super::*;

    #[tokio::test]
    async fn a_round_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let agent = AgentId::new("box").unwrap();
        let round = |seq_len| RoundKey {
            block_hash: "b".into(),
            public_key: "k".into(),
            node_id: 0,
            node_count: 1,
            model: "m".into(),
            seq_len,
            k_dim: 12,
            stronger_rng: false,
        };
        let journal = Journal::open(folder.path(), &agent).unwrap();
        let artifacts = JournalledArtifacts::new(journal.clone());
        artifacts.record(&round(64), 0, 3, Some("v3")).unwrap();
        artifacts.record(&round(64), 1, 5, Some("v5")).unwrap();
        assert_eq!(artifacts.mark_delivered(&round(64), &[3, 4]).unwrap(), [3]);
        journal.shut_down().await;
        assert!(artifacts.record(&round(64), 2, 7, None).is_err());

        let journal = Journal::open(folder.path(), &agent).unwrap();
        let artifacts = JournalledArtifacts::new(journal);
        let undelivered = vec![StoredArtifact { nonce: 5, vector_b64: "v5".into() }];
        assert_eq!(
            artifacts.recover(&round(64)).unwrap(),
            Recovered { next_index: 2, undelivered }
        );
        assert_eq!(artifacts.recover(&round(32)).unwrap(), Recovered::default());
    }
}
