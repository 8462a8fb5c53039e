//! Which tokens end an answer.
//!
//! Files name one end token; chat models have several, and some files name the wrong one. Like
//! llama.cpp (`llama_vocab::impl::load`, "special_eog_ids") we add the tokens that are known by name.

use std::collections::BTreeSet;

/// Names that end an answer in every model that has them, whatever type the file gives them.
const END_NAMES: [&str; 17] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
];

/// Names that end an answer only where the file says that they are control tokens: `</s>` is the end
/// of struck-out text in vocabularies with HTML tags (Gemma 3).
const END_NAMES_IF_CONTROL: [&str; 3] = ["</s>", "<eos>", "[EOS]"];

/// The ids that end an answer. `given` are those the file names; `find` looks a name up and says
/// whether it is a control token.
pub(super) fn ends(
    given: impl IntoIterator<Item = u32>,
    find: impl Fn(&str) -> Option<(u32, bool)>,
) -> BTreeSet<u32> {
    let mut ends: BTreeSet<u32> = END_NAMES.iter().filter_map(|n| Some(find(n)?.0)).collect();
    let control = |name: &&str| find(name).filter(|(_, control)| *control).map(|(id, _)| id);
    ends.extend(END_NAMES_IF_CONTROL.iter().filter_map(control));
    // Where a message ends and the answer goes on (gpt-oss, Solar), "end" is no end.
    let has = |name: &str| find(name).is_some();
    let goes_on = (has("<|return|>") && has("<|call|>"))
        || (has("<|flush|>") && (has("<|call|>") || has("<|calls|>")));
    if let Some((id, _)) = find("<|end|>").filter(|_| goes_on) {
        ends.remove(&id);
    }
    ends.extend(given);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[(&str, bool)], given: &[u32], expected: &[u32]) {
        let found = ends(given.iter().copied(), |name| {
            let place = names.iter().position(|(n, _)| *n == name)?;
            Some((u32::try_from(place).unwrap(), names[place].1))
        });
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{names:?}");
    }

    #[test]
    fn names_and_given_ids_end_an_answer() {
        check(&[("<|eot_id|>", true), ("<|eom_id|>", true), ("x", false)], &[2], &[0, 1, 2]);
        check(&[("<eos>", true), ("</s>", false), ("<end_of_turn>", false)], &[], &[0, 2]);
        check(&[("<|end|>", true), ("<|endoftext|>", true)], &[], &[0, 1]);
        check(&[("<|end|>", true), ("<|return|>", true), ("<|call|>", true)], &[], &[1, 2]);
    }
}
