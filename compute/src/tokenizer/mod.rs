//! Text to token ids and back, as a model's file describes it.
//!
//! Text is cut at literal tokens, normalised, cut into words by the model's rules, and each word's
//! symbols are merged. The ids must be exactly those the model was trained on: every stage follows
//! Hugging Face's `tokenizers` and is tested against it.

mod bytes;
mod ends;
mod error;
mod hugging_face;
mod literals;
mod merge;
mod metadata;
mod model;
mod normalise;
mod presets;
mod split;
mod vocabulary;
mod wordpiece;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub use bytes::{Utf8Stream, byte_to_char, char_to_byte};
pub use error::TokenizerError;

use crate::gguf::Metadata;
use literals::{Literals, Part};
use model::Model;
use normalise::Normaliser;
use split::Splitter;
use vocabulary::Vocabulary;

/// Longest text that is encoded at once. A context of a million tokens is about this much; merging takes
/// about a hundred bytes for each byte of a text without a space, so this is also a bound on memory.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// A model's tokenizer.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    /// Tokens matched in the text as it comes.
    literals: Literals,
    normalisers: Vec<Normaliser>,
    /// Tokens matched in the text after normalising.
    normal_literals: Literals,
    splitter: Splitter,
    model: Model,
    /// What a prompt begins and ends with.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    ends: BTreeSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Encoding puts a space in front that decoding takes away.
    strips_space: bool,
}

impl Tokenizer {
    /// Reads the tokenizer of a GGUF file.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        metadata::read(metadata)
    }

    /// Reads a Hugging Face `tokenizer.json`; `config` is the `tokenizer_config.json` beside it, which
    /// names the special tokens.
    pub fn from_tokenizer_json(text: &str, config: Option<&str>) -> Result<Self, TokenizerError> {
        hugging_face::read(text, config)
    }

    /// Adds tokens that end an answer, such as those of a `generation_config.json`.
    #[must_use]
    pub fn with_ends(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        let known = self.vocabulary();
        self.ends.extend(ids.into_iter().filter(|id| (*id as usize) < known));
        self
    }

    /// Ids of `text`. Control tokens in it are recognised; no begin-of-text token is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenizerError::TextTooLong { bytes: text.len(), max: TEXT_BYTES_MAX });
        }
        let mut ids = Vec::new();
        for (place, part) in self.literals.cut(text).into_iter().enumerate() {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.encode_text(text, place == 0, &mut ids),
            }
        }
        Ok(ids)
    }

    /// Text without literals. `at_start`: it begins the whole text.
    fn encode_text(&self, text: &str, at_start: bool, ids: &mut Vec<u32>) {
        let normal = self.normalisers.iter().fold(Cow::Borrowed(text), |text, n| n.apply(text));
        for (place, part) in self.normal_literals.cut(&normal).into_iter().enumerate() {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    for word in self.splitter.split(text, at_start && place == 0).iter() {
                        self.model.encode(word, ids);
                    }
                }
            }
        }
    }

    /// Ids of a prompt: as [`Self::encode`], with the tokens that the model wants around a text, such
    /// as begin-of-text; in front only if the text does not bring them itself.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text)?;
        if !ids.starts_with(&self.prefix) {
            ids.splice(0..0, self.prefix.iter().copied());
        }
        ids.extend(&self.suffix);
        Ok(ids)
    }

    /// The tokens that the model wants in front of a text and behind it.
    #[must_use]
    pub fn frame(&self) -> (&[u32], &[u32]) {
        (&self.prefix, &self.suffix)
    }

    /// Bytes a token stands for; empty for an id outside the vocabulary.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.get(id).map_or(&[], |token| &token.bytes)
    }

    /// Text of `ids`, control tokens included.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.bytes(*id)).copied().collect();
        let own = if self.strips_space { bytes.strip_prefix(b" ") } else { None };
        String::from_utf8_lossy(own.unwrap_or(&bytes)).into_owned()
    }

    /// True for tokens that steer the conversation and are not part of its text.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.get(id).is_some_and(|token| token.control)
    }

    /// True for tokens that end an answer.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary.len()
    }

    /// Text of the begin-of-text token, for templates; empty if there is none.
    #[must_use]
    pub fn bos_text(&self) -> String {
        self.bos.map(|id| self.text_of(id)).unwrap_or_default()
    }

    #[must_use]
    pub fn eos_text(&self) -> String {
        self.eos.map(|id| self.text_of(id)).unwrap_or_default()
    }

    fn text_of(&self, id: u32) -> String {
        String::from_utf8_lossy(self.bytes(id)).into_owned()
    }
}
