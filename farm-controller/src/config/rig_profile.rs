//! Rig profiles: the figures of one rig model, from `profiles/*.yaml`.

use roadbed_protocol::RigProfile;

use super::error::{ConfigError, Problem};
use super::source::{FieldPath, Source};

/// Reads and checks a profile.
///
/// # Errors
/// [`ConfigError`] with the broken rule.
pub fn load(source: &Source) -> Result<RigProfile, ConfigError> {
    let profile: RigProfile = source.parse()?;
    profile.validate().map_err(|error| {
        let path = FieldPath::of(error.field);
        let place = source.problem(&path, "").place;
        source.invalid(vec![Problem { place, text: error.to_string() }])
    })?;
    Ok(profile)
}
