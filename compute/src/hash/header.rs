//! The 80 bytes a miner hashes.
//!
//! ```text
//! version 4 | previous hash 32 | merkle root 32 | time 4 | nBits 4 | nonce 4
//! ```
//! Integers are little-endian; hashes are in internal order (as hashed, the reverse of what a block
//! explorer shows).

use sha2::{Digest, Sha256};

use super::{HashError, hex};

/// Length of a header without its nonce.
pub const PREFIX_BYTES: usize = 76;

/// Everything of a block header but the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    /// Internal order.
    pub previous: [u8; 32],
    /// Internal order.
    pub merkle_root: [u8; 32],
    pub ntime: u32,
    pub nbits: u32,
}

impl Header {
    /// The 76 bytes before the nonce.
    #[must_use]
    pub fn prefix(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..36].copy_from_slice(&self.previous);
        bytes[36..68].copy_from_slice(&self.merkle_root);
        bytes[68..72].copy_from_slice(&self.ntime.to_le_bytes());
        bytes[72..].copy_from_slice(&self.nbits.to_le_bytes());
        bytes
    }

    /// The whole header.
    #[must_use]
    pub fn with_nonce(&self, nonce: u32) -> [u8; 80] {
        with_nonce(&self.prefix(), nonce)
    }
}

/// Appends a nonce to a prefix.
#[must_use]
pub fn with_nonce(prefix: &[u8; PREFIX_BYTES], nonce: u32) -> [u8; 80] {
    let mut bytes = [0; 80];
    bytes[..PREFIX_BYTES].copy_from_slice(prefix);
    bytes[PREFIX_BYTES..].copy_from_slice(&nonce.to_le_bytes());
    bytes
}

/// Reads 76 or 80 bytes of hexadecimal; of 80 bytes the nonce is returned too.
///
/// # Errors
/// Other lengths, or other characters.
pub fn parse(text: &str) -> Result<([u8; PREFIX_BYTES], Option<u32>), HashError> {
    let bytes = hex::decode("header", text, 80)?;
    let (prefix, nonce) = bytes.split_at(bytes.len().min(PREFIX_BYTES));
    let wrong_length = || HashError::Field {
        field: "header".into(),
        why: format!("{} bytes, expected 76 or 80", bytes.len()),
    };
    let prefix = <[u8; PREFIX_BYTES]>::try_from(prefix).map_err(|_| wrong_length())?;
    match nonce {
        [] => Ok((prefix, None)),
        [a, b, c, d] => Ok((prefix, Some(u32::from_le_bytes([*a, *b, *c, *d])))),
        [..] => Err(wrong_length()),
    }
}

/// SHA-256 twice.
#[must_use]
pub fn double_sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Target, vectors};
    use proptest::prelude::*;

    #[test]
    fn real_headers_assemble_and_hash() {
        for case in vectors::list("headers.json") {
            let reversed = |field: &str| Target::of_hash(&vectors::bytes(&case[field])).0;
            let header = Header {
                version: vectors::hex_word(&case["version_hex"]),
                previous: reversed("prev_display"),
                merkle_root: reversed("merkle_root_display"),
                ntime: vectors::hex_word(&case["ntime_hex"]),
                nbits: vectors::hex_word(&case["nbits_hex"]),
            };
            let nonce = vectors::hex_word(&case["nonce_hex"]);
            let whole = header.with_nonce(nonce);
            let text = vectors::text(&case["header_hex"]);
            assert_eq!(hex::encode(&whole), text);
            assert_eq!(parse(text).unwrap(), (header.prefix(), Some(nonce)));
            assert_eq!(parse(&text[..152]).unwrap(), (header.prefix(), None));
            let number = Target::of_hash(&double_sha256(&whole));
            assert_eq!(number, vectors::target(&case["hash_display"]));
            let target = Target::from_nbits(header.nbits).unwrap();
            assert_eq!(target, vectors::target(&case["target_hex"]));
            vectors::assert_close(target.difficulty(), &case["network_difficulty"]);
            vectors::assert_close(number.difficulty(), &case["achieved_difficulty"]);
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_are_refused_without_panic(text in "[0-9a-f]{0,170}") {
            let accepted = parse(&text).is_ok();
            prop_assert_eq!(accepted, text.len() == 152 || text.len() == 160);
        }
    }
}
