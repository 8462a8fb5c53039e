//! The texts of a folder beside its weights: configs, chat template, tokenizer.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value as Json;

use super::error::SafetensorsError;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Longest configs and templates; `tokenizer_config.json` lists special tokens, a megabyte in Gemma's.
pub(super) const TEXT_BYTES_MAX: u64 = 8 << 20;
/// Longest `tokenizer.json`; Gemma's, the largest we know, has 33 megabytes.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;

/// What a tokenizer is made from.
pub(super) struct TokenizerTexts {
    tokenizer: String,
    config: Option<String>,
    /// Ids that end an answer.
    ends: Vec<u32>,
}

impl TokenizerTexts {
    /// `None` if the folder has no `tokenizer.json`.
    pub fn read(folder: &Path) -> Result<Option<Self>, SafetensorsError> {
        let Some(tokenizer) = text(folder, "tokenizer.json", TOKENIZER_BYTES_MAX)? else {
            return Ok(None);
        };
        let config = text(folder, "tokenizer_config.json", TEXT_BYTES_MAX)?;
        let mut ends = Vec::new();
        for file in ["config.json", "generation_config.json"] {
            let config = json(folder, file)?;
            match config.as_ref().and_then(|config| config.get("eos_token_id")) {
                Some(Json::Array(ids)) => ends.extend(ids.iter().filter_map(Json::as_u64)),
                Some(id) => ends.extend(id.as_u64()),
                None => {}
            }
        }
        let ends = ends.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
        Ok(Some(Self { tokenizer, config, ends }))
    }

    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        let tokenizer = Tokenizer::from_tokenizer_json(&self.tokenizer, self.config.as_deref())?;
        Ok(tokenizer.with_ends(self.ends.iter().copied()))
    }
}

/// The folder's chat template, from whichever of its three places has one.
pub(super) fn chat_template(folder: &Path) -> Result<Option<String>, SafetensorsError> {
    if let Some(template) = text(folder, "chat_template.jinja", TEXT_BYTES_MAX)? {
        return Ok(Some(template));
    }
    for file in ["tokenizer_config.json", "chat_template.json"] {
        let Some(config) = json(folder, file)? else { continue };
        let template = match config.get("chat_template") {
            Some(Json::String(template)) => Some(template.clone()),
            // Several, by name: tools or retrieval have their own.
            Some(Json::Array(named)) => named
                .iter()
                .find(|one| one.get("name").and_then(Json::as_str) == Some("default"))
                .and_then(|one| one.get("template")?.as_str())
                .map(str::to_owned),
            Some(_) | None => None,
        };
        if template.is_some() {
            return Ok(template);
        }
    }
    Ok(None)
}

pub(super) fn json(folder: &Path, file: &str) -> Result<Option<Json>, SafetensorsError> {
    let Some(text) = text(folder, file, TEXT_BYTES_MAX)? else { return Ok(None) };
    let malformed = |error: serde_json::Error| SafetensorsError::Malformed {
        file: file.to_owned(),
        reason: error.to_string(),
    };
    serde_json::from_str(&text).map(Some).map_err(malformed)
}

pub(super) fn require_text(
    folder: &Path,
    file: &str,
    bytes_max: u64,
) -> Result<String, SafetensorsError> {
    text(folder, file, bytes_max)?.ok_or_else(|| SafetensorsError::Malformed {
        file: file.to_owned(),
        reason: format!("missing in {}", folder.display()),
    })
}

/// A text file of the folder; `None` if there is none.
pub(super) fn text(
    folder: &Path,
    file: &str,
    bytes_max: u64,
) -> Result<Option<String>, SafetensorsError> {
    let path = folder.join(file);
    let io = |source| SafetensorsError::Io { path: path.display().to_string(), source };
    let open = match File::open(&path) {
        Ok(open) => open,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut text = String::new();
    open.take(bytes_max + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > bytes_max {
        return Err(SafetensorsError::Malformed {
            file: file.to_owned(),
            reason: format!("longer than {bytes_max} bytes"),
        });
    }
    Ok(Some(text))
}
