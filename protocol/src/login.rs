//! The password an agent gives the broker: a short-lived token signed with its own ed25519 key.
//!
//! The broker stores no secret, and a token that leaks is worth minutes. `BASE64(claims JSON) "." BASE64(signature)`;
//! the signature covers `"roadbed-login-v1\0"` and the claim bytes as sent. Times here are wall-clock Unix
//! milliseconds, also in the demo, because both ends check them outside the farm's clock.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::clock::{Millis, UnixMillis};
use crate::ids::{AgentId, FarmId};

/// Longest life of a token that is accepted.
pub const LOGIN_LIFETIME_MAX: Millis = Millis::from_mins(5);
/// Longest token read, in bytes.
pub const LOGIN_BYTES_MAX: usize = 1_024;

const DOMAIN: &[u8] = b"roadbed-login-v1\0";

/// Who logs in where, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginClaims {
    /// The agent; also user name and client id.
    pub agent: AgentId,
    /// The farm.
    pub farm: FarmId,
    /// Issued at, wall clock.
    pub iat: UnixMillis,
    /// Valid until, wall clock.
    pub exp: UnixMillis,
}

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Not a token.
    #[error("the password is no login token")]
    Malformed,
    /// The signature is not that agent's.
    #[error("the login token is not signed by the agent's key")]
    BadSignature,
    /// For another agent or farm.
    #[error("the login token is for another agent or farm")]
    OtherSubject,
    /// Too old, too long-lived or from the future.
    #[error("the login token is not valid now: check the clock of the agent")]
    NotNow,
}

/// Makes a token valid for `valid` from `now`.
///
/// # Errors
/// [`LoginError::Malformed`] when the claims cannot be written, which does not happen for checked ids.
pub fn sign(
    secret: &[u8; 32],
    agent: &AgentId,
    farm: &FarmId,
    now: UnixMillis,
    valid: Millis,
) -> Result<String, LoginError> {
    let claims =
        LoginClaims { agent: agent.clone(), farm: farm.clone(), iat: now, exp: now + valid };
    let claims = serde_json::to_vec(&claims).map_err(|_| LoginError::Malformed)?;
    let signature = SigningKey::from_bytes(secret).sign(&signed_bytes(&claims));
    Ok(format!("{}.{}", BASE64.encode(&claims), BASE64.encode(signature.to_bytes())))
}

/// Public half of a secret key, for the controller's list of agents.
#[must_use]
pub fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// Checks a token against the key on file for `agent`.
///
/// # Errors
/// [`LoginError`], which says what was wrong.
pub fn verify(
    token: &[u8],
    key: &[u8; 32],
    agent: &AgentId,
    farm: &FarmId,
    now: UnixMillis,
) -> Result<LoginClaims, LoginError> {
    if token.len() > LOGIN_BYTES_MAX {
        return Err(LoginError::Malformed);
    }
    let text = std::str::from_utf8(token).map_err(|_| LoginError::Malformed)?;
    let (claims, signature) = text.split_once('.').ok_or(LoginError::Malformed)?;
    let claims = BASE64.decode(claims).map_err(|_| LoginError::Malformed)?;
    let signature = BASE64.decode(signature).map_err(|_| LoginError::Malformed)?;
    let signature = Signature::from_slice(&signature).map_err(|_| LoginError::Malformed)?;
    let key = VerifyingKey::from_bytes(key).map_err(|_| LoginError::BadSignature)?;
    key.verify_strict(&signed_bytes(&claims), &signature).map_err(|_| LoginError::BadSignature)?;
    let claims: LoginClaims = serde_json::from_slice(&claims).map_err(|_| LoginError::Malformed)?;
    if &claims.agent != agent || &claims.farm != farm {
        return Err(LoginError::OtherSubject);
    }
    let lifetime = claims.exp.since(claims.iat);
    let early = claims.iat.since(now) > LOGIN_LIFETIME_MAX;
    if now > claims.exp || early || lifetime > LOGIN_LIFETIME_MAX {
        return Err(LoginError::NotNow);
    }
    Ok(claims)
}

fn signed_bytes(claims: &[u8]) -> Vec<u8> {
    [DOMAIN, claims].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];
    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn token() -> (String, AgentId, FarmId) {
        let (agent, farm) = (AgentId::new("box").unwrap(), FarmId::new("west").unwrap());
        let token = sign(&SECRET, &agent, &farm, NOW, Millis::from_mins(2)).unwrap();
        (token, agent, farm)
    }

    #[test]
    fn a_fresh_token_opens_the_door() {
        let (token, agent, farm) = token();
        let key = public_key(&SECRET);
        assert!(verify(token.as_bytes(), &key, &agent, &farm, NOW).is_ok());
    }

    #[test]
    fn everything_else_does_not() {
        let (token, agent, farm) = token();
        let key = public_key(&SECRET);
        let check = |token: &str, key: &[u8; 32], agent: &AgentId, now| {
            verify(token.as_bytes(), key, agent, &farm, now).unwrap_err()
        };
        let other = AgentId::new("other").unwrap();
        assert_eq!(check(&token, &public_key(&[8; 32]), &agent, NOW), LoginError::BadSignature);
        assert_eq!(check(&token, &key, &other, NOW), LoginError::OtherSubject);
        assert_eq!(check(&token, &key, &agent, NOW + Millis::from_mins(3)), LoginError::NotNow);
        assert_eq!(check(&token, &key, &agent, NOW - Millis::from_mins(9)), LoginError::NotNow);
        assert_eq!(check("", &key, &agent, NOW), LoginError::Malformed);
        assert_eq!(check("a.b", &key, &agent, NOW), LoginError::Malformed);
        let long = sign(&SECRET, &agent, &farm, NOW, Millis::from_hours(1)).unwrap();
        assert_eq!(check(&long, &key, &agent, NOW), LoginError::NotNow);
    }
}
