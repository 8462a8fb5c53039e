//! Artifacts for a list of nonces, by the engine that also serves the model.
//!
//! What belongs to the round (reflection vectors on the GPU, the input generator) is prepared once
//! in a [`Prover`]; after that a nonce is inputs, one forward pass, and a read-out on the host. The
//! engine is borrowed per pass, so between two passes it can do something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::PocError;
use super::artifact::Artifact;
use super::codebook::{Codebook, SPHERE_DIMS};
use super::generator::InputGenerator;
use super::inputs::{INPUT_VALUES_MAX, InputStreams};
use super::reflection::layer_vectors;
use super::scheme::{DecodeRefusal, DecodeTerms, Scheme};
use super::seed::Identity;
use super::walk::{Ground, Walks};
use crate::llm::{Engine, ProofEmbeddings, ProofInputs, ProofPlace, Reflections};

/// Tokens of one forward pass on a GPU: several nonces at once where they are short.
const PASS_TOKENS: usize = 4096;
/// Most nonces of one pass; the network's own nodes take 32.
const PASS_NONCES_MAX: usize = 32;
/// Most nonces of one request; a validation samples a few hundred.
pub const REQUEST_NONCES_MAX: usize = 1 << 16;

/// What every nonce of a round shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub identity: Identity,
    /// Tokens of the pseudo prompt.
    pub seq_len: usize,
    /// Dimensions of the artifact, [`super::K_DIM`] on the network.
    pub k_dim: usize,
    /// `poc_stronger_rng` of the request.
    pub stronger_rng: bool,
    pub scheme: Scheme,
}

/// A round and the nonces wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRequest {
    pub round: Round,
    pub nonces: Vec<u32>,
}

/// How a request ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofSummary {
    pub artifacts: usize,
    /// Nonces whose hidden state held a NaN; the network expects them to be left out.
    pub dropped: Vec<u32>,
    /// Whether every nonce was worked on.
    pub complete: bool,
}

/// A round made ready on one engine's GPU.
pub struct Prover {
    round: Round,
    hidden: u32,
    layers: usize,
    /// Experts of a layer, where there are any.
    experts: Option<u32>,
    reflections: Reflections,
    inputs: InputGenerator,
    pass_nonces: usize,
    /// Of the scheme DECODE.
    decoding: Option<Decoding>,
}

/// What the steps behind a prefill need.
struct Decoding {
    terms: DecodeTerms,
    codebook: Arc<Codebook>,
    /// Makes the single rows of a step.
    rows: InputGenerator,
    /// Nonces whose prefills make one pass.
    prefill_nonces: usize,
}

/// Why an engine does not prove in the scheme DECODE, if it does not.
///
/// # Errors
/// The reason.
pub fn decode_support(engine: &Engine, codebook: Option<&Codebook>) -> Result<(), DecodeRefusal> {
    let hidden = engine.info().hidden;
    if hidden < SPHERE_DIMS {
        return Err(DecodeRefusal::Narrow { hidden });
    }
    codebook.map(|_| ()).ok_or(DecodeRefusal::NoCodebook)
}

impl Prover {
    /// Uploads the round's reflection vectors and prepares the input generator. A round of the scheme DECODE needs the
    /// network's codebook.
    ///
    /// # Errors
    /// A round this model cannot run ([`PocError::Request`]) or a scheme that is not served
    /// ([`PocError::Unsupported`]), or a failure of the GPU.
    pub fn new(
        engine: &Engine,
        round: Round,
        codebook: Option<&Arc<Codebook>>,
    ) -> Result<Self, PocError> {
        let info = engine.info();
        let refuse = |why: String| Err(PocError::Request(why));
        let tokens = round.scheme.tokens(round.seq_len);
        if round.seq_len == 0 || tokens > info.context_tokens {
            let context = info.context_tokens;
            let steps = match round.scheme {
                Scheme::Prefill => String::new(),
                Scheme::Decode(terms) => format!(" and {} steps", terms.max_tokens),
            };
            return refuse(format!(
                "seq_len {}{steps}, the context holds {context}",
                round.seq_len
            ));
        }
        if round.k_dim == 0 || round.k_dim > info.hidden {
            return refuse(format!("k_dim {}, the model has {}", round.k_dim, info.hidden));
        }
        let count = round.seq_len.checked_mul(info.hidden).and_then(|n| u32::try_from(n).ok());
        let (Some(count), Ok(hidden)) = (count, u32::try_from(info.hidden)) else {
            return refuse(format!("seq_len {} x hidden {}", round.seq_len, info.hidden));
        };
        let gpu = engine.gpu();
        let pass_nonces = pass_nonces(engine, &round, count);
        let generator = |count| InputGenerator::new(Arc::clone(gpu), count, pass_nonces);
        let decoding = match round.scheme {
            Scheme::Prefill => None,
            Scheme::Decode(terms) => {
                decode_support(engine, codebook.map(|codebook| &**codebook))?;
                let codebook = codebook.map(Arc::clone).ok_or(DecodeRefusal::NoCodebook)?;
                let prefill_nonces = prefill_nonces(engine, &round).clamp(1, pass_nonces);
                Some(Decoding { terms, codebook, rows: generator(hidden)?, prefill_nonces })
            }
        };
        let vectors = layer_vectors(&round.identity, info.layers, hidden);
        Ok(Self {
            reflections: Reflections::upload(engine, &vectors)?,
            inputs: generator(count)?,
            hidden,
            layers: info.layers,
            experts: engine.expert_count().and_then(|count| u32::try_from(count).ok()),
            pass_nonces,
            decoding,
            round,
        })
    }

    /// The round this prover was made for.
    #[must_use]
    pub fn round(&self) -> &Round {
        &self.round
    }

    /// Most nonces [`Self::prove`] takes at once.
    #[must_use]
    pub fn pass_nonces(&self) -> usize {
        self.pass_nonces
    }

    /// Final-norm hidden states `[hidden]` of the last tokens of up to [`Self::pass_nonces`] nonces of a PREFILL round.
    ///
    /// `engine` must be the one this prover was made with.
    ///
    /// # Errors
    /// Too many nonces, or a failure of the engine.
    pub fn hidden_states(
        &self,
        engine: &mut Engine,
        nonces: &[u32],
    ) -> Result<Vec<Vec<f32>>, PocError> {
        self.prefill(engine, nonces, self.round.stronger_rng, ProofPlace::Whole, &[])
    }

    fn prefill(
        &self,
        engine: &mut Engine,
        nonces: &[u32],
        stronger_rng: bool,
        place: ProofPlace,
        experts: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>, PocError> {
        let Round { identity, seq_len, .. } = &self.round;
        let count = self.hidden * *seq_len as u32;
        let streams: Vec<InputStreams> = nonces
            .iter()
            .map(|&nonce| InputStreams::new(identity, nonce, count, stronger_rng))
            .collect();
        let embeddings = ProofEmbeddings::Device(self.inputs.generate(&streams)?);
        Ok(engine.prove_hidden(&ProofInputs {
            sequences: nonces.len(),
            tokens: *seq_len,
            embeddings,
            reflections: Some(&self.reflections),
            place,
            experts,
        })?)
    }

    /// Artifacts of up to [`Self::pass_nonces`] nonces, in order; `None` for a nonce that gave NaN.
    ///
    /// # Errors
    /// As [`Self::hidden_states`].
    pub fn prove(
        &self,
        engine: &mut Engine,
        nonces: &[u32],
    ) -> Result<Vec<Option<Artifact>>, PocError> {
        if self.decoding.is_some() {
            let mut walks = self.begin(nonces)?;
            return self.walk_out(engine, &mut walks);
        }
        let hidden = self.hidden_states(engine, nonces)?;
        let Round { identity, k_dim, .. } = &self.round;
        let read_out = |(&nonce, hidden): (&u32, &Vec<f32>)| {
            Artifact::read_out(identity, nonce, hidden, *k_dim)
        };
        Ok(nonces.iter().zip(&hidden).map(read_out).collect())
    }

    /// As [`Self::prove`] in a round of the scheme DECODE, each nonce stepped along the trajectory that somebody claims
    /// for it; the artifact says how it compares. A claim of the wrong length mismatches without being computed.
    ///
    /// # Errors
    /// As [`Self::prove`]; an empty claim, or a round of the other scheme, is nothing to compare with.
    pub fn compare(
        &self,
        engine: &mut Engine,
        claimed: &[(u32, &[u8])],
    ) -> Result<Vec<Option<Artifact>>, PocError> {
        let mut walks = self.begin_comparing(claimed)?;
        self.walk_out(engine, &mut walks)
    }

    /// Begins what [`Self::prove`] does in a round of the scheme DECODE; nothing is computed yet.
    ///
    /// # Errors
    /// Too many nonces, or a round of the other scheme.
    pub fn begin(&self, nonces: &[u32]) -> Result<Walks, PocError> {
        self.decoding("nonces are walked")?;
        self.check_count(nonces.len())?;
        Ok(Walks::new(&self.ground(), nonces))
    }

    /// Begins what [`Self::compare`] does.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub fn begin_comparing(&self, claimed: &[(u32, &[u8])]) -> Result<Walks, PocError> {
        let decoding = self.decoding("trajectories are compared")?;
        self.check_count(claimed.len())?;
        if let Some((nonce, _)) = claimed.iter().find(|(_, points)| points.is_empty()) {
            let why = format!("there is no trajectory to compare nonce {nonce} with");
            return Err(PocError::Request(why));
        }
        Ok(Walks::comparing(&self.ground(), claimed, decoding.terms.max_tokens + 1))
    }

    /// One forward pass of what was begun; what came of it once all steps are done.
    ///
    /// `engine` must be the one this prover was made with, and may not have proved or replayed anything else since.
    ///
    /// # Errors
    /// A failure of the engine; then nothing came of it.
    pub fn walk_on(
        &self,
        engine: &mut Engine,
        walks: &mut Walks,
    ) -> Result<Option<Vec<Option<Artifact>>>, PocError> {
        let decoding = self.decoding("nonces are walked")?;
        let Round { seq_len, scheme, .. } = &self.round;
        let room = scheme.tokens(*seq_len);
        let waiting = walks.next_prefill(decoding.prefill_nonces);
        if !waiting.is_empty() {
            let first = walks.prefilled;
            let experts = walks.experts(first, waiting.len(), 0);
            let place = ProofPlace::Kept { position: 0, room, first };
            // This scheme's prefill knows the plain generator only.
            let hidden = self.prefill(engine, waiting, false, place, &experts)?;
            walks.prefills(&decoding.codebook, self.hidden, &hidden);
        } else if walks.step < decoding.terms.max_tokens && !walks.nonces.is_empty() {
            let (sequences, step) = (walks.nonces.len(), walks.step + 1);
            let rows = walks.rows(self.hidden);
            let hidden = engine.prove_hidden(&ProofInputs {
                sequences,
                tokens: 1,
                embeddings: ProofEmbeddings::Device(decoding.rows.generate(&rows)?),
                reflections: Some(&self.reflections),
                place: ProofPlace::Kept { position: seq_len + step - 1, room, first: 0 },
                experts: &walks.experts(0, sequences, step),
            })?;
            walks.steps(&decoding.codebook, self.hidden, &hidden);
        }
        let prefilled = walks.prefilled == walks.nonces.len();
        let stepped = walks.step == decoding.terms.max_tokens || walks.nonces.is_empty();
        Ok((prefilled && stepped).then(|| walks.finish()))
    }

    fn walk_out(
        &self,
        engine: &mut Engine,
        walks: &mut Walks,
    ) -> Result<Vec<Option<Artifact>>, PocError> {
        loop {
            if let Some(artifacts) = self.walk_on(engine, walks)? {
                return Ok(artifacts);
            }
        }
    }

    fn ground(&self) -> Ground<'_> {
        let Self { layers, experts, .. } = *self;
        Ground { identity: &self.round.identity, layers, experts }
    }

    fn decoding(&self, what: &str) -> Result<&Decoding, PocError> {
        let refused = || PocError::Request(format!("{what} in DECODE rounds only"));
        self.decoding.as_ref().ok_or_else(refused)
    }

    fn check_count(&self, count: usize) -> Result<(), PocError> {
        let most = self.pass_nonces;
        let refused = || PocError::Request(format!("{count} nonces at once, at most {most}"));
        (count <= most).then_some(()).ok_or_else(refused)
    }
}

/// Nonces whose prefills are worth one pass: so many that a GPU is busy, and so few that a stop is prompt.
fn prefill_nonces(engine: &Engine, round: &Round) -> usize {
    // No gain on a CPU.
    if engine.gpu().is_software() { 1 } else { PASS_TOKENS / round.seq_len }
}

/// Nonces that are worth one step on this engine's adapter.
fn pass_nonces(engine: &Engine, round: &Round, count: u32) -> usize {
    let gpu = engine.gpu();
    let most = match round.scheme {
        Scheme::Prefill if gpu.is_software() => return 1,
        Scheme::Prefill => prefill_nonces(engine, round),
        // A step of one nonce has a single row; the more there are, the better it pays to read the weights.
        Scheme::Decode(_) => engine.proof_sequences(round.scheme.tokens(round.seq_len)),
    };
    let fits = (gpu.limits().max_storage_buffer_binding_size / (4 * u64::from(count.max(1))))
        .min(u64::from(INPUT_VALUES_MAX / count.max(1)));
    most.min(usize::try_from(fits).unwrap_or(PASS_NONCES_MAX)).clamp(1, PASS_NONCES_MAX)
}

/// Proves every nonce of a PREFILL request, handing each artifact to `on_artifact` as soon as it exists.
///
/// `stop` is looked at before every forward pass.
///
/// # Errors
/// A request this model cannot run, or a failure of the GPU; artifacts already handed out stay
/// good.
pub fn compute_artifacts(
    engine: &mut Engine,
    request: &ProofRequest,
    stop: &AtomicBool,
    on_artifact: &mut dyn FnMut(Artifact),
) -> Result<ProofSummary, PocError> {
    if request.nonces.len() > REQUEST_NONCES_MAX {
        let count = request.nonces.len();
        let why = format!("{count} nonces in one request, at most {REQUEST_NONCES_MAX}");
        return Err(PocError::Request(why));
    }
    let prover = Prover::new(engine, request.round.clone(), None)?;
    let mut summary = ProofSummary::default();
    for nonces in request.nonces.chunks(prover.pass_nonces()) {
        if stop.load(Ordering::Relaxed) {
            return Ok(summary);
        }
        for (&nonce, artifact) in nonces.iter().zip(prover.prove(engine, nonces)?) {
            match artifact {
                Some(artifact) => {
                    summary.artifacts += 1;
                    on_artifact(artifact);
                }
                None => summary.dropped.push(nonce),
            }
        }
    }
    summary.complete = true;
    Ok(summary)
}
