//! GPT-2's alphabet: every byte as one printable character, and streams of bytes back to text.

use std::collections::HashMap;
use std::sync::LazyLock;

/// [`byte_to_char`] as a table: vocabularies have millions of characters to translate.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut other = 256;
    std::array::from_fn(|byte| match u8::try_from(byte) {
        Ok(byte @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)) => char::from(byte),
        Ok(_) | Err(_) => {
            other += 1;
            char::from_u32(other - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
});

static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let bytes = 0..=u8::MAX;
    bytes.map(|byte| (byte_to_char(byte), byte)).collect()
});

/// The character that stands for `byte` in a GPT-2 vocabulary: printable Latin-1 stands for itself,
/// the other 68 bytes take the code points from 256 up, in order.
#[must_use]
pub fn byte_to_char(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// The inverse of [`byte_to_char`].
#[must_use]
pub fn char_to_byte(c: char) -> Option<u8> {
    BYTES.get(&c).copied()
}

/// Turns bytes that arrive token by token into text, holding back incomplete characters.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// At most three bytes: the start of one character.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Adds bytes and returns what is now certain; bytes that are no UTF-8 become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = bad;
                    if let Some(length) = error.error_len() {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &bad[length..];
                        continue;
                    }
                }
            }
            break;
        }
        self.pending = rest.to_vec();
        text
    }

    /// Ends the stream: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.pending.is_empty() {
            return String::new();
        }
        self.pending.clear();
        char::REPLACEMENT_CHARACTER.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        for byte in 0..=u8::MAX {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
    }

    #[test]
    fn characters_split_over_tokens_arrive_whole() {
        let mut stream = Utf8Stream::default();
        let bytes = "é🙂".as_bytes();
        let texts: Vec<String> = bytes.iter().map(|b| stream.push(&[*b])).collect();
        assert_eq!(texts, ["", "é", "", "", "", "🙂"]);
        assert_eq!(stream.push(&[0xFF, b'a', 0xE2]), "\u{FFFD}a");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }
}
