//! How the models named by `tokenizer.ggml.pre` cut text into words.
//!
//! The patterns are facts about the models (their published `tokenizer.json`); a wrong one yields
//! valid text but other ids, so an unknown name is refused rather than guessed.

use super::error::TokenizerError;
use super::normalise::{Form, Normaliser};
use super::split::{Cut, Splitter};

/// The pattern of GPT-2 (openai/gpt-2 `src/encoder.py`), which Hugging Face's `ByteLevel` brings.
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Hugging Face's `Digits` with `individual_digits`, as SmolLM and StarCoder have it before GPT-2's.
pub(super) const DIGIT: &str = r"\p{N}";
pub(super) const DIGITS: &str = r"\p{N}+";
/// meta-llama/Meta-Llama-3-8B `tokenizer.json`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen/Qwen2-0.5B, Qwen2.5 and Qwen3 `tokenizer.json`.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// mistralai/Mistral-Nemo-Instruct-2407 `tokenizer.json`; the same in mistral-common's `tekken.json`.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// openai/tiktoken `tiktoken_ext/openai_public.py`, o200k_base; Llama 4 and gpt-oss `tokenizer.json`.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// deepseek-ai/DeepSeek-V3 `tokenizer.json`.
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
/// deepseek-ai/deepseek-llm-7b-base `tokenizer.json`, as llama.cpp's `llama-vocab.cpp` gives it.
const DEEPSEEK_LLM: [&str; 6] = [
    r"[\r\n]",
    r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+",
    r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
    r"\s+$",
    r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+",
    DIGITS,
];
/// deepseek-ai/deepseek-coder-6.7b-base `tokenizer.json`, as llama.cpp's `llama-vocab.cpp` gives it.
const DEEPSEEK_CODER: [&str; 5] = [
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+",
    DIGIT,
];

/// What a name means.
pub(super) struct Preset {
    name: &'static str,
    patterns: &'static [&'static str],
    /// Composes characters first (Unicode NFC), as the model's `tokenizer.json` says.
    nfc: bool,
    /// A word that is in the vocabulary is taken whole, without replaying its merges.
    pub whole_words: bool,
    /// A prompt begins with the begin-of-text token unless the file says otherwise.
    pub adds_bos: bool,
}

const fn plain(name: &'static str, patterns: &'static [&'static str]) -> Preset {
    Preset { name, patterns, nfc: false, whole_words: false, adds_bos: false }
}

/// As [`plain`], with whole words and a begin-of-text token.
const fn whole(name: &'static str, patterns: &'static [&'static str]) -> Preset {
    Preset { name, patterns, nfc: false, whole_words: true, adds_bos: true }
}

const PRESETS: [Preset; 15] = [
    plain("default", &[GPT2]),
    plain("gpt-2", &[GPT2]),
    plain("smollm", &[DIGIT, GPT2]),
    plain("starcoder", &[DIGIT, GPT2]),
    plain("refact", &[DIGIT, GPT2]),
    whole("llama-bpe", &[LLAMA3]),
    whole("llama3", &[LLAMA3]),
    whole("llama-v3", &[LLAMA3]),
    Preset { name: "qwen2", patterns: &[QWEN2], nfc: true, whole_words: false, adds_bos: false },
    whole("tekken", &[TEKKEN]),
    plain("gpt-4o", &[GPT4O]),
    plain("llama4", &[GPT4O]),
    plain("deepseek-llm", &DEEPSEEK_LLM),
    plain("deepseek-coder", &DEEPSEEK_CODER),
    plain("deepseek-v3", &DEEPSEEK_V3),
];

impl Preset {
    pub fn find(name: &str) -> Result<&'static Self, TokenizerError> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            TokenizerError::UnsupportedPre {
                pre: name.to_owned(),
                known: PRESETS.each_ref().map(|preset| preset.name).join(", "),
            }
        })
    }

    pub fn splitter(&self) -> Result<Splitter, TokenizerError> {
        let cuts = self.patterns.iter().map(|pattern| Cut::isolate(pattern));
        Ok(Splitter { cuts: cuts.collect::<Result<_, _>>()? })
    }

    pub fn normalisers(&self) -> Vec<Normaliser> {
        self.nfc.then_some(Normaliser::Form(Form::Nfc)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pre: &str, text: &str, expected: &[&str]) {
        let splitter = Preset::find(pre).unwrap().splitter().unwrap();
        let pieces = splitter.split(text, true);
        let words: Vec<&str> = pieces.iter().collect();
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
        check("tekken", "CamelCase's 12", &["Camel", "Case", "'s", " ", "1", "2"]);
        check("gpt-4o", "CamelCase's 1234", &["Camel", "Case's", " ", "123", "4"]);
        check("deepseek-llm", "a b\n中文12 ", &["a", " b", "\n", "中文", "12", " "]);
        check("deepseek-coder", "x=1;", &["x", "=", "1", ";"]);
        check("deepseek-v3", "a.b 中の1234", &["a", ".b", " ", "中の", "123", "4"]);
        assert!(Preset::find("martian").is_err());
    }

    #[test]
    fn every_preset_compiles() {
        for preset in &PRESETS {
            assert!(preset.splitter().is_ok(), "{}", preset.name);
        }
    }
}
