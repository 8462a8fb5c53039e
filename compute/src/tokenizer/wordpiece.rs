//! BERT's WordPiece: the longest known beginning, then the longest known continuation, and so on.

use std::collections::HashMap;

/// Longer words are unknown as a whole (Hugging Face's `max_input_chars_per_word`).
pub(super) const WORD_CHARACTERS_MAX: usize = 100;

pub(super) struct WordPiece {
    /// Pieces a word may begin with.
    pub starts: HashMap<Box<str>, u32>,
    /// Pieces a word may go on with, without the `##` they are written with.
    pub continuations: HashMap<Box<str>, u32>,
    pub unknown: Option<u32>,
    pub word_characters_max: usize,
}

impl WordPiece {
    pub fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        match self.pieces(word) {
            Some(pieces) => ids.extend(pieces),
            None => ids.extend(self.unknown),
        }
    }

    fn pieces(&self, word: &str) -> Option<Vec<u32>> {
        let ends: Vec<usize> =
            word.char_indices().map(|(start, character)| start + character.len_utf8()).collect();
        if ends.len() > self.word_characters_max {
            return None;
        }
        let mut ids = Vec::new();
        let mut start = 0;
        while start < word.len() {
            let known = if start == 0 { &self.starts } else { &self.continuations };
            let (end, id) = ends
                .iter()
                .rev()
                .take_while(|end| **end > start)
                .find_map(|end| Some((*end, *known.get(&word[start..*end])?)))?;
            ids.push(id);
            start = end;
        }
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_piece_wins_and_a_gap_makes_the_word_unknown() {
        let pieces = |list: &[(&str, u32)]| list.iter().map(|(w, id)| ((*w).into(), *id)).collect();
        let model = WordPiece {
            starts: pieces(&[("un", 1), ("u", 2), ("a", 3)]),
            continuations: pieces(&[("aff", 4), ("able", 5), ("a", 6)]),
            unknown: Some(0),
            word_characters_max: 10,
        };
        let encode = |word: &str| {
            let mut ids = Vec::new();
            model.encode(word, &mut ids);
            ids
        };
        assert_eq!(encode("unaffable"), [1, 4, 5]);
        assert_eq!(encode("ua"), [2, 6]);
        assert_eq!(encode("unx"), [0]);
        assert_eq!(encode("aaaaaaaaaaa"), [0]);
    }
}
