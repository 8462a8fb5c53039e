//! From computed artifacts to a verdict over those of another participant, and the doubts that stop one.
//!
//! A wrong verdict costs an honest participant an epoch, and a missing one costs nearly nothing: other validators give
//! theirs. So an accusation stands only if this engine computed every nonce and comes to the same mismatches twice, with
//! weights that nobody has made smaller.

use std::sync::Arc;

use roadbed_compute::gguf::TensorType;
use roadbed_compute::poc::verdict::is_mismatch;
use roadbed_compute::poc::{Artifact, MarginKind, StatTest, Verdict, judge, judge_trajectories};

use super::request::{JobRequest, Received};
use super::validation::JobOutcome;
use crate::engine::Claims;

/// What one pass over nonces gave; those that gave NaN are missing.
pub(super) struct Pass {
    /// Nonces of the pass.
    pub(super) asked: usize,
    pub(super) artifacts: Vec<Artifact>,
}

impl Pass {
    fn of(&self, nonce: u32) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.nonce == nonce)
    }
}

/// The trajectories that a job's nonces are stepped along.
pub(super) fn claims(job: &JobRequest) -> Option<Claims> {
    match job.received.as_ref()? {
        Received::Vectors(_) => None,
        Received::Trajectories(list) => Some(Arc::new(list.iter().cloned().collect())),
    }
}

/// What a pass over all nonces says. `Err` when there is nothing to judge by.
pub(super) fn conclude(
    job: &JobRequest,
    test: StatTest,
    pass: &Pass,
) -> Result<JobOutcome, String> {
    let Some(received) = &job.received else {
        return Ok(JobOutcome::Artifacts(pass.artifacts.clone()));
    };
    if pass.artifacts.is_empty() && pass.asked > 0 {
        return Err("this engine gave no number for any of the nonces".into());
    }
    Ok(JobOutcome::Verdict(judged(received, test, pass)?))
}

fn judged(received: &Received, test: StatTest, pass: &Pass) -> Result<Verdict, String> {
    match received {
        Received::Vectors(list) => Ok(judge(list, &pass.artifacts, test)),
        Received::Trajectories(list) => {
            let compared = list.iter().map(|(nonce, _)| match pass.of(*nonce) {
                None => Ok((*nonce, None)),
                Some(Artifact { comparison: Some(comparison), .. }) => {
                    Ok((*nonce, Some(*comparison)))
                }
                Some(_) => Err(format!("nonce {nonce} was computed and not compared")),
            });
            let compared = compared.collect::<Result<Vec<_>, String>>()?;
            Ok(judge_trajectories(&compared, MarginKind::default(), test))
        }
    }
}

/// Whether an accusation may rest on what weights of this type give. Weights of fewer than 16 bits were rounded by
/// somebody: 4 bits move an artifact by 0.6, more than any threshold of the network (measured with SmolLM2; 6 bits by
/// 0.2, 8 by 0.1). A model that is published in fp8 would be an exception; none of the types loaded here is fp8.
pub(super) fn sound_weights(weights: Option<TensorType>) -> Result<(), String> {
    match weights {
        Some(kind) if kind.is_below_16_bits() => Err(format!(
            "no accusation: the weights here are {kind}, fewer than 16 bits, so it may be our own artifacts that are off; \
             load the published weights, or set accuse_with_own_weights where everybody has this very file"
        )),
        Some(_) | None => Ok(()),
    }
}

/// Whether an accusation stands: `second` went over its mismatches once more.
pub(super) fn confirm(
    job: &JobRequest,
    test: StatTest,
    verdict: &Verdict,
    first: &Pass,
    second: &Pass,
) -> Result<(), String> {
    let missing = first.asked - first.artifacts.len() + second.asked - second.artifacts.len();
    if missing > 0 {
        return Err(format!("no accusation: this engine gave no number for {missing} nonces"));
    }
    let among = |nonce: &u32| verdict.mismatch_nonces.contains(nonce);
    let again = match &job.received {
        None => return Ok(()),
        Some(Received::Vectors(list)) => {
            let apart = second.artifacts.iter().find(|ours| {
                let before = first.of(ours.nonce).map_or("", |before| before.vector_b64.as_str());
                is_mismatch(before, &ours.vector, test.dist_threshold)
            });
            if let Some(Artifact { nonce, .. }) = apart {
                return Err(format!("no accusation: two passes over nonce {nonce} disagree"));
            }
            Received::Vectors(list.iter().filter(|(nonce, _)| among(nonce)).cloned().collect())
        }
        Some(Received::Trajectories(list)) => {
            Received::Trajectories(list.iter().filter(|(nonce, _)| among(nonce)).cloned().collect())
        }
    };
    let again = judged(&again, test, second)?;
    if again.mismatch_nonces != verdict.mismatch_nonces {
        return Err("no accusation: a second pass finds other mismatches".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use roadbed_compute::poc::artifact::encode;
    use roadbed_compute::poc::{Comparison, DecodeTerms, Identity, NonceShare, Round, Scheme};

    use super::*;
    use crate::proof::RoundRequest;

    const TEST: StatTest = StatTest { dist_threshold: 0.4, p_mismatch: 0.1, fraud_threshold: 0.01 };

    fn job(received: Received) -> JobRequest {
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        let scheme = match received {
            Received::Vectors(_) => Scheme::Prefill,
            Received::Trajectories(_) => Scheme::Decode(DecodeTerms { max_tokens: 2 }),
        };
        let round = Round { identity, seq_len: 4, k_dim: 2, stronger_rng: false, scheme };
        let share = NonceShare { node_id: 0, node_count: 1, group_id: 0, n_groups: 1 };
        let request =
            RoundRequest { round, block_height: 1, share, model: "m".into(), batch: 8, url: None };
        let nonces = received.nonces();
        let received = Some(received);
        JobRequest { request, nonces, received, stat_test: TEST, p_value_threshold: None }
    }

    fn artifact(nonce: u32, vector: [f32; 2]) -> Artifact {
        let vector_b64 = encode(&vector).unwrap();
        let (points, comparison) = (vec![], None);
        Artifact { nonce, vector: vector.to_vec(), vector_b64, points, comparison }
    }

    fn pass(nonces: std::ops::Range<u32>, vector: [f32; 2]) -> Pass {
        let artifacts: Vec<Artifact> = nonces.map(|nonce| artifact(nonce, vector)).collect();
        Pass { asked: artifacts.len(), artifacts }
    }

    fn verdict(outcome: JobOutcome) -> Verdict {
        match outcome {
            JobOutcome::Verdict(verdict) => verdict,
            JobOutcome::Artifacts(_) => panic!("no verdict"),
        }
    }

    #[test]
    fn an_accusation_stands_only_if_it_is_found_twice() {
        let theirs = encode(&[0.0, 1.0]).unwrap();
        let job = job(Received::Vectors((0..4).map(|nonce| (nonce, theirs.clone())).collect()));
        let first = pass(0..4, [1.0, 0.0]);
        let fraud = verdict(conclude(&job, TEST, &first).unwrap());
        assert!(fraud.fraud_detected);
        let confirmed = |second: &Pass| confirm(&job, TEST, &fraud, &first, second);
        assert_eq!(confirmed(&pass(0..4, [1.0, 0.0])), Ok(()));
        // The second time we agree with them: one of our passes was wrong.
        assert!(confirmed(&pass(0..4, [0.0, 1.0])).unwrap_err().contains("disagree"));
        // Far from both.
        assert!(confirmed(&pass(0..4, [-1.0, 0.0])).is_err());
        let mut nan = pass(0..4, [1.0, 0.0]);
        nan.artifacts.pop();
        assert!(confirmed(&nan).unwrap_err().contains("no number"));
        // Numbers that are missing from the first pass.
        let mut short = pass(0..4, [1.0, 0.0]);
        short.artifacts.remove(0);
        let fraud = verdict(conclude(&job, TEST, &short).unwrap());
        let second = pass(1..4, [1.0, 0.0]);
        assert!(confirm(&job, TEST, &fraud, &short, &second).is_err());
        let nothing = Pass { asked: 4, artifacts: vec![] };
        assert!(conclude(&job, TEST, &nothing).is_err());
    }

    #[test]
    fn weights_that_were_made_smaller_accuse_nobody() {
        for kind in TensorType::ALL {
            let whole = matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16);
            assert_eq!(sound_weights(Some(kind)).is_ok(), whole, "{kind}");
        }
        assert!(sound_weights(Some(TensorType::Q4K)).unwrap_err().contains("are Q4_K,"));
        assert_eq!(sound_weights(None), Ok(()));
    }

    #[test]
    fn trajectories_are_judged_by_their_margins_and_never_unseen() {
        let job = job(Received::Trajectories((0..4).map(|nonce| (nonce, vec![1, 2, 3])).collect()));
        let compared = |margin: f64| Pass {
            asked: 4,
            artifacts: (0..4)
                .map(|nonce| {
                    let claimed_margin_max = margin;
                    let comparison = Comparison { claimed_margin_max, ..Comparison::default() };
                    Artifact::of_trajectory(nonce, vec![1, 2, 3], Some(comparison))
                })
                .collect(),
        };
        assert!(!verdict(conclude(&job, TEST, &compared(0.3)).unwrap()).fraud_detected);
        let first = compared(0.5);
        let fraud = verdict(conclude(&job, TEST, &first).unwrap());
        assert!(fraud.fraud_detected);
        assert_eq!(confirm(&job, TEST, &fraud, &first, &compared(0.5)), Ok(()));
        assert!(confirm(&job, TEST, &fraud, &first, &compared(0.1)).is_err());
        let unseen = Artifact::of_trajectory(0, vec![1, 2, 3], None);
        assert!(conclude(&job, TEST, &Pass { asked: 4, artifacts: vec![unseen] }).is_err());
        assert_eq!(claims(&job).unwrap()[&3], [1, 2, 3]);
    }
}
