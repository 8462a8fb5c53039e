//! Our own engine behind the queue: the compute crate's WGSL kernels.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use roadbed_compute::llm::{LoadProgress, Tuning};
use roadbed_compute::poc::{Artifact, Codebook, PocError, Prover, Round, Walks, decode_support};
use roadbed_compute::source;
use roadbed_compute::tokenizer::Tokenizer;
use roadbed_compute::{
    AdapterChoice, AdapterKind, AdapterSummary, BatchLoad, Card, Conversation, Engine, EngineError,
    EngineOptions, GenerateRequest, Generation, Gpu, PositionLogprobs, Scoring, SequenceEvent,
    SequenceId,
};

use super::adapter_memory::usable_memory;
use super::backend::{
    AnswerEvent, BackendLoader, EngineBackend, LoadRequest, ModelInfo, ProofStep,
};
use super::fault::EngineFault;
use super::kept::{self, kept_folder};
use super::rendering;
use super::rig::place;
use crate::grammar::GrammarCompiler;

/// Loading that is over sooner needs no words.
const QUIET: Duration = Duration::from_secs(2);
/// Between two lines about the same loading.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Loads GGUF files and Hugging Face folders with the compute crate. The default keeps nothing from one start to the
/// next.
#[derive(Debug, Clone, Default)]
pub struct WgpuLoader {
    kept: Option<PathBuf>,
    tuning: Tuning,
    codebook: Option<Arc<Codebook>>,
}

impl WgpuLoader {
    /// Takes the kernels that are fastest here, and keeps what makes the next start faster in this machine's folder for
    /// that.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self { kept: kept_folder(), tuning: kept::tuning(), codebook: None }
    }

    /// Proves in the scheme DECODE too, if there is the network's codebook for it.
    #[must_use]
    pub fn with_codebook(mut self, codebook: Option<Codebook>) -> Self {
        self.codebook = codebook.map(Arc::new);
        self
    }
}

impl BackendLoader for WgpuLoader {
    fn place(&mut self, request: &LoadRequest) -> Result<Vec<Vec<AdapterChoice>>, EngineFault> {
        place(request).map_err(|reason| EngineFault::Load {
            reason: format!("{}: {reason}", request.path.display()),
        })
    }

    fn kept(&self) -> Option<&Path> {
        self.kept.as_deref()
    }

    fn load(
        &mut self,
        request: &LoadRequest,
        break_off: &Arc<AtomicBool>,
    ) -> Result<Box<dyn EngineBackend>, EngineFault> {
        match open(request, self, break_off) {
            Ok(backend) => Ok(Box::new(backend)),
            Err(EngineError::BrokenOff) => Err(EngineFault::Cancelled),
            Err(error) => {
                Err(EngineFault::Load { reason: format!("{}: {error}", request.path.display()) })
            }
        }
    }
}

/// The GPUs of one replica.
fn cards(request: &LoadRequest, kept: Option<&Path>) -> Result<Vec<Card>, EngineError> {
    let best = [AdapterChoice::Best];
    let gpus = if request.gpus.is_empty() { &best[..] } else { &request.gpus };
    let card = |choice: &AdapterChoice| {
        let gpu = Gpu::open_keeping(choice, kept)?;
        let usable = || usable_memory(gpu.summary());
        let memory_bytes = budget(request.memory_bytes, gpu.summary(), gpus.len(), usable);
        Ok(Card { memory_bytes, gpu })
    };
    gpus.iter().map(card).collect()
}

/// Bytes that a model may take of a card: what was asked for, else what the system tells. A card that has too little
/// refuses before anything is uploaded: drivers that page its memory out to the machine's would serve at the speed of
/// the bus. A processor has no memory of its own; how much of the machine's it may take is known only if it is one of
/// several that share a model.
fn budget(
    asked: Option<u64>,
    adapter: &AdapterSummary,
    cards: usize,
    usable: impl FnOnce() -> Option<u64>,
) -> Option<u64> {
    asked.or_else(|| match adapter.kind {
        AdapterKind::Software => (cards > 1).then(usable).flatten(),
        AdapterKind::Discrete
        | AdapterKind::Integrated
        | AdapterKind::Virtual
        | AdapterKind::Unknown => usable(),
    })
}

fn open(
    request: &LoadRequest,
    loader: &WgpuLoader,
    break_off: &Arc<AtomicBool>,
) -> Result<WgpuBackend, EngineError> {
    let file = source::open(&request.path)?;
    // A tokenizer of our own beside the engine's: it stays readable while the engine is busy generating.
    let tokenizer = file.tokenizer()?;
    let options = EngineOptions {
        context_tokens: request.context_tokens,
        kv: request.kv,
        tuning: loader.tuning,
        break_off: Some(Arc::clone(break_off)),
        ..EngineOptions::default()
    };
    let cards = cards(request, loader.kept.as_deref())?;
    let tell = telling(&request.served_as);
    let engine = Engine::load_over(&*file, &request.served_as, &cards, &options, &tell)?;
    let usual_end = tokenizer.encode(&tokenizer.eos_text())?;
    let ids = 0..u32::try_from(tokenizer.vocabulary()).unwrap_or(u32::MAX);
    let others = ids.filter(|id| tokenizer.is_end(*id) && !usual_end.contains(id));
    let end_ids: Vec<u32> = usual_end.iter().copied().chain(others).collect();
    let token = |id| (!tokenizer.is_control(id)).then(|| tokenizer.bytes(id).to_vec());
    let ids = 0..u32::try_from(engine.info().vocabulary).unwrap_or(u32::MAX);
    let grammars = GrammarCompiler::new(ids.map(token).collect(), &end_ids);
    let served_as = request.served_as.clone();
    let codebook = loader.codebook.clone();
    Ok(WgpuBackend {
        prover: None,
        walks: None,
        engine,
        tokenizer,
        served_as,
        end_ids,
        grammars,
        codebook,
    })
}

/// Logs how far loading is.
pub(crate) fn telling(model: &str) -> impl Fn(LoadProgress) {
    let next = Cell::new(Instant::now() + QUIET);
    move |progress| {
        if Instant::now() < next.get() {
            return;
        }
        next.set(Instant::now() + LINE_EVERY);
        match progress {
            LoadProgress::Weights { done_bytes, total_bytes } => {
                let percent = done_bytes.saturating_mul(100) / total_bytes.max(1);
                tracing::info!(model, done_bytes, total_bytes, "loading, {percent} %");
            }
            LoadProgress::Kernels { done, total } => {
                tracing::info!(model, "compiling kernels, {done} of {total}");
            }
            LoadProgress::Tuning { done, total } => {
                tracing::info!(model, "trying out kernels on this adapter, {done} of {total}");
            }
        }
    }
}

struct WgpuBackend {
    // Before the engine, so that its buffers are freed first.
    prover: Option<Prover>,
    /// Of that prover.
    walks: Option<Walks>,
    engine: Engine,
    tokenizer: Tokenizer,
    served_as: String,
    end_ids: Vec<u32>,
    grammars: GrammarCompiler,
    codebook: Option<Arc<Codebook>>,
}

impl EngineBackend for WgpuBackend {
    fn info(&self) -> ModelInfo {
        let info = self.engine.info();
        ModelInfo {
            served_as: self.served_as.clone(),
            adapter: info.adapter.clone(),
            adapters: info.stages.iter().map(|stage| stage.adapter.clone()).collect(),
            context_tokens: info.context_tokens,
            vocabulary: info.vocabulary,
            end_ids: self.end_ids.clone(),
            weights: Some(info.weights),
            memory_bytes: info.weight_bytes.saturating_add(info.working_bytes),
            grammars: Some(self.grammars.clone()),
            answers_max: info.sequences,
            decode: decode_support(&self.engine, self.codebook.as_deref()),
        }
    }

    fn health(&self) -> Result<(), EngineFault> {
        Ok(self.engine.health()?)
    }

    fn tokenize_prompt(&self, text: &str) -> Result<Vec<u32>, EngineFault> {
        Ok(self.engine.tokenize(text)?)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineFault> {
        Ok(self.tokenizer.encode(text).map_err(EngineError::from)?)
    }

    fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.tokenizer.bytes(id).to_vec()
    }

    fn detokenize(&self, ids: &[u32]) -> String {
        self.engine.detokenize(ids)
    }

    fn render_chat(&self, conversation: &Conversation) -> Result<String, EngineFault> {
        rendering::render(self.engine.chat_template()?, conversation, SystemTime::now())
    }

    fn admit(&mut self, request: GenerateRequest) -> Result<SequenceId, EngineFault> {
        Ok(self.engine.admit(request)?)
    }

    fn step(&mut self) -> Result<Vec<AnswerEvent>, EngineFault> {
        let event = |event| match event {
            SequenceEvent::Token { id, token } => AnswerEvent::Token { id, token },
            SequenceEvent::Finished { id, generation } => AnswerEvent::Finished { id, generation },
            SequenceEvent::Failed { id, error } => AnswerEvent::Failed { id, fault: error.into() },
        };
        Ok(self.engine.step()?.into_iter().map(event).collect())
    }

    fn cancel(&mut self, id: SequenceId) -> Option<Generation> {
        self.engine.cancel(id)
    }

    fn batch_load(&self) -> BatchLoad {
        self.engine.batch_load()
    }

    fn score(
        &mut self,
        prompt_ids: &[u32],
        continuation_ids: &[u32],
        scoring: &Scoring,
    ) -> Result<Vec<PositionLogprobs>, EngineFault> {
        Ok(self.engine.replay(prompt_ids, continuation_ids, scoring)?)
    }

    fn prepare_proof(&mut self, round: &Round) -> Result<usize, EngineFault> {
        if let Some(prover) = &self.prover
            && prover.round() == round
        {
            return Ok(prover.pass_nonces());
        }
        // The old round's buffers first, or two would need memory at once.
        self.prover = None;
        self.walks = None;
        let prover = Prover::new(&self.engine, round.clone(), self.codebook.as_ref())?;
        let pass_nonces = prover.pass_nonces();
        self.prover = Some(prover);
        Ok(pass_nonces)
    }

    fn prove(&mut self, round: &Round, nonces: &[u32]) -> Result<Vec<ProofStep>, EngineFault> {
        self.prepare_proof(round)?;
        let Some(prover) = &self.prover else { return Ok(vec![]) };
        let artifacts = prover.prove(&mut self.engine, nonces)?;
        Ok(steps(nonces.iter().copied(), artifacts))
    }

    fn begin_walk(&mut self, round: &Round, nonces: &[u32]) -> Result<(), EngineFault> {
        self.walks = None;
        self.prepare_proof(round)?;
        self.walks = self.prover.as_ref().map(|prover| prover.begin(nonces)).transpose()?;
        Ok(())
    }

    fn begin_comparing(
        &mut self,
        round: &Round,
        claimed: &[(u32, &[u8])],
    ) -> Result<(), EngineFault> {
        self.walks = None;
        self.prepare_proof(round)?;
        let begun = self.prover.as_ref().map(|prover| prover.begin_comparing(claimed));
        self.walks = begun.transpose()?;
        Ok(())
    }

    fn walk_on(&mut self) -> Result<Option<Vec<ProofStep>>, EngineFault> {
        let (Some(prover), Some(mut walks)) = (&self.prover, self.walks.take()) else {
            return Err(EngineFault::Failed { reason: "no nonces are walked".into() });
        };
        match prover.walk_on(&mut self.engine, &mut walks)? {
            Some(artifacts) => Ok(Some(steps(walks.asked(), artifacts))),
            None => {
                self.walks = Some(walks);
                Ok(None)
            }
        }
    }
}

fn steps(nonces: impl Iterator<Item = u32>, artifacts: Vec<Option<Artifact>>) -> Vec<ProofStep> {
    let step = |(nonce, artifact): (u32, Option<Artifact>)| {
        artifact.map_or(ProofStep::Dropped { nonce }, ProofStep::Artifact)
    };
    nonces.zip(artifacts).map(step).collect()
}

impl From<PocError> for EngineFault {
    fn from(error: PocError) -> Self {
        match error {
            PocError::Request(reason) | PocError::Malformed(reason) => {
                Self::BadRequest { field: "params".into(), reason }
            }
            PocError::Unsupported(refusal) => {
                Self::BadRequest { field: "params.scheme".into(), reason: refusal.to_string() }
            }
            PocError::Engine(error) => error.into(),
            PocError::Gpu(error) => EngineError::from(error).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_a_budget_although_nobody_asked_for_one() {
        let of = |kind, asked, cards| {
            let [name, backend, driver] = [""; 3].map(str::to_owned);
            let adapter =
                AdapterSummary { index: 0, name, backend, kind, pci_bus_id: None, driver };
            budget(asked, &adapter, cards, || Some(8_000))
        };
        assert_eq!(of(AdapterKind::Discrete, None, 1), Some(8_000));
        assert_eq!(of(AdapterKind::Discrete, Some(5), 1), Some(5));
        assert_eq!(of(AdapterKind::Integrated, None, 1), Some(8_000));
        assert_eq!(of(AdapterKind::Software, None, 1), None);
        assert_eq!(of(AdapterKind::Software, None, 2), Some(8_000));
    }
}
