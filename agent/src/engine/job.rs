//! Jobs of the engine: what callers hand in, what they get back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roadbed_compute::grammar::Grammar;
use roadbed_compute::poc::Round;
use roadbed_compute::{
    Conversation, FinishReason, Generation, LogprobsMode, PositionLogprobs, Sampling, TokenLogprob,
    Usage,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::backend::{LoadRequest, ProofStep};
use super::fault::EngineFault;

/// Tokens of one answer that may wait for their reader. More than the default context, so that the GPU never waits
/// for a slow customer; one so slow that even this is full is cut off.
pub const TOKENS_BUFFERED_MAX: usize = 4096;

/// Where the prompt comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A conversation, rendered by the model's template.
    Chat(Conversation),
    /// Plain text that begins a sequence: with a begin-of-text token in front if the model wants one.
    Text(String),
    /// Plain text alone.
    Piece(String),
    /// Token ids.
    Ids(Vec<u32>),
}

/// One generation.
#[derive(Debug, Clone, PartialEq)]
pub struct TextRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// Most new tokens; `None` is up to the context's end.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Alternatives per position; `None` gives no log probabilities.
    pub top_logprobs: Option<usize>,
    /// The form the answer must have.
    pub grammar: Option<Grammar>,
    /// Control tokens are shown in the text, but for those that end it.
    pub keep_control: bool,
    /// Least new tokens, but for an answer that has come to the end of its form.
    pub min_tokens: usize,
    /// What log probabilities tell of.
    pub logprobs_mode: LogprobsMode,
}

impl TextRequest {
    /// The likeliest continuation of a prompt, up to the model's own end of it.
    #[must_use]
    pub const fn greedy(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: None,
            sampling: Sampling::GREEDY,
            stop: vec![],
            top_logprobs: None,
            grammar: None,
            keep_control: false,
            min_tokens: 0,
            logprobs_mode: LogprobsMode::Raw,
        }
    }
}

/// A replay: log probabilities of a given answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRequest {
    /// What the answer continues.
    pub prompt: Prompt,
    /// The answer.
    pub continuation: Prompt,
    /// Alternatives per position.
    pub top: usize,
    /// What log probabilities tell of.
    pub logprobs_mode: LogprobsMode,
    /// What the answer was drawn with; counts where log probabilities are processed.
    pub sampling: Sampling,
    /// How far it goes; `None` is as far as the answer.
    pub extent: Option<ReplayExtent>,
}

/// How far the network's replay goes: its engine generates and puts the given tokens in place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayExtent {
    /// Least tokens; past the end of the list, its last one comes again.
    pub min_tokens: usize,
    /// Most tokens, if the request says.
    pub max_tokens: Option<usize>,
}

impl ReplayExtent {
    /// With no more least tokens than there is room for.
    #[must_use]
    pub fn within(self, room: usize) -> Self {
        let most = self.max_tokens.unwrap_or(room).min(room);
        Self { min_tokens: self.min_tokens.min(most), ..self }
    }
}

/// A prompt as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Their text, control tokens included.
    pub text: String,
}

/// A replayed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Text of the answer.
    pub text: String,
    /// One entry per token of the answer.
    pub tokens: Vec<TokenText>,
    /// Tokens of prompt and answer.
    pub usage: Usage,
    /// Ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// True if the answer ends with an end-of-text token.
    pub ended: bool,
}

/// A token with its bytes and log probability, and the likeliest ones in its place (without further ones in them).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenText {
    /// Token id.
    pub id: u32,
    /// Its bytes alone; a token may be a part of a character.
    pub bytes: Vec<u8>,
    /// Natural log probability.
    pub logprob: f32,
    /// The likeliest tokens, best first.
    pub top: Vec<TokenText>,
    /// Ids and log probabilities that a draw by the sampling contract was made from; else empty.
    pub drawn_from: Vec<TokenLogprob>,
}

impl TokenText {
    /// Gives the ids of a position their texts.
    pub(super) fn of(position: &PositionLogprobs, bytes: &[Vec<u8>]) -> Self {
        let alone = |id: u32, logprob: f32| Self {
            id,
            bytes: bytes.get(id as usize).cloned().unwrap_or_default(),
            logprob,
            top: vec![],
            drawn_from: vec![],
        };
        let mut token = alone(position.id, position.logprob);
        token.top = position.top.iter().map(|top| alone(top.id, top.logprob)).collect();
        token.drawn_from.clone_from(&position.drawn_from);
        token
    }

    /// Its text alone; U+FFFD stands for a part of a character.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// One new token of a running generation.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamToken {
    /// Token id.
    pub id: u32,
    /// Text that became certain with it; may be empty.
    pub text: String,
    /// Present if the request asked for log probabilities.
    pub logprobs: Option<TokenText>,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The prompt as the model saw it.
    pub prompt_ids: Vec<u32>,
    /// What was generated.
    pub generation: Generation,
    /// The log probabilities with their bytes, one entry per id, if they were asked for.
    pub tokens: Vec<TokenText>,
}

impl Answer {
    /// Why it ended.
    #[must_use]
    pub const fn finish(&self) -> FinishReason {
        self.generation.finish
    }
}

/// A generation under way. Dropping it cancels the job.
#[derive(Debug)]
pub struct RunningGeneration {
    /// Tokens as they come; ends when the generation does.
    pub tokens: mpsc::Receiver<StreamToken>,
    done: oneshot::Receiver<Result<Answer, EngineFault>>,
}

impl RunningGeneration {
    pub(super) const fn new(
        tokens: mpsc::Receiver<StreamToken>,
        done: oneshot::Receiver<Result<Answer, EngineFault>>,
    ) -> Self {
        Self { tokens, done }
    }

    /// Waits for the end, passing over tokens not yet read.
    ///
    /// # Errors
    /// What ended it early.
    pub async fn finish(mut self) -> Result<Answer, EngineFault> {
        while self.tokens.recv().await.is_some() {}
        self.done.await.unwrap_or(Err(EngineFault::ShutDown))
    }
}

/// How a proof ended that was not broken off by its caller.
pub type ProofEnd = Result<(), EngineFault>;

/// Trajectories that others claim for nonces of a DECODE round, as points of the codebook.
pub type Claims = Arc<BTreeMap<u32, Vec<u8>>>;

/// Nonces to prove. Chats are answered between the steps.
pub struct ProofOrder {
    /// What is proved.
    pub round: Round,
    /// The nonces, in order; may be endless.
    pub nonces: Box<dyn Iterator<Item = u32> + Send>,
    /// Most nonces per step; the backend may take fewer.
    pub batch: usize,
    /// A validation of a DECODE round: each of the nonces is stepped along what is claimed for it, and its artifact says
    /// how that compares. A nonce without a claim is an error, never an agreement.
    pub claims: Option<Claims>,
    /// Ends the proof before its next step: what was ordered instead does not wait for nonces that nobody wants.
    pub cancel: CancellationToken,
    /// Called on an engine thread for each nonce, in order; [`ControlFlow::Break`] ends the proof before the next one.
    pub on_step: Box<dyn FnMut(ProofStep) -> ControlFlow<()> + Send>,
}

/// Work for which a customer waits.
pub(super) enum Job {
    Generate {
        request: TextRequest,
        tokens: mpsc::Sender<StreamToken>,
        done: oneshot::Sender<Result<Answer, EngineFault>>,
    },
    Score {
        request: ScoreRequest,
        done: oneshot::Sender<Result<Scored, EngineFault>>,
    },
    Tokenize {
        prompt: Prompt,
        done: oneshot::Sender<Result<Tokenized, EngineFault>>,
    },
}

impl Job {
    /// True if it becomes an answer under way, of which there are only so many.
    pub(super) const fn is_generation(&self) -> bool {
        match self {
            Self::Generate { .. } => true,
            Self::Score { .. } | Self::Tokenize { .. } => false,
        }
    }

    /// True if nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Generate { tokens, done, .. } => tokens.is_closed() || done.is_closed(),
            Self::Score { done, .. } => done.is_closed(),
            Self::Tokenize { done, .. } => done.is_closed(),
        }
    }

    /// Answers it without doing it.
    pub(super) fn refuse(self, fault: EngineFault) {
        // A caller who is gone needs no answer.
        match self {
            Self::Generate { done, .. } => drop(done.send(Err(fault))),
            Self::Score { done, .. } => drop(done.send(Err(fault))),
            Self::Tokenize { done, .. } => drop(done.send(Err(fault))),
        }
    }
}

/// Orders that go before every job.
pub(super) enum Control {
    Load {
        request: Box<LoadRequest>,
        /// Set once nobody wants it any more.
        break_off: Arc<AtomicBool>,
        done: oneshot::Sender<Result<(), EngineFault>>,
    },
    Unload {
        done: oneshot::Sender<()>,
    },
}
