//! Cutting text into words before merging.
//!
//! A tokenizer has a list of cuts, each applied to the pieces of the last. The patterns are regular
//! expressions run in linear time on any text. Many end in `|\s+(?!\S)|\s+`: a run of white space
//! leaves its last character to the word that follows. This look-ahead is the only one in use and is
//! done by hand ([`Pattern`]).

use std::borrow::Cow;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::error::TokenizerError;

/// The end of a pattern that needs a look-ahead, and what stands for it.
const LOOK_AHEAD: &str = r"|\s+(?!\S)|\s+";
const RUN_OF_SPACE: &str = r"|(\s+)";
/// Published patterns have a few hundred bytes.
const PATTERN_BYTES_MAX: usize = 1 << 14;

/// Room for the states that matching builds as it goes. Patterns with many classes (Tekken's) overflow
/// the default of 2 MB and become ten times slower.
const AUTOMATON_BYTES_MAX: usize = 32 << 20;

/// Compiles a pattern as the files mean it: `^` and `$` are the edges of lines (Oniguruma's Ruby
/// syntax, which Hugging Face uses).
pub(super) fn compile(pattern: &str) -> Result<Regex, TokenizerError> {
    let wrong = |reason: String| TokenizerError::Pattern {
        pattern: pattern.chars().take(200).collect(),
        reason,
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(wrong(format!("it is longer than {PATTERN_BYTES_MAX} bytes")));
    }
    RegexBuilder::new(&without_joiners(pattern))
        .multi_line(true)
        .dfa_size_limit(AUTOMATON_BYTES_MAX)
        .build()
        .map_err(|error| wrong(error.to_string().lines().last().unwrap_or_default().to_owned()))
}

/// A pattern that is a constant of this program.
pub(super) fn fixed(pattern: &str) -> Regex {
    #[expect(clippy::unwrap_used, reason = "a constant; the tests compile them all")]
    Regex::new(pattern).unwrap()
}

/// Oniguruma's `\w` does not hold the two invisible joiners (U+200C, U+200D), ours does.
fn without_joiners(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match (character, if character == '\\' { characters.next() } else { None }) {
            ('\\', Some('w')) => out.push_str(r"[\w--[\u{200C}\u{200D}]]"),
            ('\\', Some('W')) => out.push_str(r"[\W\u{200C}\u{200D}]"),
            (first, second) => out.extend(std::iter::once(first).chain(second)),
        }
    }
    out
}

/// A pattern whose trailing look-ahead is done by hand.
pub(super) struct Pattern {
    regex: Regex,
    /// Number of the group that is a run of white space, if the pattern ends in the look-ahead.
    run_group: Option<usize>,
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, TokenizerError> {
        match pattern.strip_suffix(LOOK_AHEAD) {
            Some(front) => {
                let regex = compile(&format!("{front}{RUN_OF_SPACE}"))?;
                let run_group = Some(regex.captures_len() - 1);
                Ok(Self { regex, run_group })
            }
            None => Ok(Self { regex: compile(pattern)?, run_group: None }),
        }
    }

    /// The next match at or after `from`.
    fn find(&self, text: &str, from: usize) -> Option<Range<usize>> {
        let found = self.regex.find_at(text, from)?;
        let (start, end) = (found.start(), found.end());
        let Some(last) = found.as_str().chars().next_back().filter(|c| c.is_whitespace()) else {
            return Some(start..end);
        };
        let kept = end - last.len_utf8();
        let Some(group) = self.run_group.filter(|_| end < text.len() && kept > start) else {
            return Some(start..end);
        };
        // Only now, as groups are slow: was it the run of white space that matched?
        let is_run = self.regex.captures_at(text, start).is_some_and(|c| c.get(group).is_some());
        Some(start..if is_run { kept } else { end })
    }
}

/// What becomes of a match (Hugging Face's `SplitDelimiterBehavior`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Isolated,
    Removed,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// When a mark is put in front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepend {
    Never,
    /// Only at the very beginning of the whole text.
    First,
    Always,
}

/// One step of cutting.
pub(super) enum Cut {
    Pattern {
        pattern: Pattern,
        behaviour: Behaviour,
        invert: bool,
    },
    /// A space in front of a piece that has none.
    LeadingSpace,
    /// SentencePiece's spaces: written as `mark`, with one in front.
    Metaspace {
        mark: char,
        prepend: Prepend,
    },
}

impl Cut {
    /// Matches become pieces of their own.
    pub fn isolate(pattern: &str) -> Result<Self, TokenizerError> {
        Self::pattern(pattern, Behaviour::Isolated, false)
    }

    pub fn pattern(
        pattern: &str,
        behaviour: Behaviour,
        invert: bool,
    ) -> Result<Self, TokenizerError> {
        Ok(Self::Pattern { pattern: Pattern::new(pattern)?, behaviour, invert })
    }

    /// Cuts at a literal text.
    pub fn literal(text: &str, behaviour: Behaviour, invert: bool) -> Result<Self, TokenizerError> {
        Self::pattern(&regex::escape(text), behaviour, invert)
    }

    fn apply<'t>(&self, mut pieces: Pieces<'t>, at_start: bool) -> Pieces<'t> {
        match self {
            Self::Pattern { pattern, behaviour, invert } => {
                let mut finer = Vec::with_capacity(pieces.ranges.len());
                for range in &pieces.ranges {
                    let parts = parts(&pieces.text[range.clone()], pattern, *invert);
                    let merged = behaviour.apply(parts);
                    finer.extend(
                        merged
                            .into_iter()
                            .filter(|part| !part.is_empty())
                            .map(|part| range.start + part.start..range.start + part.end),
                    );
                }
                pieces.ranges = finer;
                pieces
            }
            Self::LeadingSpace => pieces.rewrite(|piece, _, out| {
                if !piece.starts_with(' ') {
                    out.push(' ');
                }
                out.push_str(piece);
            }),
            Self::Metaspace { mark, prepend } => pieces.rewrite(|piece, place, out| {
                let begins = match prepend {
                    Prepend::Never => false,
                    Prepend::First => at_start && place == 0,
                    Prepend::Always => true,
                };
                if begins && !piece.starts_with([' ', *mark]) {
                    out.push(*mark);
                }
                out.extend(piece.chars().map(|c| if c == ' ' { *mark } else { c }));
            }),
        }
    }
}

/// A part of a piece, and whether the pattern matched it.
type Matched = (Range<usize>, bool);

fn parts(text: &str, pattern: &Pattern, invert: bool) -> Vec<Matched> {
    let mut parts = Vec::new();
    let (mut done, mut from) = (0, 0);
    while let Some(found) = pattern.find(text, from) {
        if done < found.start {
            parts.push((done..found.start, invert));
        }
        parts.push((found.clone(), !invert));
        done = found.end;
        // After an empty match the search must go on behind the next character.
        let step = text[done..].chars().next().map_or(1, char::len_utf8);
        from = if found.is_empty() { done + step } else { done };
        if from > text.len() {
            break;
        }
    }
    if done < text.len() {
        parts.push((done..text.len(), invert));
    }
    parts
}

impl Behaviour {
    fn apply(self, parts: Vec<Matched>) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::with_capacity(parts.len());
        let mut before: Option<bool> = None;
        for (part, matched) in parts {
            let joins = match self {
                Self::Removed if matched => {
                    before = Some(matched);
                    continue;
                }
                Self::Isolated | Self::Removed => false,
                Self::MergedWithPrevious => matched && before == Some(false),
                Self::MergedWithNext => !matched && before == Some(true),
                Self::Contiguous => before == Some(matched),
            };
            before = Some(matched);
            match pieces.last_mut().filter(|_| joins) {
                Some(last) => last.end = part.end,
                None => pieces.push(part),
            }
        }
        pieces
    }
}

/// A text and where its pieces are in it.
pub(super) struct Pieces<'t> {
    text: Cow<'t, str>,
    ranges: Vec<Range<usize>>,
}

impl Pieces<'_> {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.ranges.iter().map(|range| &self.text[range.clone()])
    }

    fn rewrite<'n>(self, write: impl Fn(&str, usize, &mut String)) -> Pieces<'n> {
        let mut text = String::with_capacity(self.text.len() + self.ranges.len());
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for (place, piece) in self.iter().enumerate() {
            let start = text.len();
            write(piece, place, &mut text);
            ranges.push(start..text.len());
        }
        Pieces { text: Cow::Owned(text), ranges }
    }
}

/// All cuts of a tokenizer.
#[derive(Default)]
pub(super) struct Splitter {
    pub cuts: Vec<Cut>,
}

impl Splitter {
    /// The words of `text`. `at_start`: it begins the whole text.
    pub fn split<'t>(&'t self, text: &'t str, at_start: bool) -> Pieces<'t> {
        let whole = 0..text.len();
        let pieces = Pieces { text: Cow::Borrowed(text), ranges: vec![whole] };
        self.cuts.iter().fold(pieces, |pieces, cut| cut.apply(pieces, at_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cut: Cut, text: &str, expected: &[&str]) {
        let splitter = Splitter { cuts: vec![cut] };
        let pieces = splitter.split(text, true);
        assert_eq!(pieces.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn behaviours() {
        let cut = |behaviour| Cut::literal("-", behaviour, false).unwrap();
        let text = "-a--b";
        check(cut(Behaviour::Isolated), text, &["-", "a", "-", "-", "b"]);
        check(cut(Behaviour::Removed), text, &["a", "b"]);
        check(cut(Behaviour::MergedWithPrevious), text, &["-", "a-", "-", "b"]);
        check(cut(Behaviour::MergedWithNext), text, &["-a", "-", "-b"]);
        check(cut(Behaviour::Contiguous), text, &["-", "a", "--", "b"]);
        check(Cut::pattern("a", Behaviour::Removed, true).unwrap(), "bab", &["a"]);
    }

    #[test]
    fn empty_matches_do_not_stall() {
        check(Cut::isolate("x*").unwrap(), "axé", &["a", "x", "é"]);
    }

    #[test]
    fn spaces() {
        let cut = |prepend| Cut::Metaspace { mark: '▁', prepend };
        check(cut(Prepend::Always), "a b", &["▁a▁b"]);
        check(cut(Prepend::First), " a b", &["▁a▁b"]);
        check(cut(Prepend::Never), "a b", &["a▁b"]);
        check(Cut::LeadingSpace, "a b", &[" a b"]);
    }

    #[test]
    fn joiners_are_no_word_characters() {
        check(Cut::isolate(r"\w+").unwrap(), "a\u{200D}b", &["a", "\u{200D}", "b"]);
        check(Cut::isolate(r"[^\w\s]").unwrap(), "a\u{200D}", &["a", "\u{200D}"]);
        check(Cut::isolate(r"\\w").unwrap(), r"a\w", &["a", r"\w"]);
    }

    #[test]
    fn patterns_that_cannot_be_run_are_refused() {
        for pattern in
            ["(?=a)b", "(", r"(a)\1", &"a".repeat(PATTERN_BYTES_MAX + 1), "(?:a{999}){999}"]
        {
            assert!(Pattern::new(pattern).is_err(), "{}", &pattern[..5]);
        }
    }
}
