//! What an engine must be able to do to stand behind the queue.
//!
//! All calls block and all of them are made from one thread, so a backend needs no locks. The values are those of the
//! compute crate, plain data without a GPU in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roadbed_compute::gguf::TensorType;
use roadbed_compute::llm::KvFormat;
use roadbed_compute::poc::{Artifact, DecodeRefusal, PocError, Round};
use roadbed_compute::{
    AdapterChoice, AdapterSummary, BatchLoad, Conversation, GenerateRequest, Generation, NewToken,
    PositionLogprobs, Scoring, SequenceId,
};

use super::fault::EngineFault;
use crate::config::Split;
use crate::grammar::GrammarCompiler;

/// What to load and how it is called outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    /// The model file.
    pub path: PathBuf,
    /// The name the network and customers call it by; `/v1/models` must show exactly this.
    pub served_as: String,
    /// Which GPUs; none is the best there is. A loader is given those of one replica.
    pub gpus: Vec<AdapterChoice>,
    /// How the model is shared out over several GPUs.
    pub split: Split,
    /// Longest sequence, prompt and answer together; `None` leaves it to the backend.
    pub context_tokens: Option<usize>,
    /// Bytes of memory the model may take on each GPU; `None` if nobody said.
    pub memory_bytes: Option<u64>,
    /// How answers keep keys and values.
    pub kv: KvFormat,
}

impl LoadRequest {
    /// For a server that knows its model by itself: nothing but the name.
    #[must_use]
    pub fn of_server(served_as: &str) -> Self {
        Self {
            path: PathBuf::new(),
            served_as: served_as.to_owned(),
            gpus: vec![],
            split: Split::default(),
            context_tokens: None,
            memory_bytes: None,
            kv: KvFormat::F32,
        }
    }
}

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name it is served under.
    pub served_as: String,
    /// The GPU it runs on, the first of several.
    pub adapter: AdapterSummary,
    /// All GPUs of a replica, in the order in which layers pass; of a model on several replicas, the first one's.
    pub adapters: Vec<AdapterSummary>,
    /// Longest sequence it takes.
    pub context_tokens: usize,
    /// Number of token ids; every id is below.
    pub vocabulary: usize,
    /// Ids that end an answer, the usual one first, when the backend knows them.
    pub end_ids: Vec<u32>,
    /// Of the layers' matrices, the type with the fewest bits; `None` of a server, which alone knows it.
    pub weights: Option<TensorType>,
    /// Bytes of GPU memory taken.
    pub memory_bytes: u64,
    /// Compiles the forms answers may be asked for; `None` if the backend cannot keep to them.
    pub grammars: Option<GrammarCompiler>,
    /// Answers that may be under way together.
    pub answers_max: usize,
    /// Whether it proves in the scheme DECODE, and if not, why.
    pub decode: Result<(), DecodeRefusal>,
}

/// What became of an answer under way.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// One more token.
    Token {
        /// Of which answer.
        id: SequenceId,
        /// The token.
        token: NewToken,
    },
    /// It is complete; nothing follows.
    Finished {
        /// Which answer.
        id: SequenceId,
        /// All of it.
        generation: Generation,
    },
    /// It cannot go on, whereas the others can; nothing follows.
    Failed {
        /// Which answer.
        id: SequenceId,
        /// Why.
        fault: EngineFault,
    },
}

/// What became of one nonce.
#[derive(Debug, Clone, PartialEq)]
pub enum ProofStep {
    /// It was proved.
    Artifact(Artifact),
    /// The model gave NaN for it: the network drops such a nonce without a word.
    Dropped {
        /// Which one.
        nonce: u32,
    },
}

impl ProofStep {
    /// The nonce it is about.
    #[must_use]
    pub const fn nonce(&self) -> u32 {
        match self {
            Self::Artifact(artifact) => artifact.nonce,
            Self::Dropped { nonce } => *nonce,
        }
    }
}

/// Loads models; called on an engine thread, which then owns what it returns.
pub trait BackendLoader: Send + 'static {
    /// Shares the GPUs of a request out: one list for each replica, at most as many as the service has threads. Called
    /// when the GPUs hold nothing.
    ///
    /// # Errors
    /// [`EngineFault::Load`] if the model does not fit them.
    fn place(&mut self, request: &LoadRequest) -> Result<Vec<Vec<AdapterChoice>>, EngineFault> {
        Ok(vec![request.gpus.clone()])
    }

    /// The folder in which what was found out about this machine is kept, if any.
    fn kept(&self) -> Option<&Path> {
        None
    }

    /// Loads one replica on the GPUs of its request; blocks until it answers, or soon after another thread has set
    /// `break_off`.
    ///
    /// # Errors
    /// [`EngineFault::Load`] with what failed and where; [`EngineFault::Cancelled`] if it was broken off.
    fn load(
        &mut self,
        request: &LoadRequest,
        break_off: &Arc<AtomicBool>,
    ) -> Result<Box<dyn EngineBackend>, EngineFault>;
}

/// One loaded model. Dropping it frees everything it holds.
pub trait EngineBackend {
    /// What is loaded.
    fn info(&self) -> ModelInfo;

    /// Fails if the device was lost.
    ///
    /// # Errors
    /// [`EngineFault::DeviceLost`].
    fn health(&self) -> Result<(), EngineFault>;

    /// Token ids of a text that begins a sequence: with a begin-of-text token in front if the model wants one.
    ///
    /// # Errors
    /// Text the tokenizer cannot take.
    fn tokenize_prompt(&self, text: &str) -> Result<Vec<u32>, EngineFault>;

    /// Token ids of a text alone. Control tokens in it are recognised, here and in prompts.
    ///
    /// # Errors
    /// Text the tokenizer cannot take.
    fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineFault>;

    /// The bytes one token stands for; a token may be a part of a character.
    fn token_bytes(&self, id: u32) -> Vec<u8>;

    /// Text of token ids; bytes that are no UTF-8 become U+FFFD.
    fn detokenize(&self, ids: &[u32]) -> String;

    /// The prompt for a conversation by the model's own template.
    ///
    /// # Errors
    /// Messages the template refuses.
    fn render_chat(&self, conversation: &Conversation) -> Result<String, EngineFault>;

    /// Takes a request in. [`EngineBackend::step`] works on it, together with all others; ids are never used twice.
    ///
    /// # Errors
    /// A request that cannot be met, or [`EngineFault::QueueFull`].
    fn admit(&mut self, request: GenerateRequest) -> Result<SequenceId, EngineFault>;

    /// Works a short step on everything that was taken in, and says what came of it.
    ///
    /// # Errors
    /// A failure of all answers under way, most often a device that failed.
    fn step(&mut self) -> Result<Vec<AnswerEvent>, EngineFault>;

    /// Drops an answer and frees what it holds, at once. Returns what it had come to; `None` if it has ended already.
    fn cancel(&mut self, id: SequenceId) -> Option<Generation>;

    /// How many answers there are and how much room is left.
    fn batch_load(&self) -> BatchLoad;

    /// Log probabilities of `continuation_ids` after `prompt_ids`, as `scoring` wants them.
    ///
    /// # Errors
    /// A request that cannot be met, or a device that failed.
    fn score(
        &mut self,
        prompt_ids: &[u32],
        continuation_ids: &[u32],
        scoring: &Scoring,
    ) -> Result<Vec<PositionLogprobs>, EngineFault>;

    /// Makes a round ready, unless it is the one that is ready already, and says how many of its nonces are worth
    /// one step on this GPU; between two steps chats get their turn.
    ///
    /// # Errors
    /// A round this model cannot run, or a device that failed.
    fn prepare_proof(&mut self, round: &Round) -> Result<usize, EngineFault>;

    /// Proves nonces of a PREFILL round that is ready, in order, at most as many as are worth one step.
    ///
    /// # Errors
    /// A request that cannot be met, or a device that failed. Then none of the nonces counts.
    fn prove(&mut self, round: &Round, nonces: &[u32]) -> Result<Vec<ProofStep>, EngineFault>;

    /// Begins to walk nonces of a DECODE round that is ready, at most as many as are worth one step; whatever was walked
    /// before is forgotten. Nothing else may be proved or scored before [`EngineBackend::walk_on`] has come to the end.
    ///
    /// # Errors
    /// As [`EngineBackend::prove`]; a backend without the scheme refuses.
    fn begin_walk(&mut self, _round: &Round, _nonces: &[u32]) -> Result<(), EngineFault> {
        Err(PocError::from(DecodeRefusal::NotOurs).into())
    }

    /// As [`EngineBackend::begin_walk`], each nonce along the trajectory claimed for it.
    ///
    /// # Errors
    /// As [`EngineBackend::begin_walk`].
    fn begin_comparing(
        &mut self,
        _round: &Round,
        _claimed: &[(u32, &[u8])],
    ) -> Result<(), EngineFault> {
        Err(PocError::from(DecodeRefusal::NotOurs).into())
    }

    /// One forward pass of what is walked; a step for each nonce, in order, once they are at their end.
    ///
    /// # Errors
    /// As [`EngineBackend::prove`].
    fn walk_on(&mut self) -> Result<Option<Vec<ProofStep>>, EngineFault> {
        Err(PocError::from(DecodeRefusal::NotOurs).into())
    }
}
