//! Addresses of pools, parsed once.
//!
//! ```text
//! stratum+tcp://host:port                    Stratum V1
//! stratum+ssl://host:port                    Stratum V1 in TLS
//! stratum2+tcp://host:port/AUTHORITY_KEY     Stratum V2; the key says who the pool must prove to be
//! stratum2+tcp://host:port/insecure          Stratum V2 with whoever answers
//! stratum2+tcp://host:port/KEY?channel=KIND  Stratum V2 on a channel that is extended (default), standard or grouped
//! ```
//! The key's text form (Stratum V2 specification, 4.7) is base58check of the bytes 01 00 and a 32-byte x-only key.

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
    /// Stratum V2, encrypted by Noise.
    StratumV2 {
        /// Whom the pool must prove to be.
        identity: Identity,
        /// The kind of channel to open.
        channel: ChannelKind,
    },
}

/// Which kind of channel of Stratum V2 to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum ChannelKind {
    /// We complete the coinbase; the default, because the search space never runs out.
    #[default]
    Extended,
    /// The pool fixes the merkle root and sends each job to us alone.
    Standard,
    /// The pool fixes our extranonce and sends one job to all channels of a group.
    Grouped,
}

/// What a channel kind is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of channel; expected extended, standard or grouped")]
pub struct UnknownKind(String);

impl FromStr for ChannelKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        match text {
            "extended" => Ok(Self::Extended),
            "standard" => Ok(Self::Standard),
            "grouped" => Ok(Self::Grouped),
            other => Err(UnknownKind(other.chars().take(KEY_TEXT_MAX).collect())),
        }
    }
}

/// Whom we insist on talking to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The holder of this key.
    Authority(AuthorityKey),
    /// Whoever answers: encrypted, but to nobody in particular. Only by the explicit word `insecure`.
    Anyone,
}

/// The key by which a pool of Stratum V2 proves itself: x-only, secp256k1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthorityKey([u8; 32]);

/// Why a text is no authority key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is too long to be one.
    #[error("it has {0} characters, at most {KEY_TEXT_MAX} are possible")]
    TooLong(usize),
    /// A character that base58 does not have.
    #[error("{0:?} is no digit of base58")]
    Digit(char),
    /// It was mistyped or cut.
    #[error("its checksum is wrong: a character was lost or mistyped")]
    Checksum,
    /// Not a version and a key.
    #[error("it holds {0} bytes, expected 34")]
    Length(usize),
    /// A later form.
    #[error("it is of version {0}, only version 1 is known")]
    Version(u16),
}

/// Why a text is no pool address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The beginning or the shape is wrong.
    #[error(
        "{0:?} is no pool address; expected stratum+tcp://host:port, stratum+ssl://host:port or stratum2+tcp://host:port/AUTHORITY_KEY"
    )]
    Shape(String),
    /// The key of a Stratum V2 pool is not one.
    #[error("this is not the authority key that the pool publishes: {0}")]
    Key(#[from] KeyError),
    /// The channel of a Stratum V2 pool is not one.
    #[error(transparent)]
    Channel(#[from] UnknownKind),
    /// A Stratum V2 pool without a key could be anybody.
    #[error(
        "{0:?} names no authority key; without it anybody could answer for the pool: expected stratum2+tcp://host:port/AUTHORITY_KEY, or /insecure for a pool of your own"
    )]
    KeyMissing(String),
}

impl FromStr for PoolAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Shape(text.to_owned());
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(wrong)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0u16).ok_or_else(wrong)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(wrong());
        }
        let protocol = match (scheme, path, query) {
            ("stratum+tcp", "", "") => PoolProtocol::StratumV1,
            ("stratum+ssl" | "stratum+tls", "", "") => PoolProtocol::StratumV1Tls,
            ("stratum2+tcp", "", _) => return Err(AddressError::KeyMissing(text.to_owned())),
            ("stratum2+tcp", key, query) => {
                let identity = match key {
                    "insecure" => Identity::Anyone,
                    key => Identity::Authority(key.parse::<AuthorityKey>()?),
                };
                let channel = match query {
                    "" => ChannelKind::default(),
                    query => query.strip_prefix("channel=").ok_or_else(wrong)?.parse()?,
                };
                PoolProtocol::StratumV2 { identity, channel }
            }
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
            PoolProtocol::StratumV2 { .. } => "stratum2+tcp",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl AuthorityKey {
    /// The x coordinate.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl FromStr for AuthorityKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = base58(text)?;
        let length = bytes.len().saturating_sub(CHECKSUM_BYTES);
        let (body, checksum) = bytes.split_at(length);
        if Sha256::digest(Sha256::digest(body))[..CHECKSUM_BYTES] != *checksum {
            return Err(KeyError::Checksum);
        }
        let (version, key) = body.split_first_chunk().ok_or(KeyError::Length(length))?;
        if *version != KEY_VERSION {
            return Err(KeyError::Version(u16::from_le_bytes(*version)));
        }
        Ok(Self(key.try_into().map_err(|_| KeyError::Length(length))?))
    }
}

/// The bytes a base58 text stands for, most significant first.
fn base58(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.len() > KEY_TEXT_MAX {
        return Err(KeyError::TooLong(text.len()));
    }
    let mut bytes: Vec<u8> = Vec::new();
    for letter in text.chars() {
        let digit = BASE58.iter().position(|digit| char::from(*digit) == letter);
        let mut carry = digit.ok_or(KeyError::Digit(letter))?;
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
    Ok([vec![0; zeros], bytes].concat())
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
        let kind = address(&format!("stratum2+tcp://pool:1/{KEY}?channel=huge")).unwrap_err();
        assert!(matches!(kind, AddressError::Channel(_)));
        assert!(address(&format!("stratum2+tcp://pool:1/{KEY}?size=1")).is_err());
    }

    #[test]
    fn the_published_key_is_read() {
        // Test vector of the Stratum V2 specification, 4.7.1.
        let key: AuthorityKey =
            "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh".parse().unwrap();
        let published = [
            118, 99, 112, 0, 151, 156, 28, 17, 175, 12, 48, 11, 205, 140, 127, 228, 134, 16, 252,
            233, 185, 193, 30, 61, 174, 227, 90, 224, 176, 138, 116, 85,
        ];
        assert_eq!(key.bytes(), published);
    }

    #[test]
    fn what_is_no_key_says_why() {
        // Made with another implementation of base58check: one byte, 33 bytes of version 1, 34 of version 2.
        for (text, want) in [
            (KEY[1..].to_owned(), KeyError::Checksum),
            (KEY.replace('9', "8"), KeyError::Checksum),
            ("11111".to_owned(), KeyError::Checksum),
            (KEY.replace('9', "0"), KeyError::Digit('0')),
            ("z".repeat(500), KeyError::TooLong(500)),
            ("BXvDbH".to_owned(), KeyError::Length(1)),
            ("2worxZd7cunTHiqG2F7B3a9uEo3DhA7zDuJyDw5Ss4Y1s5fyKt".to_owned(), KeyError::Length(33)),
            (
                "JAYQfbtaNR7bYpQZNtA3WSpY15rdSWz11a1scRn7diKBa6MRbxT".to_owned(),
                KeyError::Version(2),
            ),
        ] {
            let error = address(&format!("stratum2+tcp://pool:1/{text}")).unwrap_err();
            assert_eq!(error, AddressError::Key(want), "{text}");
        }
    }

    #[test]
    fn an_insecure_pool_and_another_channel_must_be_asked_for() {
        let protocol = |text: &str| address(text).unwrap().protocol;
        let key = Identity::Authority(KEY.parse().unwrap());
        assert_eq!(
            protocol(&format!("stratum2+tcp://pool:1/{KEY}")),
            PoolProtocol::StratumV2 { identity: key, channel: ChannelKind::Extended }
        );
        assert_eq!(
            protocol(&format!("stratum2+tcp://pool:1/{KEY}?channel=standard")),
            PoolProtocol::StratumV2 { identity: key, channel: ChannelKind::Standard }
        );
        assert_eq!(
            protocol("stratum2+tcp://pool:1/insecure?channel=grouped"),
            PoolProtocol::StratumV2 { identity: Identity::Anyone, channel: ChannelKind::Grouped }
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", key in "[1-9A-Za-z]{0,70}") {
            let _ = address(&text);
            let _ = address(&format!("stratum2+tcp://pool:1/{key}"));
        }
    }
}
