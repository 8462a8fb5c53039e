//! The first words of a connection: who we are, what we need of the pool, and which channel we open.
//!
//! A channel decides who completes the coinbase. On an *extended* one the pool sends its two halves and we roll the
//! extranonce between them; on a *standard* one it sends a finished merkle root. A *grouped* channel is a standard one
//! on a connection that also takes extended jobs, so the pool can send one job to all members of a group.

use stratum_core::binary_sv2::{Error as WireError, U256Owned};
use stratum_core::common_messages_sv2::{Protocol, SetupConnectionOwned, SetupConnectionSuccess};
use stratum_core::mining_sv2::{
    CloseChannelOwned, OpenExtendedMiningChannelOwned, OpenStandardMiningChannelOwned,
    UpdateChannelOwned,
};
use stratum_core::parsers_sv2::{AnyMessageOwned, CommonMessagesOwned, MiningOwned};

use crate::config::ChannelKind;

/// The only version of the protocol.
const VERSION: u16 = 2;
/// Setup flags, bits 0 and 2: we cannot take extended jobs; we count on rolling the version.
const REQUIRES_STANDARD_JOBS: u32 = 1;
const REQUIRES_VERSION_ROLLING: u32 = 1 << 2;
/// Flags of the answer, bits 0 and 1.
const FIXED_VERSION: u32 = 1;
const EXTENDED_CHANNELS_ONLY: u32 = 1 << 1;
/// Extranonce bytes we ask for: a thread takes one counter per 2^36 hashes, so four would last a farm for days.
const EXTRANONCE_BYTES_WANTED: u16 = 4;
/// The easiest target: we leave the difficulty to the pool. A hard one would be obeyed, and nothing ever found.
const ANY_TARGET: [u8; 32] = [0xFF; 32];
/// What the pool calls its refusal of flags.
const UNSUPPORTED_FLAGS: &str = "unsupported-feature-flags";

/// What we ask of a pool; adapted between connections to what it turned out to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    pub channel: ChannelKind,
    /// Whether we insist on rolling the version.
    pub version_rolling: bool,
}

/// What the pool granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The channel to open.
    pub channel: ChannelKind,
    /// Whether shares may change bits of the version.
    pub version_rolling: bool,
}

/// Why the conversation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("it speaks version {0} of Stratum V2, we speak 2")]
    Version(u16),
    #[error(
        "it opens extended channels only, and this connection was set up for standard jobs; trying again"
    )]
    ExtendedOnly,
    #[error("it does not let the version be rolled; trying again without")]
    NoVersionRolling,
    #[error("it refused the connection: {0}")]
    Refused(String),
}

impl Wishes {
    /// Flags of `SetupConnection`.
    #[must_use]
    pub const fn flags(self) -> u32 {
        let jobs = match self.channel {
            ChannelKind::Standard => REQUIRES_STANDARD_JOBS,
            ChannelKind::Extended | ChannelKind::Grouped => 0,
        };
        if self.version_rolling { jobs | REQUIRES_VERSION_ROLLING } else { jobs }
    }

    /// Reads the pool's consent.
    ///
    /// # Errors
    /// When it consented to something that does not fit what was asked; `self` is what to ask next time.
    pub fn granted(&mut self, answer: SetupConnectionSuccess) -> Result<Grant, SetupError> {
        if answer.used_version != VERSION {
            return Err(SetupError::Version(answer.used_version));
        }
        let mut channel = self.channel;
        if answer.flags & EXTENDED_CHANNELS_ONLY != 0 {
            channel = ChannelKind::Extended;
            // Such a connection has promised never to ask for one.
            if self.channel == ChannelKind::Standard {
                self.channel = ChannelKind::Extended;
                return Err(SetupError::ExtendedOnly);
            }
        }
        Ok(Grant { channel, version_rolling: answer.flags & FIXED_VERSION == 0 })
    }

    /// Reads the pool's refusal; `self` is what to ask next time.
    pub fn refused(&mut self, flags: u32, code: &str) -> SetupError {
        let unsupported = if code == UNSUPPORTED_FLAGS { flags & self.flags() } else { 0 };
        if unsupported & REQUIRES_VERSION_ROLLING != 0 {
            self.version_rolling = false;
            return SetupError::NoVersionRolling;
        }
        if unsupported & REQUIRES_STANDARD_JOBS != 0 {
            self.channel = ChannelKind::Extended;
            return SetupError::ExtendedOnly;
        }
        SetupError::Refused(code.to_owned())
    }
}

/// The first message.
///
/// # Errors
/// A host name that is too long.
pub fn setup(wishes: Wishes, host: &str, port: u16) -> Result<AnyMessageOwned, WireError> {
    Ok(AnyMessageOwned::Common(CommonMessagesOwned::SetupConnection(SetupConnectionOwned {
        protocol: Protocol::MiningProtocol,
        min_version: VERSION,
        max_version: VERSION,
        flags: wishes.flags(),
        endpoint_host: host.try_into()?,
        endpoint_port: port,
        vendor: "Roadbed".try_into()?,
        hardware_version: "".try_into()?,
        firmware: concat!("roadbed-agent/", env!("CARGO_PKG_VERSION")).try_into()?,
        device_id: "".try_into()?,
    })))
}

/// Asks for a channel.
///
/// # Errors
/// A user name that is too long.
pub fn open(
    channel: ChannelKind,
    request_id: u32,
    user: &str,
    rate: f32,
) -> Result<AnyMessageOwned, WireError> {
    let (user_identity, max_target) = (user.try_into()?, U256Owned::from(ANY_TARGET));
    Ok(AnyMessageOwned::Mining(match channel {
        ChannelKind::Extended => {
            MiningOwned::OpenExtendedMiningChannel(OpenExtendedMiningChannelOwned {
                request_id,
                user_identity,
                nominal_hash_rate: rate,
                max_target,
                min_extranonce_size: EXTRANONCE_BYTES_WANTED,
            })
        }
        ChannelKind::Standard | ChannelKind::Grouped => {
            MiningOwned::OpenStandardMiningChannel(OpenStandardMiningChannelOwned {
                request_id,
                user_identity,
                nominal_hash_rate: rate,
                max_target,
            })
        }
    }))
}

/// Ends a channel.
///
/// # Errors
/// A reason that is too long.
pub fn close(channel_id: u32, reason: &str) -> Result<AnyMessageOwned, WireError> {
    let reason_code = reason.try_into()?;
    Ok(AnyMessageOwned::Mining(MiningOwned::CloseChannel(CloseChannelOwned {
        channel_id,
        reason_code,
    })))
}

/// Tells how fast we are.
#[must_use]
pub fn update(channel_id: u32, rate: f32) -> AnyMessageOwned {
    AnyMessageOwned::Mining(MiningOwned::UpdateChannel(UpdateChannelOwned {
        channel_id,
        nominal_hash_rate: rate,
        maximum_target: U256Owned::from(ANY_TARGET),
    }))
}
