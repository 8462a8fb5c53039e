//! Answers under way: from the backend's events to whoever waits for each.

use std::sync::Arc;

use roadbed_compute::{AtLeast, GenerateRequest, Generation, NewToken, SequenceId};
use tokio::sync::{mpsc, oneshot};

use super::backend::EngineBackend;
use super::fault::EngineFault;
use super::job::{Answer, Prompt, StreamToken, TextRequest, TokenText};
use super::queue::OpenJob;

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
    /// As it was handed to the backend.
    request: GenerateRequest,
    /// What its reader has; the answer comes again from the start when a lost device was opened again.
    passed: Vec<(u32, String)>,
    /// Of these, how many have come again; `None` if it never had to begin again.
    repeated: Option<usize>,
    /// Bytes of every token id, if log probabilities were asked for.
    bytes: Arc<[Vec<u8>]>,
}

/// Token ids of a prompt.
pub(super) fn prompt_ids(
    backend: &dyn EngineBackend,
    prompt: Prompt,
) -> Result<Vec<u32>, EngineFault> {
    match prompt {
        Prompt::Chat(chat) => backend.tokenize_prompt(&backend.render_chat(&chat)?),
        Prompt::Text(text) => backend.tokenize_prompt(&text),
        Prompt::Piece(text) => backend.tokenize(&text),
        Prompt::Ids(ids) => {
            let vocabulary = backend.info().vocabulary;
            match ids.iter().position(|&id| id as usize >= vocabulary) {
                Some(at) => Err(EngineFault::bad_request(
                    "token ids",
                    format!("id {} at position {at} is not below {vocabulary}", ids[at]),
                )),
                None => Ok(ids),
            }
        }
    }
}

/// What became of a token.
pub(super) enum Passed {
    On,
    /// Its reader is gone, or so slow that a whole context of tokens waits for him.
    Unwanted,
    /// The answer began again and is another one now.
    Different,
}

/// Hands a request to the backend. Returns its sequence and the request as the backend has it.
pub(super) fn admit(
    backend: &mut dyn EngineBackend,
    request: TextRequest,
) -> Result<(SequenceId, GenerateRequest), EngineFault> {
    let prompt_ids = prompt_ids(backend, request.prompt)?;
    let info = backend.info();
    let context = info.context_tokens;
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
    let max_tokens = request.max_tokens.map_or(room, |most| most.min(room));
    let request = GenerateRequest {
        prompt_ids,
        max_tokens,
        at_least: at_least(request.min_tokens.min(max_tokens), info.end_ids),
        logprobs_mode: request.logprobs_mode,
        sampling: request.sampling,
        stop: request.stop,
        top_logprobs: request.top_logprobs,
        grammar: request.grammar,
        keep_control: request.keep_control,
        ..GenerateRequest::default()
    };
    Ok((backend.admit(request.clone())?, request))
}

/// A least length.
pub(super) fn at_least(tokens: usize, end_ids: Vec<u32>) -> AtLeast {
    AtLeast { tokens, ends: if tokens > 0 { end_ids } else { vec![] } }
}

impl Answering {
    pub(super) fn new(
        (id, request): (SequenceId, GenerateRequest),
        recipient: Recipient,
        bytes: Arc<[Vec<u8>]>,
    ) -> Self {
        Self { id, recipient, request, passed: vec![], repeated: None, bytes }
    }

    /// The request to begin again with; `None` if it did so before. Draws depend on seed and place alone, so the same
    /// tokens come again.
    pub(super) fn again(&self) -> Option<GenerateRequest> {
        self.repeated.is_none().then(|| self.request.clone())
    }

    /// It goes on as another sequence; what its reader has is passed over.
    pub(super) fn goes_on_as(&mut self, id: SequenceId) {
        self.id = id;
        self.repeated = Some(0);
    }

    /// Passes a token on, unless its reader has it.
    pub(super) fn pass_on(&mut self, token: NewToken) -> Passed {
        if let Some(repeated) = self.repeated.as_mut()
            && let Some((id, text)) = self.passed.get(*repeated)
        {
            *repeated += 1;
            return match (*id, text) == (token.id, &token.text) {
                true => Passed::On,
                false => Passed::Different,
            };
        }
        self.passed.push((token.id, token.text.clone()));
        self.repeated = self.repeated.map(|repeated| repeated + 1);
        let logprobs = token.logprobs.map(|position| TokenText::of(&position, &self.bytes));
        let token = StreamToken { id: token.id, text: token.text, logprobs };
        match self.recipient.tokens.try_send(token) {
            Ok(()) => Passed::On,
            Err(_) => Passed::Unwanted,
        }
    }

    /// Hands the whole answer over.
    pub(super) fn finish(self, generation: Generation) {
        let positions = generation.logprobs.iter();
        let tokens = positions.map(|position| TokenText::of(position, &self.bytes)).collect();
        self.recipient.send(Ok(Answer { prompt_ids: self.request.prompt_ids, generation, tokens }));
    }
}
