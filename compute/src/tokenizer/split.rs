//! Cutting text into words before merging: one rule set per `tokenizer.ggml.pre`.
//!
//! The patterns are facts about the models (their published `tokenizer.json`); a wrong one yields
//! valid text but other ids, so an unknown name is refused rather than guessed.

use regex::Regex;

use super::error::TokenizerError;

/// One cut. The published patterns end in `\s+(?!\S)|\s+`: a run of white space leaves its last
/// character to the word that follows. The lookahead is done by hand ([`Cut::word_end`]), so that the
/// rest runs in linear time on any text.
struct Rule {
    pattern: &'static str,
    /// True if runs that end in a line break stay whole.
    line_breaks_stay: bool,
}

const GPT2: Rule = Rule {
    pattern: r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    line_breaks_stay: false,
};
const DIGIT: Rule = Rule { pattern: r"\p{N}", line_breaks_stay: false };
const LLAMA3: Rule = Rule {
    pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    line_breaks_stay: true,
};
const QWEN2: Rule = Rule {
    pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    line_breaks_stay: true,
};

/// Name in the file and the rules applied one after the other, each to the pieces of the last.
const RULES: &[(&str, &[Rule])] = &[
    ("default", &[GPT2]),
    ("gpt-2", &[GPT2]),
    ("smollm", &[DIGIT, GPT2]),
    ("llama-bpe", &[LLAMA3]),
    ("llama3", &[LLAMA3]),
    ("qwen2", &[QWEN2]),
];

struct Cut {
    pattern: Regex,
    line_breaks_stay: bool,
}

impl Cut {
    /// Where a match really ends: see [`Rule`].
    fn word_end(&self, text: &str, start: usize, end: usize) -> usize {
        let word = &text[start..end];
        let Some(last) = word.chars().next_back() else {
            return end;
        };
        let kept = end - last.len_utf8();
        let line_break = self.line_breaks_stay && matches!(last, '\r' | '\n');
        let gives_back = end < text.len()
            && kept > start
            && !line_break
            && word.chars().all(char::is_whitespace);
        if gives_back { kept } else { end }
    }
}

/// A compiled rule set.
pub(super) struct Splitter {
    cuts: Vec<Cut>,
}

impl Splitter {
    pub fn new(pre: &str) -> Result<Self, TokenizerError> {
        let (_, rules) = RULES.iter().find(|(name, _)| *name == pre).ok_or_else(|| {
            TokenizerError::UnsupportedPre {
                pre: pre.to_owned(),
                known: RULES.iter().map(|r| r.0).collect::<Vec<_>>().join(", "),
            }
        })?;
        let cuts = rules
            .iter()
            .map(|rule| {
                Regex::new(rule.pattern)
                    .map(|pattern| Cut { pattern, line_breaks_stay: rule.line_breaks_stay })
                    .map_err(|error| TokenizerError::Split { reason: error.to_string() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { cuts })
    }

    /// The words of `text`; joined they are `text` again.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut pieces = vec![text];
        for cut in &self.cuts {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let mut end = 0;
                while let Some(found) = cut.pattern.find_at(piece, end) {
                    finer.push(&piece[end..found.start()]);
                    end = cut.word_end(piece, found.start(), found.end());
                    finer.push(&piece[found.start()..end]);
                }
                finer.push(&piece[end..]);
            }
            finer.retain(|p| !p.is_empty());
            pieces = finer;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pre: &str, text: &str, expected: &[&str]) {
        let words = Splitter::new(pre).unwrap().split(text);
        assert_eq!(words, expected, "{pre}");
        assert_eq!(words.concat(), text);
    }

    #[test]
    fn rules() {
        check("gpt-2", "It's 42  ok", &["It", "'s", " 42", " ", " ok"]);
        check("smollm", "It's 42  ok", &["It", "'s", " ", "4", "2", " ", " ok"]);
        check("llama-bpe", "IT'S 12345\n\n x", &["IT", "'S", " ", "123", "45", "\n\n", " x"]);
        check("qwen2", "a 12", &["a", " ", "1", "2"]);
        check("gpt-2", "a \n\n b  ", &["a", " \n\n", " b", "  "]);
        check("llama-bpe", "a \n\n  b", &["a", " \n\n", " ", " b"]);
        assert!(Splitter::new("martian").is_err());
    }
}
