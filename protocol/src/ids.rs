//! Names of farms, agents, rigs and groups: lower-case, short, safe in a topic, a file name and a broker's client id.
//!
//! The alphabet is `[a-z0-9-]`, 1 to 63 characters, because the embedded broker refuses client ids with `/`, `\`, NUL
//! and `..` and because an id is pasted into topic filters, where `+` and `#` would be wildcards.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest id, in bytes: that of a DNS label, so that an id can be a host name too.
pub const ID_LENGTH_MAX: usize = 63;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} {text:?} is not valid: use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit"
)]
pub struct IdError {
    /// What the id would have named.
    pub kind: &'static str,
    /// The refused text, cut to 80 characters.
    pub text: String,
}

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    let legal = !text.is_empty()
        && text.len() <= ID_LENGTH_MAX
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if legal { Ok(()) } else { Err(IdError { kind, text: text.chars().take(80).collect() }) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`IdError`] when a character or the length is not allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check($kind, &text)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id!(
    /// One site with one controller.
    FarmId,
    "farm id"
);
id!(
    /// One running `roadbed-agent`; it may host several rigs.
    AgentId,
    "agent id"
);
id!(
    /// One machine with an agent, or one ASIC behind an agent.
    RigId,
    "rig id"
);
id!(
    /// One circuit with a limit: site, transformer, hall, PDU or breaker.
    FeederId,
    "feeder id"
);
id!(
    /// A named set of rigs that can be commanded together.
    GroupId,
    "group id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_safe_alphabet_passes() {
        for good in ["a", "gpu-1", "0", "a-b-c-9", &"x".repeat(63)] {
            assert!(RigId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "a+", "#", "a b", "ü", "a_b", &"x".repeat(64)] {
            assert!(RigId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_id_on_the_wire_is_an_error() {
        assert!(serde_json::from_str::<RigId>("\"../etc\"").is_err());
        assert_eq!(serde_json::from_str::<RigId>("\"gpu-1\"").unwrap().as_str(), "gpu-1");
    }
}
