//! A golden file: artifacts that somebody's hardware gave for one round, with the round.
//!
//! The format is the one in which the network's reference sets are kept for interoperability tests: one JSON object
//! with the round's fields and a list of artifacts, each a nonce and a vector as it travels.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use roadbed_compute::poc::prover::REQUEST_NONCES_MAX;
use roadbed_compute::poc::{Identity, Round, Scheme};
use serde::Deserialize;

/// An artifact takes about 60 bytes; a request's most nonces fit several times over.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Nonces travel as int32.
const NONCE_MAX: u32 = i32::MAX as u32;

/// A file as it is written. Fields that are not listed say where it comes from.
#[derive(Debug, Deserialize)]
struct GoldenFile {
    scheme: Option<String>,
    model: String,
    seq_len: usize,
    k_dim: usize,
    block_hash: String,
    public_key: String,
    #[serde(default)]
    poc_stronger_rng: bool,
    dist_threshold: Option<f64>,
    encoding: Option<Encoding>,
    artifacts: Vec<GoldenArtifact>,
}

#[derive(Debug, Deserialize)]
struct Encoding {
    dtype: String,
    k_dim: Option<usize>,
    endian: Option<String>,
}

#[derive(Debug, Deserialize)]
struct GoldenArtifact {
    nonce: u32,
    vector_b64: String,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// The model that was run.
    pub model: String,
    pub round: Round,
    /// The distance its authors judge by, if they say so.
    pub dist_threshold: Option<f64>,
    /// Nonce and vector, each nonce once.
    pub artifacts: Vec<(u32, String)>,
}

impl Golden {
    /// Reads a file.
    ///
    /// # Errors
    /// No such file, or one that is no golden file of this scheme; the message says where.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut text = String::new();
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(text.len() as u64 <= FILE_BYTES_MAX, "{} is too large", path.display());
        Self::parse(&text).with_context(|| format!("{} is no golden file", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: GoldenFile = serde_json::from_str(text)?;
        if let Some(scheme) = &file.scheme
            && !scheme.eq_ignore_ascii_case("prefill")
        {
            bail!("scheme {scheme:?}: only sets of the scheme PREFILL can be verified");
        }
        if let Some(Encoding { dtype, k_dim, endian }) = &file.encoding {
            let little = endian.as_deref().is_none_or(|endian| endian == "le");
            ensure!(dtype == "f16" && little, "encoding: expected f16, little-endian");
            ensure!(k_dim.is_none_or(|k| k == file.k_dim), "encoding.k_dim is not k_dim");
        }
        let count = file.artifacts.len();
        ensure!(count > 0, "it holds no artifacts");
        ensure!(count <= REQUEST_NONCES_MAX, "{count} artifacts, at most {REQUEST_NONCES_MAX}");
        let mut seen = BTreeSet::new();
        for artifact in &file.artifacts {
            let nonce = artifact.nonce;
            ensure!(nonce <= NONCE_MAX, "nonce {nonce} is above {NONCE_MAX}");
            ensure!(seen.insert(nonce), "nonce {nonce} comes twice");
        }
        if let Some(distance) = file.dist_threshold {
            ensure!(distance.is_finite() && distance >= 0.0, "dist_threshold: {distance}");
        }
        Ok(Self {
            model: file.model,
            round: Round {
                identity: Identity { block_hash: file.block_hash, public_key: file.public_key },
                seq_len: file.seq_len,
                k_dim: file.k_dim,
                stronger_rng: file.poc_stronger_rng,
                scheme: Scheme::Prefill,
            },
            dist_threshold: file.dist_threshold,
            artifacts: file.artifacts.into_iter().map(|a| (a.nonce, a.vector_b64)).collect(),
        })
    }

    /// Whether `name` is the golden's model, whatever its publisher, case and punctuation.
    #[must_use]
    pub fn is_of(&self, name: &str) -> bool {
        let ours = plain(name);
        !ours.is_empty() && ours == plain(&self.model)
    }
}

/// `Qwen/Qwen3-0.6B` and `qwen3 0.6b` are `qwen306b`.
fn plain(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roadbed_compute::poc::artifact::decode;
    use roadbed_compute::poc::{Artifact, StatTest, judge};
    use serde_json::{Value, json};

    use super::*;

    fn file() -> Value {
        json!({
            "_source": "a test", "scheme": "prefill", "model": "Qwen/Qwen3-0.6B", "seq_len": 1024, "k_dim": 12,
            "block_hash": "TEST_BLOCK", "block_height": 100, "public_key": "test_pub_keys",
            "node_id": 0, "node_count": 1, "dist_threshold": 0.2,
            "encoding": {"dtype": "f16", "k_dim": 12, "endian": "le"},
            "artifacts": [{"nonce": 0, "vector_b64": "AA=="}, {"nonce": 7, "vector_b64": ""}],
        })
    }

    #[test]
    fn a_set_is_read_with_its_round() {
        let golden = Golden::parse(&file().to_string()).unwrap();
        assert_eq!((golden.round.seq_len, golden.round.k_dim), (1024, 12));
        assert_eq!(golden.round.identity.block_hash, "TEST_BLOCK");
        assert_eq!(golden.artifacts, [(0, "AA==".to_owned()), (7, String::new())]);
        assert_eq!(golden.dist_threshold, Some(0.2));
        for name in ["qwen3-0.6b", "Qwen3 0.6B", "other/QWEN3_0.6b"] {
            assert!(golden.is_of(name), "{name}");
        }
        assert!(!golden.is_of("Qwen3-0.6B-Q4_K_M") && !golden.is_of("/"));
    }

    /// The sets that the network recorded on its own hardware; their weights are in nothing that can be fetched here.
    #[test]
    fn the_networks_own_sets_are_read_and_judged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/gonka");
        for (file, model, seq_len) in [
            ("poc_golden_qwen3-0.6b.json", "Qwen/Qwen3-0.6B", 1024),
            ("poc_golden_qwen3-32b-fp8.json", "Qwen/Qwen3-32B-FP8", 128),
        ] {
            let golden = Golden::read(&folder.join(file)).unwrap();
            let Round { identity, k_dim, stronger_rng, .. } = &golden.round;
            assert_eq!((golden.model.as_str(), golden.round.seq_len), (model, seq_len));
            assert_eq!((identity.block_hash.as_str(), *k_dim), ("TEST_BLOCK", 12));
            assert!(!stronger_rng && golden.dist_threshold == Some(0.2));
            let nonces: Vec<u32> = golden.artifacts.iter().map(|(nonce, _)| *nonce).collect();
            assert_eq!(nonces, (0..32).collect::<Vec<u32>>());
            let own = |shift: usize| -> Vec<Artifact> {
                let vectors = golden.artifacts.iter().map(|(_, vector)| vector).cycle().skip(shift);
                let artifact = |(nonce, vector_b64): (&u32, &String)| {
                    let vector = decode(vector_b64, *k_dim).unwrap();
                    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                    assert!((length - 1.0).abs() < 1e-3, "{file} nonce {nonce}: {length}");
                    let (points, comparison, vector_b64) = (vec![], None, vector_b64.clone());
                    Artifact { nonce: *nonce, vector, vector_b64, points, comparison }
                };
                nonces.iter().zip(vectors).map(artifact).collect()
            };
            let test = StatTest { dist_threshold: 0.2, p_mismatch: 0.1, fraud_threshold: 0.05 };
            let same = judge(&golden.artifacts, &own(0), test);
            assert!(same.mismatch_nonces.is_empty() && !same.fraud_detected);
            // Each nonce's vector is its own: the next one's is far away.
            let others = judge(&golden.artifacts, &own(1), test);
            assert!(others.mismatch_nonces.len() == 32 && others.fraud_detected, "{others:?}");
        }
        assert!(Golden::read(&folder.join("poc_golden_decode.json")).is_err());
    }

    #[test]
    fn what_is_no_golden_set_is_told() {
        for (name, value, words) in [
            ("scheme", json!("decode"), "PREFILL"),
            ("encoding", json!({"dtype": "f32"}), "expected f16"),
            ("encoding", json!({"dtype": "f16", "endian": "be"}), "little-endian"),
            ("encoding", json!({"dtype": "f16", "k_dim": 16}), "k_dim"),
            ("artifacts", json!([]), "no artifacts"),
            (
                "artifacts",
                json!([{"nonce": 1, "vector_b64": ""}, {"nonce": 1, "vector_b64": ""}]),
                "twice",
            ),
            ("artifacts", json!([{"nonce": 2_147_483_648_u32, "vector_b64": ""}]), "above"),
            ("artifacts", json!([{"nonce": -1, "vector_b64": ""}]), "-1"),
            ("seq_len", json!("long"), "string"),
            ("dist_threshold", json!(-0.1), "dist_threshold"),
        ] {
            let mut file = file();
            file[name] = value;
            let error = format!("{:#}", Golden::parse(&file.to_string()).unwrap_err());
            assert!(error.contains(words), "{name}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            drop(Golden::parse(&text));
        }

        #[test]
        fn a_set_cut_anywhere_is_an_error(at in 0_usize..400) {
            let text = file().to_string();
            let at = at.min(text.len() - 1);
            prop_assert!(Golden::parse(&text[..at]).is_err());
        }
    }
}
