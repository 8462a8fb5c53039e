//! The signed envelope round every order: nothing acts on an unsigned, replayed, expired or misdirected one.
//!
//! The signature covers bytes, never re-serialised JSON: `"roadbed-env-v1\0" || SHA-256(header) || body`, where the
//! header is every other field, each behind its length. The broker is untrusted transport; so is the retained store.
//! Replays are refused by a counter per signing key (`seq`), which the agent keeps across restarts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::{Millis, UnixMillis};
use crate::ids::FarmId;

/// Envelope version this code speaks.
pub const VERSION: u8 = 1;
/// Largest envelope read, in bytes: an order is a few hundred bytes, the broker's packets are capped at 256 KiB.
pub const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// How far an envelope's `iat` may lie in the future before the clocks are said to disagree.
pub const SKEW_MAX: Millis = Millis::from_mins(60);

const DOMAIN: &[u8] = b"roadbed-env-v1\0";

/// Bytes on the wire: JSON with a base64 body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    v: u8,
    /// Which key signed.
    pub kid: String,
    /// What the body is, for example `assignment`.
    pub typ: String,
    /// The farm it is for.
    pub farm: FarmId,
    /// The rig, agent or group it is for.
    pub to: String,
    /// Unique name of this envelope, used in acknowledgements.
    pub id: String,
    /// Rises with every envelope of this key.
    pub seq: u64,
    /// When it was signed.
    pub iat: UnixMillis,
    /// When it stops being valid.
    pub exp: UnixMillis,
    body: String,
    sig: String,
}

/// A body that may be believed, with the header fields a receiver needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedEnvelope<T> {
    /// Name of the envelope, for the acknowledgement.
    pub id: String,
    /// Counter of the signing key.
    pub seq: u64,
    /// When it was signed.
    pub iat: UnixMillis,
    /// The order.
    pub body: T,
}

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope at all.
    #[error("not an envelope: {0}")]
    Malformed(String),
    /// Signed for another version of this protocol.
    #[error("envelope version {0}, this agent speaks {VERSION}")]
    Version(u8),
    /// No such key is trusted here.
    #[error("signed by unknown key {0:?}")]
    UnknownKey(String),
    /// The signature does not fit the bytes.
    #[error("the signature does not match")]
    BadSignature,
    /// For another farm.
    #[error("meant for farm {0}")]
    OtherFarm(String),
    /// For another rig, agent or group.
    #[error("meant for {0}")]
    OtherRecipient(String),
    /// For another kind of message.
    #[error("is a {0}")]
    OtherType(String),
    /// Too old.
    #[error("expired {} s ago", .0.0 / 1_000)]
    Expired(Millis),
    /// Signed in the future: one of the clocks is wrong.
    #[error("signed {} s in the future", .0.0 / 1_000)]
    FromTheFuture(Millis),
    /// This counter, or a later one, was seen before.
    #[error("replayed: counter {seq} is not above {seen}")]
    Replayed {
        /// Counter of this envelope.
        seq: u64,
        /// Highest counter seen from that key.
        seen: u64,
    },
    /// Signed well, but the body is not what the type says.
    #[error("the body is no {typ}: {reason}")]
    Body {
        /// The type named by the header.
        typ: String,
        /// What the parser said.
        reason: String,
    },
}

/// A signing key with its counter.
pub struct Signer {
    kid: String,
    key: SigningKey,
    seq: u64,
}

/// Where an envelope goes and how long it lives.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Kind of body.
    pub typ: &'a str,
    /// The farm.
    pub farm: &'a FarmId,
    /// Rig, agent or group.
    pub to: &'a str,
    /// Now.
    pub now: UnixMillis,
    /// Lifetime.
    pub valid: Millis,
}

impl Signer {
    /// A signer whose next counter is `seq + 1`. The caller persists [`Signer::seq`] before a restart, or starts from
    /// the clock in milliseconds, which is above anything used before.
    #[must_use]
    pub fn new(kid: impl Into<String>, secret: &[u8; 32], seq: u64) -> Self {
        Self { kid: kid.into(), key: SigningKey::from_bytes(secret), seq }
    }

    /// The public half, for the agents' list of trusted keys.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The name of the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Last counter used.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Signs `body` and gives the bytes for the wire.
    ///
    /// # Errors
    /// [`EnvelopeError::Body`] when the body cannot be written as JSON.
    pub fn seal<T: Serialize>(
        &mut self,
        address: Address<'_>,
        body: &T,
    ) -> Result<(Envelope, Vec<u8>), EnvelopeError> {
        let body_error = |reason: serde_json::Error| EnvelopeError::Body {
            typ: address.typ.to_owned(),
            reason: reason.to_string(),
        };
        let body = serde_json::to_vec(body).map_err(body_error)?;
        self.seq += 1;
        let mut envelope = Envelope {
            v: VERSION,
            kid: self.kid.clone(),
            typ: address.typ.to_owned(),
            farm: address.farm.clone(),
            to: address.to.to_owned(),
            id: format!("{}-{}", self.kid, self.seq),
            seq: self.seq,
            iat: address.now,
            exp: address.now + address.valid,
            body: BASE64.encode(&body),
            sig: String::new(),
        };
        let signature = self.key.sign(&envelope.signed_bytes(&body));
        envelope.sig = BASE64.encode(signature.to_bytes());
        let wire = serde_json::to_vec(&envelope).map_err(body_error)?;
        Ok((envelope, wire))
    }
}

/// The keys an agent believes, by name.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(BTreeMap<String, VerifyingKey>);

impl TrustedKeys {
    /// Adds a key.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] when the 32 bytes are no point of the curve.
    pub fn insert(&mut self, kid: impl Into<String>, key: &[u8; 32]) -> Result<(), EnvelopeError> {
        let kid = kid.into();
        let key = VerifyingKey::from_bytes(key)
            .map_err(|_| EnvelopeError::Malformed(format!("key {kid:?} is no ed25519 key")))?;
        self.0.insert(kid, key);
        Ok(())
    }
}

/// Highest counter seen per key and recipient. The agent persists it, or a replay would work across a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplayGuard {
    seen: BTreeMap<String, u64>,
}

impl ReplayGuard {
    /// Highest counter seen from a key for one recipient.
    #[must_use]
    pub fn seen(&self, kid: &str, to: &str) -> u64 {
        self.seen.get(&format!("{kid}>{to}")).copied().unwrap_or(0)
    }
}

/// What a receiver expects an envelope to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Kind of body.
    pub typ: &'a str,
    /// Own farm.
    pub farm: &'a FarmId,
    /// Own rig, agent or group.
    pub to: &'a str,
    /// Now.
    pub now: UnixMillis,
}

impl Envelope {
    /// Reads, checks and opens an envelope; only after every check is the replay counter moved.
    ///
    /// The counter is kept per key *and recipient*, because one agent hosts several rigs and the broker may deliver
    /// their messages in any order.
    ///
    /// # Errors
    /// [`EnvelopeError`], which says what was wrong. A refused envelope changes nothing.
    pub fn open<T: DeserializeOwned>(
        wire: &[u8],
        keys: &TrustedKeys,
        expected: Expected<'_>,
        guard: &mut ReplayGuard,
    ) -> Result<OpenedEnvelope<T>, EnvelopeError> {
        if wire.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::Malformed(format!(
                "{} bytes, at most {ENVELOPE_BYTES_MAX} are read",
                wire.len()
            )));
        }
        let envelope: Self = serde_json::from_slice(wire)
            .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        let body = envelope.verified_body(keys)?;
        envelope.check_address(expected)?;
        let counter = format!("{}>{}", envelope.kid, envelope.to);
        let seen = guard.seen.get(&counter).copied().unwrap_or(0);
        if envelope.seq <= seen {
            return Err(EnvelopeError::Replayed { seq: envelope.seq, seen });
        }
        let body = serde_json::from_slice(&body).map_err(|error| EnvelopeError::Body {
            typ: envelope.typ.clone(),
            reason: error.to_string(),
        })?;
        guard.seen.insert(counter, envelope.seq);
        Ok(OpenedEnvelope { id: envelope.id, seq: envelope.seq, iat: envelope.iat, body })
    }

    /// The body, once the signature over it holds.
    fn verified_body(&self, keys: &TrustedKeys) -> Result<Vec<u8>, EnvelopeError> {
        if self.v != VERSION {
            return Err(EnvelopeError::Version(self.v));
        }
        let key =
            keys.0.get(&self.kid).ok_or_else(|| EnvelopeError::UnknownKey(self.kid.clone()))?;
        let malformed = |error: base64::DecodeError| EnvelopeError::Malformed(error.to_string());
        let body = BASE64.decode(&self.body).map_err(malformed)?;
        let signature = BASE64.decode(&self.sig).map_err(malformed)?;
        let signature =
            Signature::from_slice(&signature).map_err(|_| EnvelopeError::BadSignature)?;
        key.verify_strict(&self.signed_bytes(&body), &signature)
            .map_err(|_| EnvelopeError::BadSignature)?;
        Ok(body)
    }

    fn check_address(&self, expected: Expected<'_>) -> Result<(), EnvelopeError> {
        if &self.farm != expected.farm {
            return Err(EnvelopeError::OtherFarm(self.farm.to_string()));
        }
        if self.to != expected.to {
            return Err(EnvelopeError::OtherRecipient(self.to.clone()));
        }
        if self.typ != expected.typ {
            return Err(EnvelopeError::OtherType(self.typ.clone()));
        }
        if expected.now > self.exp {
            return Err(EnvelopeError::Expired(expected.now.since(self.exp)));
        }
        let ahead = self.iat.since(expected.now);
        if ahead > SKEW_MAX {
            return Err(EnvelopeError::FromTheFuture(ahead));
        }
        Ok(())
    }

    /// The bytes under the signature.
    fn signed_bytes(&self, body: &[u8]) -> Vec<u8> {
        let mut header = Sha256::new();
        header.update([self.v]);
        for text in [
            self.kid.as_str(),
            self.typ.as_str(),
            self.farm.as_str(),
            self.to.as_str(),
            self.id.as_str(),
        ] {
            header.update((text.len() as u64).to_be_bytes());
            header.update(text.as_bytes());
        }
        header.update(self.seq.to_be_bytes());
        header.update(self.iat.0.to_be_bytes());
        header.update(self.exp.0.to_be_bytes());
        let mut bytes = Vec::with_capacity(DOMAIN.len() + 32 + body.len());
        bytes.extend_from_slice(DOMAIN);
        bytes.extend_from_slice(&header.finalize());
        bytes.extend_from_slice(body);
        bytes
    }
}

/// The `typ` of an [`crate::Assignment`].
pub const TYP_ASSIGNMENT: &str = "assignment";
/// The `typ` of a [`crate::Command`].
pub const TYP_COMMAND: &str = "command";
