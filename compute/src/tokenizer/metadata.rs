//! The tokenizer of a GGUF file, from its metadata (`tokenizer.ggml.*`).
//!
//! What the keys mean, and what holds where they are missing, follows llama.cpp's
//! `llama_vocab::impl::load`.

use std::collections::HashMap;

use super::Tokenizer;
use super::ends::ends;
use super::error::TokenizerError;
use super::literals::{Literal, Literals};
use super::merge::Merged;
use super::model::{Alphabet, Merges, Model, Ranked, Scored};
use super::normalise::{BertRules, Normaliser};
use super::presets::Preset;
use super::split::{Behaviour, Cut, Splitter};
use super::vocabulary::{SPACE_MARK, Spelling, Token, Vocabulary, byte_level_ids, fallback_ids};
use super::wordpiece::{WORD_CHARACTERS_MAX, WordPiece};
use crate::gguf::{Metadata, Value};

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Byte,
}

impl Kind {
    fn of(value: Option<&Value>) -> Self {
        let code = match value {
            Some(Value::Signed(n)) => *n,
            Some(Value::Unsigned(n)) => i64::try_from(*n).unwrap_or(0),
            Some(Value::Float(_) | Value::Bool(_) | Value::String(_) | Value::Array(_)) | None => 0,
        };
        match code {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            // 1 is normal, 5 unused; what is not given or not known is normal too.
            _ => Self::Normal,
        }
    }

    fn is_literal(self) -> bool {
        match self {
            Self::Unknown | Self::Control | Self::UserDefined => true,
            Self::Normal | Self::Byte => false,
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Unknown | Self::Control => true,
            Self::UserDefined | Self::Normal | Self::Byte => false,
        }
    }
}

/// Kinds of tokenizers that are known by `tokenizer.ggml.model`.
const MODELS: &str = "gpt2, llama, gemma, bert";

struct Names<'m> {
    names: Vec<&'m str>,
    kinds: Vec<Kind>,
}

impl<'m> Names<'m> {
    fn read(metadata: &'m Metadata) -> Result<Self, TokenizerError> {
        let names = metadata.require_strings("tokenizer.ggml.tokens")?;
        let given = metadata.array("tokenizer.ggml.token_type")?.unwrap_or(&[]);
        let kinds = (0..names.len()).map(|place| Kind::of(given.get(place))).collect();
        Ok(Self { names, kinds })
    }

    fn iter(&self) -> impl Iterator<Item = (&'m str, u32, Kind)> {
        (0_u32..)
            .zip(self.names.iter().zip(&self.kinds))
            .map(|(id, (name, kind))| (*name, id, *kind))
    }

    /// Names and ids of the tokens that words are made of.
    fn words(&self) -> impl Iterator<Item = (&'m str, u32)> {
        self.iter().filter(|(.., kind)| !kind.is_literal()).map(|(name, id, _)| (name, id))
    }

    fn vocabulary(&self, spelling: Spelling) -> Result<Vocabulary, TokenizerError> {
        let mut vocabulary = Vocabulary::default();
        for (name, id, kind) in self.iter() {
            let spelling = if kind.is_literal() { Spelling::Literal } else { spelling };
            let token = Token { bytes: spelling.bytes(name), control: kind.is_control() };
            vocabulary.set(id, name, token)?;
        }
        Ok(vocabulary)
    }

    fn literals(&self) -> Result<Literals, TokenizerError> {
        let literal = |(name, id, _): (&str, u32, Kind)| Literal {
            id,
            text: name.to_owned(),
            ..Literal::default()
        };
        Literals::new(self.iter().filter(|(.., kind)| kind.is_literal()).map(literal).collect())
    }
}

/// The ids of special tokens, with llama.cpp's values for files that leave them out.
struct Specials<'m> {
    metadata: &'m Metadata,
    vocabulary: usize,
}

impl Specials<'_> {
    fn id(&self, name: &str, otherwise: Option<u32>) -> Result<Option<u32>, TokenizerError> {
        let given = self.metadata.count(&format!("tokenizer.ggml.{name}_token_id"))?;
        let known = |id: &u32| (*id as usize) < self.vocabulary;
        let id = given.and_then(|id| u32::try_from(id).ok()).filter(known);
        Ok(id.or(otherwise.filter(known)))
    }

    fn flag(&self, name: &str, otherwise: bool) -> Result<bool, TokenizerError> {
        Ok(self.metadata.bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(otherwise))
    }
}

/// What the kinds of tokenizers differ in.
struct Parts {
    model: Model,
    vocabulary: Vocabulary,
    normalisers: Vec<Normaliser>,
    splitter: Splitter,
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    /// Token behind a text (BERT's separator).
    separator: Option<u32>,
    strips_space: bool,
}

pub(super) fn read(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let model = metadata.string("tokenizer.ggml.model")?.ok_or(TokenizerError::Missing)?;
    let names = Names::read(metadata)?;
    let specials = Specials { metadata, vocabulary: names.names.len() };
    let mut parts = match model {
        "gpt2" => byte_level(metadata, &names, &specials)?,
        "llama" => sentence_piece(metadata, &names, &specials, true)?,
        "gemma" => sentence_piece(metadata, &names, &specials, false)?,
        "bert" => wordpiece(&names, &specials)?,
        _ => {
            return Err(TokenizerError::UnsupportedModel {
                model: model.to_owned(),
                known: MODELS.to_owned(),
            });
        }
    };
    let by_name: HashMap<&str, u32> = names.names.iter().copied().zip(0..).collect();
    let given = [parts.eos, specials.id("eot", None)?, specials.id("eom", None)?];
    let ends = ends(given.into_iter().flatten(), |name| {
        let id = *by_name.get(name)?;
        Some((id, names.kinds[id as usize].is_control()))
    });
    for id in &ends {
        if let Some(token) = parts.vocabulary.get_mut(*id) {
            token.control = true;
        }
    }
    let adds_bos = specials.flag("add_bos_token", parts.adds_bos)?;
    let adds_eos = specials.flag("add_eos_token", false)?;
    let adds_separator = specials.flag("add_sep_token", parts.separator.is_some())?;
    let suffix = [parts.separator.filter(|_| adds_separator), parts.eos.filter(|_| adds_eos)];
    Ok(Tokenizer {
        vocabulary: parts.vocabulary,
        literals: names.literals()?,
        normalisers: parts.normalisers,
        normal_literals: Literals::new(Vec::new())?,
        splitter: parts.splitter,
        model: parts.model,
        prefix: parts.bos.filter(|_| adds_bos).into_iter().collect(),
        suffix: suffix.into_iter().flatten().collect(),
        ends,
        bos: parts.bos,
        eos: parts.eos,
        strips_space: parts.strips_space,
    })
}

/// GPT-2's kind: bytes merged by rank.
fn byte_level(
    metadata: &Metadata,
    names: &Names<'_>,
    specials: &Specials<'_>,
) -> Result<Parts, TokenizerError> {
    let preset = Preset::find(metadata.string("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    let by_name: HashMap<&str, u32> = names.names.iter().copied().zip(0..).collect();
    let mut merges = Merges::new();
    for (rank, pair) in (0..).zip(metadata.require_strings("tokenizer.ggml.merges")?) {
        let (pair, id) = merge_rule(pair, |name| by_name.get(name).copied())?;
        merges.entry(pair).or_insert(Merged { rank, id });
    }
    let vocabulary = names.vocabulary(Spelling::ByteLevel)?;
    let whole_words = if preset.whole_words {
        names.words().map(|(name, id)| (Spelling::ByteLevel.bytes(name), id)).collect()
    } else {
        HashMap::new()
    };
    Ok(Parts {
        model: Model::Ranked(Ranked {
            alphabet: Alphabet::Bytes(Box::new(byte_level_ids(names.words()))),
            merges,
            whole_words,
            // A byte that the vocabulary lacks is left out, whatever `unknown_token_id` says: the
            // models' `tokenizer.json` names no unknown token, and llama.cpp does the same.
            unknown: None,
            fuse_unknown: false,
        }),
        vocabulary,
        normalisers: preset.normalisers(),
        splitter: preset.splitter()?,
        bos: specials.id("bos", None)?,
        eos: specials.id("eos", None)?,
        adds_bos: preset.adds_bos,
        separator: None,
        strips_space: false,
    })
}

/// A merge as files write it: two names and a space between them.
pub(super) fn merge_rule(
    pair: &str,
    id: impl Fn(&str) -> Option<u32>,
) -> Result<((u32, u32), u32), TokenizerError> {
    let (left, right) = pair
        .split_once(' ')
        .ok_or_else(|| bad_merge(pair, "two tokens separated by a space expected"))?;
    merge_pair(left, right, id)
}

pub(super) fn merge_pair(
    left: &str,
    right: &str,
    id: impl Fn(&str) -> Option<u32>,
) -> Result<((u32, u32), u32), TokenizerError> {
    match (id(left), id(right), id(&format!("{left}{right}"))) {
        (Some(left), Some(right), Some(whole)) => Ok(((left, right), whole)),
        _ => Err(bad_merge(&format!("{left} {right}"), "a token of it is not in the vocabulary")),
    }
}

fn bad_merge(pair: &str, reason: &str) -> TokenizerError {
    let pair: String = pair.chars().take(80).collect();
    TokenizerError::Vocabulary { reason: format!("merge '{pair}': {reason}") }
}

/// SentencePiece's kind: characters merged by score, bytes for what is missing.
fn sentence_piece(
    metadata: &Metadata,
    names: &Names<'_>,
    specials: &Specials<'_>,
    adds_space: bool,
) -> Result<Parts, TokenizerError> {
    let scores = metadata.array("tokenizer.ggml.scores")?.unwrap_or(&[]);
    if scores.len() != names.names.len() {
        let (found, wanted) = (scores.len(), names.names.len());
        let reason = format!("{found} scores for {wanted} tokens in tokenizer.ggml.scores");
        return Err(TokenizerError::Vocabulary { reason });
    }
    let unknown = specials.id("unknown", Some(0))?;
    let pieces = names.iter().zip(scores).filter(|((_, _, kind), _)| match kind {
        Kind::Normal | Kind::UserDefined => true,
        Kind::Unknown | Kind::Control | Kind::Byte => false,
    });
    let pieces = pieces.map(|((name, id, _), score)| (name, id, score_of(score)));
    let bytes = fallback_ids(names.words());
    let model = Model::Scored(Scored::new(pieces, bytes, unknown));
    let adds_space = specials.flag("add_space_prefix", adds_space)?;
    let mut normalisers = Vec::new();
    if adds_space {
        normalisers.push(Normaliser::Prepend(SPACE_MARK.to_string()));
    }
    normalisers.push(Normaliser::Replace { what: " ".to_owned(), with: SPACE_MARK.to_string() });
    Ok(Parts {
        model,
        vocabulary: names.vocabulary(Spelling::Marked)?,
        normalisers,
        splitter: Splitter::default(),
        bos: specials.id("bos", Some(1))?,
        eos: specials.id("eos", Some(2))?,
        adds_bos: true,
        separator: None,
        strips_space: adds_space,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "the file's scores are f32")]
fn score_of(score: &Value) -> f32 {
    match score {
        Value::Float(score) => *score as f32,
        Value::Unsigned(_)
        | Value::Signed(_)
        | Value::Bool(_)
        | Value::String(_)
        | Value::Array(_) => 0.0,
    }
}

/// BERT's kind. In GGUF a piece that begins a word is written with `▁` in front, one that goes on
/// bare (convert_hf_to_gguf.py, "phantom space").
fn wordpiece(names: &Names<'_>, specials: &Specials<'_>) -> Result<Parts, TokenizerError> {
    let (mut starts, mut continuations) = (HashMap::new(), HashMap::new());
    for (name, id) in names.words() {
        match name.strip_prefix(SPACE_MARK) {
            Some(start) => starts.insert(start.into(), id),
            None => continuations.insert(name.into(), id),
        };
    }
    let model = WordPiece {
        starts,
        continuations,
        unknown: specials.id("unknown", Some(100))?,
        word_characters_max: WORD_CHARACTERS_MAX,
    };
    let lowercase = specials.flag("normalizer.lowercase", true)?;
    let rules = BertRules {
        clean_text: true,
        spaces_around_cjk: true,
        strip_accents: specials.flag("normalizer.strip_accents", lowercase)?,
        lowercase,
    };
    Ok(Parts {
        model: Model::WordPiece(model),
        vocabulary: names.vocabulary(Spelling::Marked)?,
        normalisers: vec![Normaliser::Bert(rules)],
        splitter: Splitter { cuts: bert_cuts()? },
        // Older files name BERT's first token as "cls".
        bos: match specials.id("bos", None)? {
            Some(id) => Some(id),
            None => specials.id("cls", Some(101))?,
        },
        eos: specials.id("eos", None)?,
        adds_bos: true,
        // The key is spelt so.
        separator: specials.id("seperator", Some(102))?,
        strips_space: true,
    })
}

/// White space goes, punctuation stands alone (Hugging Face's `BertPreTokenizer`).
pub(super) fn bert_cuts() -> Result<Vec<Cut>, TokenizerError> {
    Ok(vec![
        Cut::pattern(r"\s", Behaviour::Removed, false)?,
        Cut::isolate(r"[!-/:-@\[-`{-~\p{P}]")?,
    ])
}
