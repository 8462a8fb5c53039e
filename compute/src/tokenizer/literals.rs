//! Tokens that are matched as literal text before anything else happens to it.
//!
//! Chat templates produce control tokens as text, so they must be found in text. The longest token at
//! the leftmost place wins, as in Hugging Face's `AddedVocabulary`.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;

use super::error::TokenizerError;
use super::split::fixed;

/// One such token.
#[derive(Clone, Debug, Default)]
pub(super) struct Literal {
    pub id: u32,
    pub text: String,
    /// Swallows the white space before it.
    pub strips_left: bool,
    /// Swallows the white space after it.
    pub strips_right: bool,
    /// Does not count inside a word.
    pub single_word: bool,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

pub(super) struct Literals {
    finder: Option<AhoCorasick>,
    literals: Vec<Literal>,
}

impl Literals {
    pub fn new(mut literals: Vec<Literal>) -> Result<Self, TokenizerError> {
        literals.retain(|literal| !literal.text.is_empty());
        let finder = if literals.is_empty() {
            None
        } else {
            let texts = literals.iter().map(|literal| &literal.text);
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
            Some(built.map_err(|error| TokenizerError::Vocabulary {
                reason: format!("its added tokens cannot be searched for: {error}"),
            })?)
        };
        Ok(Self { finder, literals })
    }

    /// The parts of `text` in order; no text part is empty.
    pub fn cut<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut done = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            let literal = &self.literals[found.pattern().as_usize()];
            let (mut start, mut end) = (found.start(), found.end());
            if start < done {
                continue;
            }
            let (before, after) = (&text[..start], &text[end..]);
            if literal.single_word
                && (before.chars().next_back().is_some_and(is_word)
                    || after.chars().next().is_some_and(is_word))
            {
                continue;
            }
            if literal.strips_left {
                start = before.trim_end().len().max(done);
            }
            if literal.strips_right {
                end = text.len() - after.trim_start().len();
            }
            if done < start {
                parts.push(Part::Text(&text[done..start]));
            }
            parts.push(Part::Token(literal.id));
            done = end;
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }
}

static WORD: LazyLock<Regex> = LazyLock::new(|| fixed(r"\w"));

fn is_word(character: char) -> bool {
    WORD.is_match(character.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(id: u32, text: &str) -> Literal {
        Literal { id, text: text.to_owned(), ..Literal::default() }
    }

    #[test]
    fn the_longest_at_the_leftmost_place() {
        let literals = Literals::new(vec![
            literal(1, "<a>"),
            literal(2, "<a><b>"),
            Literal { strips_left: true, strips_right: true, ..literal(3, "<mask>") },
            Literal { single_word: true, ..literal(4, "cat") },
        ])
        .unwrap();
        assert_eq!(
            literals.cut("x<a><b><a>y <mask>  cat cats"),
            [
                Part::Text("x"),
                Part::Token(2),
                Part::Token(1),
                Part::Text("y"),
                Part::Token(3),
                Part::Token(4),
                Part::Text(" cats"),
            ]
        );
        assert_eq!(literals.cut(""), []);
    }
}
