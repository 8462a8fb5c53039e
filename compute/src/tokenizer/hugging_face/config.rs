//! `tokenizer_config.json`: the names of the special tokens.

use serde::Deserialize;

use super::super::error::TokenizerError;

/// Gemma 3's has 1.2 MB.
const CONFIG_BYTES_MAX: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Plain(String),
    Added { content: String },
}

#[derive(Deserialize)]
struct Written {
    bos_token: Option<Name>,
    eos_token: Option<Name>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
}

#[derive(Default)]
pub(super) struct Config {
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
}

impl Config {
    pub fn parse(text: &str) -> Result<Self, TokenizerError> {
        let wrong = |reason: String| TokenizerError::Json { file: "tokenizer_config.json", reason };
        if text.len() > CONFIG_BYTES_MAX {
            return Err(wrong(format!("{} bytes are more than {CONFIG_BYTES_MAX}", text.len())));
        }
        let written: Written =
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let text = |name: Name| match name {
            Name::Plain(text) | Name::Added { content: text } => text,
        };
        Ok(Self {
            bos_token: written.bos_token.map(text),
            eos_token: written.eos_token.map(text),
            add_bos_token: written.add_bos_token,
            add_eos_token: written.add_eos_token,
        })
    }
}
