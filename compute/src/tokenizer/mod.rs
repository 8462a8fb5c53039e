//! Byte-level BPE from a GGUF file's metadata: text to ids and back.
//!
//! Text is cut at control tokens, then into words by the model's rule, then each word's bytes are
//! merged by rank. Control tokens are recognised in text because chat templates produce them as text.

mod bytes;
mod error;
mod merge;
mod split;

use std::collections::{BTreeSet, HashMap};

pub use bytes::{Utf8Stream, byte_to_char, char_to_byte};
pub use error::TokenizerError;

use crate::gguf::{Metadata, Value};
use merge::Merges;
use split::Splitter;

/// Values of `tokenizer.ggml.token_type` that are matched as literal text.
const TYPE_CONTROL: i64 = 3;
const TYPE_USER_DEFINED: i64 = 4;

/// Control tokens that end an answer in some model, whatever its `eos_token_id` says.
const END_NAMES: [&str; 8] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "</s>",
];

struct Token {
    /// Bytes this token stands for.
    bytes: Vec<u8>,
    control: bool,
}

/// A model's tokenizer.
pub struct Tokenizer {
    tokens: Vec<Token>,
    /// Id of each single byte, if the vocabulary has it.
    byte_ids: Vec<Option<u32>>,
    word_ids: HashMap<Vec<u8>, u32>,
    merges: Merges,
    splitter: Splitter,
    /// Tokens matched literally, longest first, by their first byte.
    literals: HashMap<u8, Vec<u32>>,
    ends: BTreeSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    /// Llama 3 takes a word that is in the vocabulary whole, without replaying its merges.
    whole_words_first: bool,
    unknown: Option<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model file.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let model = metadata.string("tokenizer.ggml.model")?.ok_or(TokenizerError::Missing)?;
        if model != "gpt2" {
            return Err(TokenizerError::UnsupportedModel { model: model.to_owned() });
        }
        let pre = metadata.string("tokenizer.ggml.pre")?.unwrap_or("default");
        let names = metadata.require_strings("tokenizer.ggml.tokens")?;
        let kinds = metadata.array("tokenizer.ggml.token_type")?.unwrap_or(&[]);
        let tokens: Vec<Token> =
            names.iter().enumerate().map(|(i, name)| token(name, kinds.get(i))).collect();

        let by_name: HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
        let mut merges = Merges::new();
        for (rank, pair) in (0..).zip(metadata.require_strings("tokenizer.ggml.merges")?) {
            let (left, right, whole) = merge_rule(pair, &by_name)?;
            merges.entry((left, right)).or_insert((rank, whole));
        }

        let special = |key: &str| -> Result<Option<u32>, TokenizerError> {
            let id = metadata.count(key)?.and_then(|n| u32::try_from(n).ok());
            Ok(id.filter(|id| (*id as usize) < tokens.len()))
        };
        let eos = special("tokenizer.ggml.eos_token_id")?;
        let mut ends: BTreeSet<u32> = eos.into_iter().collect();
        ends.extend(special("tokenizer.ggml.eot_token_id")?);
        ends.extend(END_NAMES.iter().filter_map(|name| {
            let id = *by_name.get(name)?;
            tokens[id as usize].control.then_some(id)
        }));

        let mut byte_ids = vec![None; 256];
        let mut word_ids = HashMap::new();
        let mut literals: HashMap<u8, Vec<u32>> = HashMap::new();
        for (id, (token, kind)) in (0_u32..).zip(tokens.iter().zip(0..)) {
            if is_literal(kinds.get(kind)) {
                if let Some(first) = token.bytes.first() {
                    literals.entry(*first).or_default().push(id);
                }
                continue;
            }
            if let [byte] = token.bytes[..] {
                byte_ids[usize::from(byte)] = Some(id);
            }
            word_ids.insert(token.bytes.clone(), id);
        }
        for ids in literals.values_mut() {
            ids.sort_by_key(|id| std::cmp::Reverse(tokens[*id as usize].bytes.len()));
        }
        Ok(Self {
            bos: special("tokenizer.ggml.bos_token_id")?,
            unknown: special("tokenizer.ggml.unknown_token_id")?,
            add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false),
            whole_words_first: matches!(pre, "llama-bpe" | "llama3"),
            splitter: Splitter::new(pre)?,
            tokens,
            byte_ids,
            word_ids,
            merges,
            literals,
            ends,
            eos,
        })
    }

    /// Ids of `text`. Control tokens in it are recognised; no begin-of-text token is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (plain, literal) = self.next_literal(rest);
            for word in self.splitter.split(plain) {
                self.encode_word(word, &mut ids);
            }
            rest = &rest[plain.len()..];
            if let Some(id) = literal {
                ids.push(id);
                rest = &rest[self.tokens[id as usize].bytes.len()..];
            }
        }
        Ok(ids)
    }

    /// Ids of a prompt: as [`Self::encode`], with a begin-of-text token in front if the model wants
    /// one and the text does not bring it.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text)?;
        if let Some(bos) = self.bos.filter(|_| self.add_bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Text up to the first literal token, and that token.
    fn next_literal<'t>(&self, text: &'t str) -> (&'t str, Option<u32>) {
        let bytes = text.as_bytes();
        for start in 0..bytes.len() {
            let Some(candidates) = self.literals.get(&bytes[start]) else {
                continue;
            };
            let found = candidates
                .iter()
                .find(|id| bytes[start..].starts_with(&self.tokens[**id as usize].bytes));
            if let Some(id) = found {
                return (&text[..start], Some(*id));
            }
        }
        (text, None)
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        if self.whole_words_first
            && let Some(id) = self.word_ids.get(word.as_bytes())
        {
            ids.push(*id);
            return;
        }
        let symbols: Vec<u32> = word
            .bytes()
            .filter_map(|byte| self.byte_ids[usize::from(byte)].or(self.unknown))
            .collect();
        ids.extend(merge::merge(&symbols, &self.merges));
    }

    /// Bytes a token stands for; empty for an id outside the vocabulary.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.tokens.get(id as usize).map_or(&[], |t| &t.bytes)
    }

    /// Text of `ids`, control tokens included.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// True for tokens that steer the conversation and are not part of its text.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.tokens.get(id as usize).is_some_and(|t| t.control)
    }

    /// True for tokens that end an answer.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.tokens.len()
    }

    /// Text of the begin-of-text token, for templates; empty if there is none.
    #[must_use]
    pub fn bos_text(&self) -> String {
        self.bos.map(|id| self.decode(&[id])).unwrap_or_default()
    }

    #[must_use]
    pub fn eos_text(&self) -> String {
        self.eos.map(|id| self.decode(&[id])).unwrap_or_default()
    }
}

fn kind_of(kind: Option<&Value>) -> i64 {
    match kind {
        Some(Value::Signed(n)) => *n,
        Some(Value::Unsigned(n)) => i64::try_from(*n).unwrap_or(0),
        Some(Value::Float(_) | Value::Bool(_) | Value::String(_) | Value::Array(_)) | None => 0,
    }
}

fn is_literal(kind: Option<&Value>) -> bool {
    matches!(kind_of(kind), TYPE_CONTROL | TYPE_USER_DEFINED)
}

fn token(name: &str, kind: Option<&Value>) -> Token {
    let bytes = if is_literal(kind) {
        name.as_bytes().to_vec()
    } else {
        // A name outside GPT-2's alphabet is taken as it is written.
        name.chars()
            .map(char_to_byte)
            .collect::<Option<Vec<u8>>>()
            .unwrap_or_else(|| name.as_bytes().to_vec())
    };
    Token { bytes, control: kind_of(kind) == TYPE_CONTROL }
}

fn merge_rule(pair: &str, by_name: &HashMap<&str, u32>) -> Result<(u32, u32, u32), TokenizerError> {
    let bad =
        |reason: &str| TokenizerError::Vocabulary { reason: format!("merge '{pair}': {reason}") };
    let (left, right) =
        pair.split_once(' ').ok_or_else(|| bad("two tokens separated by a space expected"))?;
    let id = |name: &str| by_name.get(name).copied();
    match (id(left), id(right), id(&format!("{left}{right}"))) {
        (Some(left), Some(right), Some(whole)) => Ok((left, right, whole)),
        _ => Err(bad("a token of it is not in the vocabulary")),
    }
}
