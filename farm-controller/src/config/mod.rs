//! What the controller is told in files: site, policy and rig profiles.
//!
//! The only place of this crate that reads YAML. What leaves it is valid by type; what does not leave it is an error that
//! names file, line, column, field and what was expected.

mod authorities;
mod coins;
mod decimal;
mod error;
mod figure;
mod gateway;
mod gonka;
mod gonka_file;
mod hashprice;
mod key;
mod moment;
mod origin;
mod policy;
mod rig_profile;
mod site;
mod site_check;
mod site_file;
mod source;

use std::path::Path;

pub use authorities::Authorities;
pub use coins::{CoinFeed, CoinsFrom};
pub use decimal::{Decimal, DecimalError};
pub use error::{ConfigError, Problem};
pub use figure::Figure;
pub use gateway::{AiFace, GatewaySettings, Secret, SingleMlNode};
pub use gonka::{GonkaRig, GonkaSite, Reach};
pub use hashprice::{Hashprice, HashpriceFrom, Network, NodeRpc, Pays, RpcLogin};
pub use key::{hex, parse_hex, read_line, read_or_create_secret, read_secret, read_token};
pub use moment::{
    DayTime, Moment, MomentError, local_hour_minute, local_midnight, local_minute, span_words,
};
pub use policy::Policy;
pub use site::{AgentEntry, EnergyPrice, Income, Site, SiteRig, Tariff};
pub use source::{FieldPath, Source, Step};

/// What a config file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A site with its policy and profiles.
    Site,
    /// A policy.
    Policy,
    /// A rig model.
    Profile,
}

impl FileKind {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Policy => "policy",
            Self::Profile => "profile",
        }
    }
}

/// Checks a file of any kind; the kind is told by its keys.
///
/// # Errors
/// [`ConfigError`] with what is wrong.
pub fn check_file(path: &Path) -> Result<FileKind, ConfigError> {
    let source = Source::read(path)?;
    let has = |key: &'static str| source.locate(&FieldPath::of(key)).is_some();
    if has("rigs") || has("farm") {
        Site::load(path).map(|_| FileKind::Site)
    } else if has("floor_watts") || has("nameplate_watts") {
        rig_profile::load(&source).map(|_| FileKind::Profile)
    } else {
        Policy::load(&source).map(|_| FileKind::Policy)
    }
}

/// Reads one rig profile.
///
/// # Errors
/// [`ConfigError`] with what is wrong.
pub fn load_profile(path: &Path) -> Result<roadbed_protocol::RigProfile, ConfigError> {
    rig_profile::load(&Source::read(path)?)
}
