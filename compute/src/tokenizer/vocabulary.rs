//! The list of tokens: what bytes each stands for.

use super::bytes::char_to_byte;
use super::error::TokenizerError;
use super::model::{ByteIds, NO_BYTES};

/// Most tokens of a vocabulary; the largest published have 262 144 (Gemma 3).
pub(super) const TOKENS_MAX: usize = 1 << 20;
/// Longest token. The longest published ones are runs of a few hundred spaces or dashes; SentencePiece
/// looks words of this length up, so the bound is also one on time.
pub(super) const TOKEN_BYTES_MAX: usize = 4096;
/// SentencePiece's space.
pub(super) const SPACE_MARK: char = '▁';

#[derive(Clone, Debug, Default)]
pub(super) struct Token {
    /// Bytes this token stands for.
    pub bytes: Vec<u8>,
    /// Steers the conversation and is not part of its text.
    pub control: bool,
}

/// How names of tokens are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As they are: literal tokens.
    Literal,
    /// In GPT-2's alphabet.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0x0A>` a byte.
    Marked,
    /// A WordPiece that begins a word: a space and the piece.
    WordStart,
}

impl Spelling {
    pub fn bytes(self, name: &str) -> Vec<u8> {
        match self {
            Self::Literal => name.as_bytes().to_vec(),
            // A name outside GPT-2's alphabet is taken as it is written.
            Self::ByteLevel => name
                .chars()
                .map(char_to_byte)
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| name.as_bytes().to_vec()),
            Self::Marked => match byte_name(name) {
                Some(byte) => vec![byte],
                None => name.replace(SPACE_MARK, " ").into_bytes(),
            },
            Self::WordStart => format!(" {name}").into_bytes(),
        }
    }
}

/// The byte that a name such as `<0x0A>` stands for.
pub(super) fn byte_name(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || digits.bytes().any(|digit| !matches!(digit, b'0'..=b'9' | b'A'..=b'F'))
    {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// All tokens by id; an id that the file leaves out is a token without bytes.
#[derive(Default)]
pub(super) struct Vocabulary {
    tokens: Vec<Token>,
}

impl Vocabulary {
    /// Sets the token `id`, whose name is `name`.
    pub fn set(&mut self, id: u32, name: &str, token: Token) -> Result<(), TokenizerError> {
        let place = id as usize;
        if place >= TOKENS_MAX {
            let reason = format!("token id {id} is above the limit of {TOKENS_MAX} tokens");
            return Err(TokenizerError::Vocabulary { reason });
        }
        if name.len() > TOKEN_BYTES_MAX {
            let bytes = name.len();
            let reason = format!("token {id} has {bytes} bytes, more than {TOKEN_BYTES_MAX}");
            return Err(TokenizerError::Vocabulary { reason });
        }
        if place >= self.tokens.len() {
            self.tokens.resize_with(place + 1, Token::default);
        }
        self.tokens[place] = token;
        Ok(())
    }

    pub fn get(&self, id: u32) -> Option<&Token> {
        self.tokens.get(id as usize)
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Token> {
        self.tokens.get_mut(id as usize)
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// The ids of single bytes in GPT-2's alphabet.
pub(super) fn byte_level_ids<'n>(names: impl Iterator<Item = (&'n str, u32)>) -> ByteIds {
    let mut ids = NO_BYTES;
    for (name, id) in names {
        let mut characters = name.chars();
        if let (Some(only), None) = (characters.next(), characters.next())
            && let Some(byte) = char_to_byte(only)
        {
            ids[usize::from(byte)] = Some(id);
        }
    }
    ids
}

/// The ids of `<0x00>` to `<0xFF>`.
pub(super) fn fallback_ids<'n>(names: impl Iterator<Item = (&'n str, u32)>) -> ByteIds {
    let mut ids = NO_BYTES;
    for (name, id) in names {
        if let Some(byte) = byte_name(name) {
            ids[usize::from(byte)] = Some(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_their_spelling() {
        assert_eq!(Spelling::ByteLevel.bytes("ĠaĊ"), b" a\n");
        assert_eq!(Spelling::ByteLevel.bytes("a b"), b"a b");
        assert_eq!(Spelling::Marked.bytes("▁a▁"), b" a ");
        assert_eq!(Spelling::Marked.bytes("<0x0A>"), b"\n");
        assert_eq!(Spelling::Marked.bytes("<0x0a>"), b"<0x0a>");
        assert_eq!(Spelling::Literal.bytes("<0x0A>"), b"<0x0A>");
        assert_eq!(Spelling::WordStart.bytes("un"), b" un");
    }

    #[test]
    fn limits_hold() {
        let mut vocabulary = Vocabulary::default();
        vocabulary.set(3, "a", Token { bytes: vec![1], control: false }).unwrap();
        assert_eq!((vocabulary.len(), vocabulary.get(2).unwrap().bytes.len()), (4, 0));
        assert!(vocabulary.set(u32::MAX, "a", Token::default()).is_err());
        assert!(vocabulary.set(0, &"a".repeat(TOKEN_BYTES_MAX + 1), Token::default()).is_err());
    }
}
