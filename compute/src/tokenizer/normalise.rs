//! What is done to a text before it is cut into words: Unicode forms, case, marks for spaces.
//!
//! Character by character as Hugging Face's `normalizers` do it, so that the ids agree.

use std::borrow::Cow;
use std::sync::LazyLock;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use regex::Regex;

use super::error::TokenizerError;
use super::split::{compile, fixed};

/// A Unicode normalisation form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

/// What BERT models do to text.
#[derive(Clone, Copy, Debug)]
pub(super) struct BertRules {
    /// Drop control characters, make all white space a space.
    pub clean_text: bool,
    pub spaces_around_cjk: bool,
    pub strip_accents: bool,
    pub lowercase: bool,
}

/// One step.
pub(super) enum Normaliser {
    Form(Form),
    Lowercase,
    /// Drops non-spacing marks.
    StripAccents,
    Strip {
        left: bool,
        right: bool,
    },
    /// Puts a text in front, unless there is nothing.
    Prepend(String),
    Replace {
        what: String,
        with: String,
    },
    ReplacePattern {
        what: Regex,
        with: String,
    },
    Bert(BertRules),
}

impl Normaliser {
    pub fn apply<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        let changed = match self {
            Self::Form(form) => form.apply(&text),
            Self::Lowercase => Cow::Owned(lowercase(&text)),
            Self::StripAccents => Cow::Owned(NON_SPACING.replace_all(&text, "").into_owned()),
            Self::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { &text };
                Cow::Borrowed(if *right { text.trim_end() } else { text })
            }
            Self::Prepend(_) if text.is_empty() => return text,
            Self::Prepend(front) => Cow::Owned(format!("{front}{text}")),
            Self::Replace { what, .. } if !text.contains(what.as_str()) => return text,
            Self::Replace { what, with } => Cow::Owned(text.replace(what.as_str(), with)),
            Self::ReplacePattern { what, with } => {
                what.replace_all(&text, regex::NoExpand(with.as_str()))
            }
            Self::Bert(rules) => Cow::Owned(rules.apply(&text)),
        };
        Cow::Owned(changed.into_owned())
    }

    /// A replacement of everything that matches `pattern`.
    pub fn replace_pattern(pattern: &str, with: String) -> Result<Self, TokenizerError> {
        Ok(Self::ReplacePattern { what: compile(pattern)?, with })
    }
}

static NON_SPACING: LazyLock<Regex> = LazyLock::new(|| fixed(r"\p{Mn}"));
/// Control, format and private characters. (The white space among them is kept by the caller.)
static CONTROL: LazyLock<Regex> = LazyLock::new(|| fixed(r"[\p{Cc}\p{Cf}\p{Co}]"));

impl Form {
    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Nfc => ComposingNormalizerBorrowed::new_nfc().normalize(text),
            Self::Nfkc => ComposingNormalizerBorrowed::new_nfkc().normalize(text),
            Self::Nfd => DecomposingNormalizerBorrowed::new_nfd().normalize(text),
            Self::Nfkd => DecomposingNormalizerBorrowed::new_nfkd().normalize(text),
        }
    }
}

/// Character by character: a sigma at the end of a word is treated like any other.
fn lowercase(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

impl BertRules {
    fn apply(self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        if self.clean_text {
            text = Cow::Owned(clean(&text));
        }
        if self.spaces_around_cjk {
            text = Cow::Owned(space_cjk(&text));
        }
        if self.strip_accents {
            let decomposed = Form::Nfd.apply(&text);
            text = Cow::Owned(NON_SPACING.replace_all(&decomposed, "").into_owned());
        }
        if self.lowercase {
            text = Cow::Owned(lowercase(&text));
        }
        text.into_owned()
    }
}

fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut utf8 = [0; 4];
    for character in text.chars() {
        match character {
            '\0' | char::REPLACEMENT_CHARACTER => {}
            '\t' | '\n' | '\r' => cleaned.push(' '),
            _ if character.is_ascii_graphic() => cleaned.push(character),
            _ if CONTROL.is_match(character.encode_utf8(&mut utf8)) => {}
            _ if character.is_whitespace() => cleaned.push(' '),
            _ => cleaned.push(character),
        }
    }
    cleaned
}

/// The ideographs that BERT treats as words of their own (`is_chinese_char` of its tokenizer).
fn is_cjk(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x2_0000..=0x2_A6DF
            | 0x2_A700..=0x2_B73F
            | 0x2_B740..=0x2_B81F
            | 0x2_B920..=0x2_CEAF
            | 0xF900..=0xFAFF
            | 0x2_F800..=0x2_FA1F
    )
}

fn space_cjk(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for character in text.chars() {
        if is_cjk(character) {
            spaced.extend([' ', character, ' ']);
        } else {
            spaced.push(character);
        }
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(step: &Normaliser, text: &str, expected: &str) {
        assert_eq!(step.apply(Cow::Borrowed(text)), expected);
    }

    #[test]
    fn steps() {
        check(&Normaliser::Form(Form::Nfc), "e\u{301}", "é");
        check(&Normaliser::Form(Form::Nfkd), "ﬁé", "fie\u{301}");
        check(&Normaliser::Lowercase, "ΑΣ É", "ας é".replace('ς', "σ").as_str());
        check(&Normaliser::StripAccents, "e\u{301}", "e");
        check(&Normaliser::Strip { left: true, right: false }, " a ", "a ");
        check(&Normaliser::Prepend("▁".to_owned()), "a", "▁a");
        check(&Normaliser::Prepend("▁".to_owned()), "", "");
        check(&Normaliser::Replace { what: " ".to_owned(), with: "▁".to_owned() }, "a b", "a▁b");
        check(&Normaliser::replace_pattern(" {2,}", "$0".to_owned()).unwrap(), "a  b", "a$0b");
    }

    #[test]
    fn bert() {
        let rules = BertRules {
            clean_text: true,
            spaces_around_cjk: true,
            strip_accents: true,
            lowercase: true,
        };
        check(&Normaliser::Bert(rules), "É\tx\u{0}\u{200B}中ß", "e x 中 ß");
    }
}
