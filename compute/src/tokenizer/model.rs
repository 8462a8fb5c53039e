//! From a word to token ids: merging by rank (BPE), merging by score (SentencePiece), and WordPiece.

use std::collections::HashMap;

use super::merge::{Merged, Symbol, merge};
use super::wordpiece::WordPiece;

/// (left, right) to what they become.
pub(super) type Merges = HashMap<(u32, u32), Merged>;

/// Ids of the 256 single bytes, as far as the vocabulary has them.
pub(super) type ByteIds = [Option<u32>; 256];

pub(super) const NO_BYTES: ByteIds = [None; 256];

pub(super) enum Model {
    Ranked(Ranked),
    Scored(Scored),
    WordPiece(WordPiece),
}

impl Model {
    /// Appends the ids of one word.
    pub fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        match self {
            Self::Ranked(model) => model.encode(word, ids),
            Self::Scored(model) => model.encode(word, ids),
            Self::WordPiece(model) => model.encode(word, ids),
        }
    }
}

/// What a word is made of before merging.
pub(super) enum Alphabet {
    /// Every byte is a symbol (GPT-2's kind).
    Bytes(Box<ByteIds>),
    /// Every character is a symbol; one that the vocabulary lacks falls back to its bytes, if the
    /// vocabulary has them all.
    Characters { ids: HashMap<char, u32>, bytes: Box<ByteIds> },
}

/// Byte-pair encoding with a list of merges.
pub(super) struct Ranked {
    pub alphabet: Alphabet,
    pub merges: Merges,
    /// Words taken whole without replaying their merges (Llama 3, Tekken); else empty.
    pub whole_words: HashMap<Vec<u8>, u32>,
    pub unknown: Option<u32>,
    /// Neighbouring unknown characters become one unknown token.
    pub fuse_unknown: bool,
}

impl Ranked {
    fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        if let Some(id) = self.whole_words.get(word.as_bytes()) {
            ids.push(*id);
            return;
        }
        let symbols = match &self.alphabet {
            Alphabet::Bytes(bytes) => (1..)
                .zip(word.bytes())
                .filter_map(|(end, byte)| Some((bytes[usize::from(byte)].or(self.unknown)?, end)))
                .map(|(id, end)| Symbol { id: Some(id), end })
                .collect(),
            Alphabet::Characters { ids, bytes } => self.characters(word, ids, bytes),
        };
        let merged =
            merge(&symbols, |left, right, _| self.merges.get(&(left.id?, right.id?)).copied());
        ids.extend(merged.iter().filter_map(|symbol| symbol.id));
    }

    fn characters(&self, word: &str, ids: &HashMap<char, u32>, bytes: &ByteIds) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        let mut after_unknown = false;
        for (start, character) in word.char_indices() {
            let end = start + character.len_utf8();
            if let Some(id) = ids.get(&character) {
                symbols.push(Symbol { id: Some(*id), end });
                after_unknown = false;
                continue;
            }
            let own = &word.as_bytes()[start..end];
            if own.iter().all(|byte| bytes[usize::from(*byte)].is_some()) {
                let fallback = (start + 1..).zip(own);
                symbols.extend(
                    fallback.map(|(end, byte)| Symbol { id: bytes[usize::from(*byte)], end }),
                );
                after_unknown = false;
            } else if self.unknown.is_some() {
                match symbols.last_mut().filter(|_| self.fuse_unknown && after_unknown) {
                    Some(last) => last.end = end,
                    None => symbols.push(Symbol { id: self.unknown, end }),
                }
                after_unknown = true;
            }
        }
        symbols
    }
}

/// SentencePiece's BPE: any two neighbours whose text is in the vocabulary may merge, best score
/// first.
pub(super) struct Scored {
    /// Text to its id and the rank of its score (0 is the best score; equal scores, equal ranks).
    words: HashMap<Box<str>, Merged>,
    longest_bytes: usize,
    bytes: Box<ByteIds>,
    unknown: Option<u32>,
}

impl Scored {
    /// `words`: text, id and score of every piece that takes part in merging.
    pub fn new<'w>(
        words: impl IntoIterator<Item = (&'w str, u32, f32)>,
        bytes: ByteIds,
        unknown: Option<u32>,
    ) -> Self {
        let mut words: Vec<(&str, u32, f32)> = words.into_iter().collect();
        words.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut ranked = HashMap::with_capacity(words.len());
        let mut longest_bytes = 0;
        let mut rank = 0;
        let mut score = None;
        for (place, (text, id, own)) in (0_u32..).zip(words) {
            if score != Some(own) {
                rank = place;
                score = Some(own);
            }
            longest_bytes = longest_bytes.max(text.len());
            ranked.entry(text.into()).or_insert(Merged { rank, id });
        }
        Self { words: ranked, longest_bytes, bytes: Box::new(bytes), unknown }
    }

    fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let symbols: Vec<Symbol> = word
            .char_indices()
            .map(|(start, character)| {
                let end = start + character.len_utf8();
                let id = self.words.get(&word[start..end]).map(|found| found.id);
                Symbol { id, end }
            })
            .collect();
        let merged = merge(&symbols, |_, _, (start, end)| {
            if end - start > self.longest_bytes {
                return None;
            }
            self.words.get(&word[start..end]).copied()
        });
        let mut start = 0;
        for symbol in merged {
            match symbol.id {
                Some(id) => ids.push(id),
                None => self.fall_back(&word.as_bytes()[start..symbol.end], ids),
            }
            start = symbol.end;
        }
    }

    /// A character that is not in the vocabulary: its bytes, or the unknown token.
    fn fall_back(&self, character: &[u8], ids: &mut Vec<u32>) {
        let bytes = character.iter().map(|byte| self.bytes[usize::from(*byte)]);
        match bytes.collect::<Option<Vec<u32>>>() {
            Some(bytes) => ids.extend(bytes),
            None => ids.extend(self.unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_score_merges_first_and_unknown_characters_become_bytes() {
        let words = [("a", 0, -9.0), ("b", 1, -9.0), ("ab", 2, -2.0), ("ba", 3, -1.0)];
        let mut bytes = NO_BYTES;
        for byte in "é".bytes() {
            bytes[usize::from(byte)] = Some(100 + u32::from(byte));
        }
        let model = Scored::new(words, bytes, Some(7));
        let mut ids = Vec::new();
        model.encode("abaéxb", &mut ids);
        assert_eq!(ids, [0, 3, 100 + 0xC3, 100 + 0xA9, 7, 1]);
    }
}
