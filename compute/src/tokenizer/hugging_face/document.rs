//! `tokenizer.json` as it is written, before its parts are understood.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::error::TokenizerError;
use super::unsupported;

/// Largest file that is read; the largest published one has 33 MB (Gemma 3).
pub(super) const DOCUMENT_BYTES_MAX: usize = 128 << 20;

/// Models that can be read.
pub(super) const MODEL_KINDS: &str = "BPE, WordPiece";

#[derive(Deserialize)]
pub(super) struct Document {
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
    pub normalizer: Option<Value>,
    pub pre_tokenizer: Option<Value>,
    pub post_processor: Option<Value>,
    pub decoder: Option<Value>,
    pub model: ModelPart,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub normalized: bool,
    #[serde(default)]
    pub special: bool,
}

#[derive(Deserialize)]
pub(super) struct ModelPart {
    #[serde(rename = "type")]
    kind: Option<String>,
    pub vocab: HashMap<String, u32>,
    #[serde(default)]
    pub merges: Vec<Merge>,
    pub unk_token: Option<String>,
    #[serde(default)]
    pub fuse_unk: bool,
    #[serde(default)]
    pub byte_fallback: bool,
    #[serde(default)]
    pub ignore_merges: bool,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub max_input_chars_per_word: Option<usize>,
}

/// A merge in the old and in the new way of writing.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Text(String),
    Pair(String, String),
}

/// Only as much of the file as says whether the rest can be understood.
#[derive(Deserialize)]
struct Head {
    model: HeadModel,
}

#[derive(Deserialize)]
struct HeadModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

fn wrong(reason: impl ToString) -> TokenizerError {
    TokenizerError::Json { file: "tokenizer.json", reason: reason.to_string() }
}

impl Document {
    pub fn parse(text: &str) -> Result<Self, TokenizerError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            let bytes = text.len();
            return Err(wrong(format!("{bytes} bytes are more than {DOCUMENT_BYTES_MAX}")));
        }
        let head: Head = serde_json::from_str(text).map_err(wrong)?;
        // Other models write their vocabulary in other ways, which would be a less clear error.
        if let Some(kind) = head.model.kind.filter(|kind| kind != "BPE" && kind != "WordPiece") {
            return Err(unsupported("model", format!("{kind} is not among {MODEL_KINDS}")));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// All names, those of the added tokens last.
    pub fn ids_by_name(&self) -> HashMap<&str, u32> {
        let added = self.added_tokens.iter().map(|token| (token.content.as_str(), token.id));
        self.model.vocab.iter().map(|(name, id)| (name.as_str(), *id)).chain(added).collect()
    }

    pub fn added(&self, name: &str) -> Option<&AddedToken> {
        self.added_tokens.iter().find(|token| token.content == name)
    }
}

impl ModelPart {
    /// Old files leave the type out; only BPE has merges.
    pub fn kind(&self) -> Result<&str, TokenizerError> {
        match &self.kind {
            Some(kind) => Ok(kind),
            None if !self.merges.is_empty() => Ok("BPE"),
            None => Err(unsupported("model", "the file does not name its type")),
        }
    }

    /// What a WordPiece that goes on is written with.
    pub fn continuing(&self) -> &str {
        self.continuing_subword_prefix.as_deref().unwrap_or("##")
    }
}
