//! Replays: log probabilities of an answer that was given already.

use roadbed_compute::{Scoring, Usage};

use super::answers::{at_least, prompt_ids};
use super::backend::EngineBackend;
use super::fault::EngineFault;
use super::job::{Prompt, ReplayExtent, ScoreRequest, Scored, TokenText};

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
    let room = info.context_tokens.saturating_sub(prompt_ids.len());
    let extent = request.extent.map(|extent| extent.within(room));
    if let Some(extent) = extent {
        let missing_end = info.end_ids.first().filter(|_| !ended(&ids)).copied();
        extend(&mut ids, extent, missing_end);
    }
    let total = prompt_ids.len() + ids.len();
    if total > info.context_tokens {
        return Err(EngineFault::bad_request(
            "enforced_tokens",
            format!("{total} tokens do not fit the context of {}", info.context_tokens),
        ));
    }
    let min_tokens = extent.map_or(0, |extent| extent.min_tokens);
    let scoring = Scoring {
        top: request.top,
        mode: request.logprobs_mode,
        sampling: request.sampling,
        at_least: at_least(min_tokens, info.end_ids.clone()),
    };
    let positions = backend.score(&prompt_ids, &ids, &scoring)?;
    let is_end = |id: &u32| info.end_ids.contains(id);
    let text_ids = &ids[..ids.iter().rposition(|id| !is_end(id)).map_or(0, |last| last + 1)];
    Ok(Scored {
        text: backend.detokenize(text_ids),
        tokens: positions.iter().map(|position| TokenText::of(position, bytes)).collect(),
        usage: Usage { prompt_tokens: prompt_ids.len(), completion_tokens: ids.len() },
        ended: ended(&ids),
        prompt_ids,
    })
}

/// The tokens of a replay as the network's engine goes through them: it ends at an end-of-text token, which is added if
/// the list has none, but neither before its least length, past the list with its last token, nor after its most.
fn extend(ids: &mut Vec<u32>, extent: ReplayExtent, missing_end: Option<u32>) {
    ids.extend(missing_end);
    if let Some(&last) = ids.last() {
        ids.resize(ids.len().max(extent.min_tokens), last);
    }
    ids.truncate(extent.max_tokens.unwrap_or(usize::MAX));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_goes_as_far_as_the_networks_engine() {
        let extended = |min_tokens, max_tokens, missing_end| {
            let mut ids = vec![5, 6];
            extend(&mut ids, ReplayExtent { min_tokens, max_tokens }.within(6), missing_end);
            ids
        };
        assert_eq!(extended(0, None, Some(9)), [5, 6, 9]);
        assert_eq!(extended(0, None, None), [5, 6]);
        assert_eq!(extended(5, None, Some(9)), [5, 6, 9, 9, 9]);
        assert_eq!(extended(5, Some(4), Some(9)), [5, 6, 9, 9]);
        assert_eq!(extended(0, Some(2), Some(9)), [5, 6]);
        assert_eq!(extended(0, Some(1), None), [5]);
        // More than the context has room for is not made up.
        assert_eq!(extended(usize::MAX, None, Some(9)), [5, 6, 9, 9, 9, 9]);
    }
}
