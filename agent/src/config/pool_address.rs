//! Addresses of pools, parsed once.
//!
//! ```text
//! stratum+tcp://host:port                    Stratum V1
//! stratum+ssl://host:port                    Stratum V1 in TLS
//! stratum2+tcp://host:port/AUTHORITY_KEY     Stratum V2; the key says who the pool must prove to be
//! ```

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Digits of base58, in order of their value.
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// A key in base58 is at most this long; anything longer is not even looked at.
const KEY_TEXT_MAX: usize = 60;
/// What stands before the key in its base58 form: version 1, little-endian.
const KEY_VERSION: [u8; 2] = [1, 0];
/// Bytes of base58's checksum.
const CHECKSUM_BYTES: usize = 4;

/// Where a pool is and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolAddress {
    /// What it speaks.
    pub protocol: PoolProtocol,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What a pool speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PoolProtocol {
    /// Stratum V1 on a bare socket.
    StratumV1,
    /// Stratum V1 in TLS.
    StratumV1Tls,
    /// Stratum V2, encrypted by Noise; the pool must prove to be `authority`.
    StratumV2 {
        /// The pool's authority key.
        authority: AuthorityKey,
    },
}

/// The key by which a pool of Stratum V2 proves itself: x-only, secp256k1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthorityKey(pub [u8; 32]);

/// Why a text is no pool address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The beginning or the shape is wrong.
    #[error(
        "{0:?} is no pool address; expected stratum+tcp://host:port, stratum+ssl://host:port or stratum2+tcp://host:port/AUTHORITY_KEY"
    )]
    Shape(String),
    /// The key of a Stratum V2 pool is not one.
    #[error(
        "{0:?} is no authority key; expected the 50 to 54 letters and digits that the pool publishes"
    )]
    Key(String),
    /// A Stratum V2 pool without a key could be anybody.
    #[error(
        "{0:?} names no authority key; without it anybody could answer for the pool: expected stratum2+tcp://host:port/AUTHORITY_KEY"
    )]
    KeyMissing(String),
}

impl FromStr for PoolAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Shape(text.to_owned());
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(wrong)?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0u16).ok_or_else(wrong)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(wrong());
        }
        let protocol = match (scheme, path) {
            ("stratum+tcp", "") => PoolProtocol::StratumV1,
            ("stratum+ssl" | "stratum+tls", "") => PoolProtocol::StratumV1Tls,
            ("stratum2+tcp", "") => return Err(AddressError::KeyMissing(text.to_owned())),
            ("stratum2+tcp", key) => PoolProtocol::StratumV2 { authority: key.parse()? },
            _ => return Err(wrong()),
        };
        Ok(Self { protocol, host: host.to_owned(), port })
    }
}

impl fmt::Display for PoolAddress {
    /// As it is written, without the key of a Stratum V2 pool.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            PoolProtocol::StratumV1 => "stratum+tcp",
            PoolProtocol::StratumV1Tls => "stratum+ssl",
            PoolProtocol::StratumV2 { authority: _ } => "stratum2+tcp",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for AuthorityKey {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Key(text.chars().take(KEY_TEXT_MAX).collect());
        let bytes = base58(text).ok_or_else(wrong)?;
        let body = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(wrong)?;
        let (body, checksum) = bytes.split_at(body);
        if Sha256::digest(Sha256::digest(body))[..CHECKSUM_BYTES] != *checksum {
            return Err(wrong());
        }
        let key = body.strip_prefix(&KEY_VERSION).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or_else(wrong)
    }
}

/// The bytes a base58 text stands for, most significant first.
fn base58(text: &str) -> Option<Vec<u8>> {
    if text.len() > KEY_TEXT_MAX {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::new();
    for letter in text.bytes() {
        let mut carry = BASE58.iter().position(|digit| *digit == letter)?;
        for byte in bytes.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = (carry & 0xFF) as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.insert(0, (carry & 0xFF) as u8);
            carry >>= 8;
        }
    }
    // Each leading 1 stands for a byte of nothing.
    let zeros = text.bytes().take_while(|letter| *letter == b'1').count();
    Some([vec![0; zeros], bytes].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";

    fn address(text: &str) -> Result<PoolAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn addresses_are_read_and_written() {
        let plain = address("stratum+tcp://pool.example:3333/").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("pool.example", 3333));
        assert_eq!(plain.protocol, PoolProtocol::StratumV1);
        assert_eq!(plain.to_string(), "stratum+tcp://pool.example:3333");
        let tls = address("stratum+ssl://[::1]:443").unwrap();
        assert_eq!((tls.host.as_str(), &tls.protocol), ("::1", &PoolProtocol::StratumV1Tls));
        assert_eq!(tls.to_string(), "stratum+ssl://[::1]:443");
        let second = address(&format!("stratum2+tcp://pool.example:34254/{KEY}")).unwrap();
        assert!(matches!(second.protocol, PoolProtocol::StratumV2 { .. }));
        assert!(!second.to_string().contains(KEY));
    }

    #[test]
    fn what_is_no_address_says_what_one_is() {
        for bad in [
            "",
            "pool.example:3333",
            "http://pool:1",
            "stratum+tcp://pool",
            "stratum+tcp://pool:0",
            "stratum+tcp://:3333",
            "stratum+tcp://user@pool:3333",
            "stratum+tcp://pool:3333/path",
        ] {
            assert!(
                address(bad).unwrap_err().to_string().contains("stratum+tcp://host:port"),
                "{bad}"
            );
        }
        let missing = address("stratum2+tcp://pool:1").unwrap_err();
        assert!(matches!(missing, AddressError::KeyMissing(_)));
        for key in [&KEY[1..], &KEY.replace('9', "8"), "0OIl", "1111", &"z".repeat(500)] {
            let error = address(&format!("stratum2+tcp://pool:1/{key}")).unwrap_err();
            assert!(matches!(error, AddressError::Key(_)), "{key}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", key in "[1-9A-Za-z]{0,70}") {
            let _ = address(&text);
            let _ = address(&format!("stratum2+tcp://pool:1/{key}"));
        }
    }
}
