//! Replays: log probabilities of an answer that was given already.

use roadbed_compute::Usage;

use super::answers::prompt_ids;
use super::backend::EngineBackend;
use super::fault::EngineFault;
use super::job::{Prompt, ScoreRequest, Scored, TokenText};

/// Runs one replay.
pub(super) fn score(
    backend: &mut dyn EngineBackend,
    request: ScoreRequest,
    bytes: &[Vec<u8>],
) -> Result<Scored, EngineFault> {
    let prompt_ids = prompt_ids(backend, request.prompt)?;
    let mut ids = continuation_ids(backend, request.continuation)?;
    let info = backend.info();
    let ended = |ids: &[u32]| ids.last().is_some_and(|id| info.end_ids.contains(id));
    // The network's replay goes on to the end-of-text token when the list does not.
    if request.to_end
        && !ended(&ids)
        && let Some(&end) = info.end_ids.first()
    {
        ids.push(end);
    }
    let total = prompt_ids.len() + ids.len();
    if total > info.context_tokens {
        return Err(EngineFault::bad_request(
            "enforced_tokens",
            format!("{total} tokens do not fit the context of {}", info.context_tokens),
        ));
    }
    let positions = backend.score(&prompt_ids, &ids, request.top)?;
    let text_ids = if ended(&ids) { &ids[..ids.len() - 1] } else { &ids[..] };
    Ok(Scored {
        text: backend.detokenize(text_ids),
        tokens: positions.iter().map(|position| TokenText::of(position, bytes)).collect(),
        usage: Usage { prompt_tokens: prompt_ids.len(), completion_tokens: ids.len() },
        ended: ended(&ids),
        prompt_ids,
    })
}

fn continuation_ids(backend: &dyn EngineBackend, prompt: Prompt) -> Result<Vec<u32>, EngineFault> {
    let ids = match prompt {
        Prompt::Text(text) => backend.tokenize(&text)?,
        Prompt::Chat(_) | Prompt::Ids(_) | Prompt::Piece(_) => prompt_ids(backend, prompt)?,
    };
    if ids.is_empty() {
        return Err(EngineFault::bad_request("enforced_tokens", "there is nothing to replay"));
    }
    Ok(ids)
}
