//! The tokenizer of a Hugging Face folder: `tokenizer.json` and `tokenizer_config.json`.
//!
//! The file is a pipeline of named parts. We know those that published language models use; any other
//! is refused by name, since leaving one out would give ids the model has never seen.

mod config;
mod document;
mod pipeline;

use std::collections::HashMap;

use config::Config;
use document::{AddedToken, Document, MODEL_KINDS, ModelPart};
use pipeline::Decoding;

use super::Tokenizer;
use super::ends::ends;
use super::error::TokenizerError;
use super::literals::{Literal, Literals};
use super::merge::Merged;
use super::metadata::{merge_pair, merge_rule};
use super::model::{Alphabet, Merges, Model, NO_BYTES, Ranked};
use super::split::{Cut, Splitter};
use super::vocabulary::{Spelling, Token, Vocabulary, byte_level_ids, fallback_ids};
use super::wordpiece::{WORD_CHARACTERS_MAX, WordPiece};

fn unsupported(part: &str, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::UnsupportedPart { part: part.to_owned(), reason: reason.into() }
}

pub(super) fn read(text: &str, config: Option<&str>) -> Result<Tokenizer, TokenizerError> {
    let document = Document::parse(text)?;
    let config = config.map(Config::parse).transpose()?.unwrap_or_default();
    let normalisers = pipeline::normalisers(document.normalizer.as_ref())?;
    let pre = pipeline::cuts(document.pre_tokenizer.as_ref())?;
    let decoding = pipeline::decoding(document.decoder.as_ref())?;

    let by_name = document.ids_by_name();
    let model = match document.model.kind()? {
        "BPE" => ranked(&document.model, pre.byte_level)?,
        "WordPiece" => wordpiece(&document.model)?,
        other => return Err(unsupported("model", format!("{other} is not among {MODEL_KINDS}"))),
    };
    let (mut raw, mut normal) = (Vec::new(), Vec::new());
    for token in &document.added_tokens {
        let mut literal = Literal {
            id: token.id,
            text: token.content.clone(),
            strips_left: token.lstrip,
            strips_right: token.rstrip,
            single_word: token.single_word,
        };
        if token.normalized {
            let text = std::borrow::Cow::Borrowed(token.content.as_str());
            literal.text = normalisers.iter().fold(text, |text, n| n.apply(text)).into_owned();
            normal.push(literal);
        } else {
            raw.push(literal);
        }
    }
    let find = |name: &str| by_name.get(name).copied();
    let is_control = |name: &str| document.added(name).is_some_and(|token| token.special);
    let (bos, eos) =
        (config.bos_token.as_deref().and_then(find), config.eos_token.as_deref().and_then(find));
    let ends = ends(eos, |name| Some((find(name)?, is_control(name))));
    let mut vocabulary = vocabulary(&document, pre.byte_level, decoding)?;
    for id in &ends {
        if let Some(token) = vocabulary.get_mut(*id) {
            token.control = true;
        }
    }
    let (mut prefix, mut suffix) = pipeline::around(document.post_processor.as_ref(), find)?;
    // Some classes of tokenizers bring their begin-of-text token in code, not in the file.
    if prefix.is_empty() && config.add_bos_token == Some(true) {
        prefix.extend(bos);
    }
    if suffix.is_empty() && config.add_eos_token == Some(true) {
        suffix.extend(eos);
    }
    Ok(Tokenizer {
        vocabulary,
        literals: Literals::new(raw)?,
        normalisers,
        normal_literals: Literals::new(normal)?,
        splitter: Splitter { cuts: pre.cuts },
        model,
        bos: bos.or(prefix.first().copied()),
        eos,
        prefix,
        suffix,
        ends,
        strips_space: decoding.strips_space,
    })
}

fn vocabulary(
    document: &Document,
    byte_level: bool,
    decoding: Decoding,
) -> Result<Vocabulary, TokenizerError> {
    let continuing = document.model.continuing();
    let mut vocabulary = Vocabulary::default();
    for (name, id) in &document.model.vocab {
        let (spelling, name) = if byte_level {
            (Spelling::ByteLevel, name.as_str())
        } else if decoding.word_pieces {
            match name.strip_prefix(continuing) {
                Some(rest) => (Spelling::Literal, rest),
                None => (Spelling::WordStart, name.as_str()),
            }
        } else {
            (Spelling::Marked, name.as_str())
        };
        vocabulary.set(*id, name, Token { bytes: spelling.bytes(name), control: false })?;
    }
    for AddedToken { id, content, special, .. } in &document.added_tokens {
        let token = Token { bytes: Spelling::Literal.bytes(content), control: *special };
        vocabulary.set(*id, content, token)?;
    }
    Ok(vocabulary)
}

fn ranked(part: &ModelPart, byte_level: bool) -> Result<Model, TokenizerError> {
    for (what, value) in [
        ("continuing_subword_prefix", &part.continuing_subword_prefix),
        ("end_of_word_suffix", &part.end_of_word_suffix),
    ] {
        if value.as_ref().is_some_and(|text| !text.is_empty()) {
            return Err(unsupported("BPE model", format!("it has a {what}")));
        }
    }
    let id = |name: &str| part.vocab.get(name).copied();
    let mut merges = Merges::with_capacity(part.merges.len());
    for (rank, merge) in (0..).zip(&part.merges) {
        let (pair, id) = match merge {
            document::Merge::Text(pair) => merge_rule(pair, id)?,
            document::Merge::Pair(left, right) => merge_pair(left, right, id)?,
        };
        merges.insert(pair, Merged { rank, id });
    }
    let names = || part.vocab.iter().map(|(name, id)| (name.as_str(), *id));
    let alphabet = if byte_level {
        Alphabet::Bytes(Box::new(byte_level_ids(names())))
    } else {
        let mut ids = HashMap::new();
        for (name, id) in names() {
            let mut characters = name.chars();
            if let (Some(only), None) = (characters.next(), characters.next()) {
                ids.insert(only, id);
            }
        }
        let bytes = if part.byte_fallback { fallback_ids(names()) } else { NO_BYTES };
        Alphabet::Characters { ids, bytes: Box::new(bytes) }
    };
    let spell = |name: &str| match byte_level {
        true => Spelling::ByteLevel.bytes(name),
        false => Spelling::Literal.bytes(name),
    };
    let whole_words = match part.ignore_merges {
        true => names().map(|(name, id)| (spell(name), id)).collect(),
        false => HashMap::new(),
    };
    Ok(Model::Ranked(Ranked {
        alphabet,
        merges,
        whole_words,
        unknown: part.unk_token.as_deref().and_then(id),
        fuse_unknown: part.fuse_unk,
    }))
}

fn wordpiece(part: &ModelPart) -> Result<Model, TokenizerError> {
    let (mut starts, mut continuations) = (HashMap::new(), HashMap::new());
    for (name, id) in &part.vocab {
        starts.insert(name.as_str().into(), *id);
        if let Some(rest) = name.strip_prefix(part.continuing()) {
            continuations.insert(rest.into(), *id);
        }
    }
    let unknown = part.unk_token.as_deref().unwrap_or("[UNK]");
    let limit = part.max_input_chars_per_word.unwrap_or(WORD_CHARACTERS_MAX);
    Ok(Model::WordPiece(WordPiece {
        starts,
        continuations,
        unknown: part.vocab.get(unknown).copied(),
        // The search is quadratic in the word, so a file cannot raise the limit at will.
        word_characters_max: limit.min(10 * WORD_CHARACTERS_MAX),
    }))
}

/// A cut that Hugging Face's `ByteLevel` makes by itself.
fn gpt2_cut() -> Result<Cut, TokenizerError> {
    Cut::isolate(super::presets::GPT2)
}
