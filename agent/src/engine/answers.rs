//! Answers under way: from the backend's events to whoever waits for each.

use std::sync::Arc;

use roadbed_compute::{GenerateRequest, Generation, NewToken, SequenceId};
use tokio::sync::{mpsc, oneshot};

use super::backend::EngineBackend;
use super::fault::EngineFault;
use super::job::{Answer, StreamToken, TextRequest, TokenText};
use super::queue::OpenJob;
use super::worker::prompt_ids;

/// Where an answer goes.
pub(super) struct Recipient {
    pub(super) tokens: mpsc::Sender<StreamToken>,
    pub(super) done: oneshot::Sender<Result<Answer, EngineFault>>,
    /// Which stop order it was handed in after.
    pub(super) epoch: u64,
    /// Counts it as open until it is dropped.
    pub(super) open: OpenJob,
}

impl Recipient {
    /// True while somebody waits.
    pub(super) fn is_there(&self) -> bool {
        !self.tokens.is_closed() && !self.done.is_closed()
    }

    pub(super) fn send(self, outcome: Result<Answer, EngineFault>) {
        // The count of open jobs falls before the answer is out, so that a caller who asks sees it.
        drop(self.open);
        // A caller who is gone needs no answer.
        drop(self.done.send(outcome));
    }
}

/// One answer under way.
pub(super) struct Answering {
    pub(super) id: SequenceId,
    pub(super) recipient: Recipient,
    prompt_ids: Vec<u32>,
    /// Bytes of every token id, if log probabilities were asked for.
    bytes: Arc<[Vec<u8>]>,
}

/// Hands a request to the backend. Returns its sequence and the prompt as the model sees it.
pub(super) fn admit(
    backend: &mut dyn EngineBackend,
    request: TextRequest,
) -> Result<(SequenceId, Vec<u32>), EngineFault> {
    let prompt_ids = prompt_ids(backend, request.prompt)?;
    let context = backend.info().context_tokens;
    if prompt_ids.is_empty() {
        return Err(EngineFault::bad_request("prompt", "it has no tokens"));
    }
    if prompt_ids.len() >= context {
        return Err(EngineFault::bad_request(
            "prompt",
            format!("{} tokens leave no room in the context of {context}", prompt_ids.len()),
        ));
    }
    let room = context - prompt_ids.len();
    let id = backend.admit(GenerateRequest {
        prompt_ids: prompt_ids.clone(),
        max_tokens: request.max_tokens.map_or(room, |most| most.min(room)),
        sampling: request.sampling,
        stop: request.stop,
        top_logprobs: request.top_logprobs,
        grammar: request.grammar,
        keep_control: request.keep_control,
        ..GenerateRequest::default()
    })?;
    Ok((id, prompt_ids))
}

impl Answering {
    pub(super) fn new(
        (id, prompt_ids): (SequenceId, Vec<u32>),
        recipient: Recipient,
        bytes: Arc<[Vec<u8>]>,
    ) -> Self {
        Self { id, recipient, prompt_ids, bytes }
    }

    /// Passes a token on; false if its reader is gone, or so slow that a whole context of tokens waits for him.
    pub(super) fn pass_on(&self, token: NewToken) -> bool {
        let logprobs = token.logprobs.map(|position| TokenText::of(&position, &self.bytes));
        let token = StreamToken { id: token.id, text: token.text, logprobs };
        self.recipient.tokens.try_send(token).is_ok()
    }

    /// Hands the whole answer over.
    pub(super) fn finish(self, generation: Generation) {
        let positions = generation.logprobs.iter();
        let tokens = positions.map(|position| TokenText::of(position, &self.bytes)).collect();
        self.recipient.send(Ok(Answer { prompt_ids: self.prompt_ids, generation, tokens }));
    }
}
