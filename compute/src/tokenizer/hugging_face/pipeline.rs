//! The named parts of `tokenizer.json`: normalizer, pre_tokenizer, post_processor, decoder.

use serde_json::Value;

use super::super::error::TokenizerError;
use super::super::metadata::bert_cuts;
use super::super::normalise::{BertRules, Form, Normaliser};
use super::super::presets::{DIGIT, DIGITS};
use super::super::split::{Behaviour, Cut, Prepend};
use super::super::vocabulary::SPACE_MARK;
use super::{gpt2_cut, unsupported};

/// Most steps of one part; published ones have at most eight.
const STEPS_MAX: usize = 64;

/// A part as written, with typed look-ups whose errors name the part.
#[derive(Clone, Copy)]
struct Step<'v> {
    part: &'static str,
    value: &'v Value,
}

impl<'v> Step<'v> {
    fn kind(self) -> Result<&'v str, TokenizerError> {
        self.text("type")
    }

    fn wrong(self, what: &str) -> TokenizerError {
        let kind = self.value.get("type").and_then(Value::as_str).unwrap_or("a step");
        unsupported(self.part, format!("{kind}: {what}"))
    }

    fn unknown(self) -> TokenizerError {
        let kind = self.value.get("type").and_then(Value::as_str).unwrap_or_default();
        unsupported(self.part, format!("'{kind}' is not known"))
    }

    fn text(self, key: &str) -> Result<&'v str, TokenizerError> {
        let text = self.value.get(key).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(&format!("'{key}' must be a text")))
    }

    fn flag(self, key: &str, otherwise: bool) -> bool {
        self.value.get(key).and_then(Value::as_bool).unwrap_or(otherwise)
    }

    /// The steps of a sequence, or this one alone.
    fn flatten(self, list: &str, steps: &mut Vec<Step<'v>>) -> Result<(), TokenizerError> {
        if self.kind()? != "Sequence" {
            if steps.len() == STEPS_MAX {
                return Err(self.wrong(&format!("more than {STEPS_MAX} steps")));
            }
            steps.push(self);
            return Ok(());
        }
        let inner = self.value.get(list).and_then(Value::as_array);
        let inner = inner.ok_or_else(|| self.wrong(&format!("'{list}' must be a list")))?;
        inner.iter().try_for_each(|value| Step { value, ..self }.flatten(list, steps))
    }
}

fn steps<'v>(
    part: &'static str,
    list: &str,
    value: Option<&'v Value>,
) -> Result<Vec<Step<'v>>, TokenizerError> {
    let mut steps = Vec::new();
    if let Some(value) = value.filter(|value| !value.is_null()) {
        Step { part, value }.flatten(list, &mut steps)?;
    }
    Ok(steps)
}

/// `{"String": ..}` or `{"Regex": ..}`.
enum Written<'v> {
    Literal(&'v str),
    Regex(&'v str),
}

fn pattern(step: Step<'_>) -> Result<Written<'_>, TokenizerError> {
    let pattern = step.value.get("pattern");
    let text = |key: &str| pattern.and_then(|p| p.get(key)).and_then(Value::as_str);
    match (text("String"), text("Regex")) {
        (Some(literal), None) => Ok(Written::Literal(literal)),
        (None, Some(regex)) => Ok(Written::Regex(regex)),
        _ => Err(step.wrong("'pattern' must be a String or a Regex")),
    }
}

pub(super) fn normalisers(value: Option<&Value>) -> Result<Vec<Normaliser>, TokenizerError> {
    let steps = steps("normalizer", "normalizers", value)?;
    steps.into_iter().map(normaliser).collect()
}

fn normaliser(step: Step<'_>) -> Result<Normaliser, TokenizerError> {
    Ok(match step.kind()? {
        "NFC" => Normaliser::Form(Form::Nfc),
        "NFD" => Normaliser::Form(Form::Nfd),
        "NFKC" => Normaliser::Form(Form::Nfkc),
        "NFKD" => Normaliser::Form(Form::Nfkd),
        "Lowercase" => Normaliser::Lowercase,
        "StripAccents" => Normaliser::StripAccents,
        "Strip" => Normaliser::Strip {
            left: step.flag("strip_left", true),
            right: step.flag("strip_right", true),
        },
        "Prepend" => Normaliser::Prepend(step.text("prepend")?.to_owned()),
        "Replace" => {
            let with = step.text("content")?.to_owned();
            match pattern(step)? {
                Written::Literal("") => return Err(step.wrong("an empty pattern")),
                Written::Literal(what) => Normaliser::Replace { what: what.to_owned(), with },
                Written::Regex(what) => Normaliser::replace_pattern(what, with)?,
            }
        }
        "BertNormalizer" => {
            let lowercase = step.flag("lowercase", true);
            Normaliser::Bert(BertRules {
                clean_text: step.flag("clean_text", true),
                spaces_around_cjk: step.flag("handle_chinese_chars", true),
                strip_accents: step.flag("strip_accents", lowercase),
                lowercase,
            })
        }
        _ => return Err(step.unknown()),
    })
}

pub(super) struct PreTokeniser {
    pub cuts: Vec<Cut>,
    /// Words are bytes in GPT-2's alphabet from here on.
    pub byte_level: bool,
}

pub(super) fn cuts(value: Option<&Value>) -> Result<PreTokeniser, TokenizerError> {
    let mut cuts = Vec::new();
    let mut byte_level = false;
    for step in steps("pre_tokenizer", "pretokenizers", value)? {
        if byte_level {
            return Err(step.wrong("a step after ByteLevel"));
        }
        match step.kind()? {
            "ByteLevel" => {
                byte_level = true;
                if step.flag("add_prefix_space", true) {
                    cuts.push(Cut::LeadingSpace);
                }
                if step.flag("use_regex", true) {
                    cuts.push(gpt2_cut()?);
                }
            }
            "Split" => {
                let (behaviour, invert) = (behaviour(step)?, step.flag("invert", false));
                cuts.push(match pattern(step)? {
                    Written::Literal(text) => Cut::literal(text, behaviour, invert)?,
                    Written::Regex(regex) => Cut::pattern(regex, behaviour, invert)?,
                });
            }
            "Digits" if step.flag("individual_digits", false) => cuts.push(Cut::isolate(DIGIT)?),
            "Digits" => cuts.push(Cut::pattern(DIGITS, Behaviour::Isolated, false)?),
            "Metaspace" => metaspace(step, &mut cuts)?,
            "BertPreTokenizer" => cuts.extend(bert_cuts()?),
            "WhitespaceSplit" => cuts.push(Cut::pattern(r"\s", Behaviour::Removed, false)?),
            _ => return Err(step.unknown()),
        }
    }
    Ok(PreTokeniser { cuts, byte_level })
}

fn behaviour(step: Step<'_>) -> Result<Behaviour, TokenizerError> {
    Ok(match step.text("behavior")? {
        "Isolated" => Behaviour::Isolated,
        "Removed" => Behaviour::Removed,
        "MergedWithPrevious" => Behaviour::MergedWithPrevious,
        "MergedWithNext" => Behaviour::MergedWithNext,
        "Contiguous" => Behaviour::Contiguous,
        other => return Err(step.wrong(&format!("behaviour '{other}'"))),
    })
}

fn metaspace(step: Step<'_>, cuts: &mut Vec<Cut>) -> Result<(), TokenizerError> {
    let mark = mark(step)?;
    cuts.push(Cut::Metaspace { mark, prepend: prepend(step)? });
    if step.flag("split", true) {
        cuts.push(Cut::literal(mark.encode_utf8(&mut [0; 4]), Behaviour::MergedWithNext, false)?);
    }
    Ok(())
}

fn mark(step: Step<'_>) -> Result<char, TokenizerError> {
    match step.text("replacement")?.chars().next() {
        Some(SPACE_MARK) => Ok(SPACE_MARK),
        _ => Err(step.wrong("a replacement other than U+2581")),
    }
}

fn prepend(step: Step<'_>) -> Result<Prepend, TokenizerError> {
    match step.value.get("prepend_scheme").and_then(Value::as_str) {
        Some("always") => Ok(Prepend::Always),
        Some("first") => Ok(Prepend::First),
        Some("never") => Ok(Prepend::Never),
        Some(other) => Err(step.wrong(&format!("prepend_scheme '{other}'"))),
        // The old way of writing it.
        None if step.flag("add_prefix_space", true) => Ok(Prepend::Always),
        None => Ok(Prepend::Never),
    }
}

/// How ids become text again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decoding {
    /// The first space goes.
    pub strips_space: bool,
    pub word_pieces: bool,
}

pub(super) fn decoding(value: Option<&Value>) -> Result<Decoding, TokenizerError> {
    let mut decoding = Decoding::default();
    for step in steps("decoder", "decoders", value)? {
        match step.kind()? {
            // What these do is in the bytes of each token.
            "ByteLevel" | "ByteFallback" | "Fuse" => {}
            "Replace" => match (pattern(step)?, step.text("content")?) {
                (Written::Literal("▁"), " ") => {}
                _ => return Err(step.wrong("only U+2581 to a space is known")),
            },
            "Strip" => {
                match (step.text("content")?, step.value.get("start"), step.value.get("stop")) {
                    (" ", Some(start), Some(stop)) if *start == 1 && *stop == 0 => {
                        decoding.strips_space = true;
                    }
                    _ => return Err(step.wrong("only one space at the start is known")),
                }
            }
            "Metaspace" => {
                mark(step)?;
                decoding.strips_space = prepend(step)? != Prepend::Never;
            }
            "WordPiece" => {
                decoding.word_pieces = true;
                decoding.strips_space = true;
            }
            _ => return Err(step.unknown()),
        }
    }
    Ok(decoding)
}

/// The tokens in front of a text and behind it.
pub(super) fn around(
    value: Option<&Value>,
    find: impl Fn(&str) -> Option<u32>,
) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
    for step in steps("post_processor", "processors", value)? {
        let id = |name: &str| {
            find(name).ok_or_else(|| step.wrong(&format!("no token is called '{name}'")))
        };
        match step.kind()? {
            "ByteLevel" => {}
            "TemplateProcessing" => {
                let items = step.value.get("single").and_then(Value::as_array);
                let items = items.ok_or_else(|| step.wrong("'single' must be a list"))?;
                let mut behind = false;
                for item in items.iter().take(STEPS_MAX) {
                    let name = item.get("SpecialToken").and_then(|token| token.get("id"));
                    match name.and_then(Value::as_str) {
                        Some(name) if behind => suffix.push(id(name)?),
                        Some(name) => prefix.push(id(name)?),
                        None => behind = true,
                    }
                }
            }
            "BertProcessing" | "RobertaProcessing" => {
                let name = |key: &str| {
                    let name = step.value.get(key).and_then(|pair| pair.get(0));
                    let name = name.and_then(Value::as_str);
                    name.ok_or_else(|| step.wrong(&format!("'{key}' must name a token")))
                };
                prefix.push(id(name("cls")?)?);
                suffix.push(id(name("sep")?)?);
            }
            _ => return Err(step.unknown()),
        }
    }
    Ok((prefix, suffix))
}
