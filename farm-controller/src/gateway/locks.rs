//! Who may use which face. Without a token of the operator's, everybody who reaches the gateway.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, header};
use roadbed_protocol::RigId;
use roadbed_protocol::mlnode::shows_bearer;

use crate::config::{GatewaySettings, Secret};

/// The tokens of a site.
pub(super) struct Locks {
    auth_token: Option<Secret>,
    rig_tokens: BTreeMap<RigId, Secret>,
    openai_keys: Vec<Secret>,
    /// The single MLNode stands at the root, so that its inference paths are the farm's.
    shared_root: bool,
}

impl Locks {
    pub(super) fn new(settings: &GatewaySettings) -> Self {
        Self {
            auth_token: settings.auth_token.clone(),
            rig_tokens: settings.rig_tokens.clone(),
            openai_keys: settings.openai_keys.clone(),
            shared_root: settings.single_mlnode.as_ref().is_some_and(|one| one.base.is_none()),
        }
    }

    /// Whether the request may use the MLNode and OpenAI faces of a rig.
    pub(super) fn opens_rig(&self, rig: &RigId, headers: &HeaderMap) -> bool {
        let token = self.rig_tokens.get(rig).or(self.auth_token.as_ref());
        token.is_none_or(|token| is_shown(token, headers))
    }

    /// Whether a token is asked for at that rig.
    pub(super) fn guards_rig(&self, rig: &RigId) -> bool {
        self.auth_token.is_some() || self.rig_tokens.contains_key(rig)
    }

    /// Whether the request may use the single MLNode.
    pub(super) fn opens_fan_out(&self, headers: &HeaderMap) -> bool {
        self.auth_token.as_ref().is_none_or(|token| is_shown(token, headers))
    }

    /// Whether the request may use the farm's OpenAI endpoint.
    pub(super) fn opens_openai(&self, headers: &HeaderMap) -> bool {
        if self.openai_keys.is_empty() {
            return self.opens_fan_out(headers);
        }
        // All of them are looked at, so that the time taken does not tell which one it was.
        let known = self.openai_keys.iter().filter(|key| is_shown(key, headers)).count();
        known > 0 || (self.shared_root && self.auth_token.is_some() && self.opens_fan_out(headers))
    }
}

fn is_shown(token: &Secret, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    shows_bearer(given, token.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    fn locks() -> Locks {
        let rig = RigId::new("gpu-1").unwrap();
        Locks {
            auth_token: Some("node".into()),
            rig_tokens: BTreeMap::from([(rig, "own".into())]),
            openai_keys: vec!["alice".into(), "bob".into()],
            shared_root: false,
        }
    }

    #[test]
    fn each_face_asks_for_its_own_token() {
        let (locks, none) = (locks(), HeaderMap::new());
        let (own, other) = (RigId::new("gpu-1").unwrap(), RigId::new("gpu-2").unwrap());
        assert!(locks.opens_rig(&own, &headers("Bearer own")));
        assert!(!locks.opens_rig(&own, &headers("Bearer node")));
        assert!(locks.opens_rig(&other, &headers("Bearer node")));
        assert!(!locks.opens_rig(&other, &none));
        assert!(locks.opens_openai(&headers("Bearer bob")));
        for wrong in ["Bearer node", "Bearer bo", "Bearer bobs", "bob", "Bearer "] {
            assert!(!locks.opens_openai(&headers(wrong)), "{wrong}");
        }
        assert!(locks.opens_fan_out(&headers("Bearer node")) && !locks.opens_fan_out(&none));
        let root = Locks { shared_root: true, ..locks };
        assert!(root.opens_openai(&headers("Bearer node")) && !root.opens_openai(&none));
    }

    #[test]
    fn without_tokens_everybody_is_let_in() {
        let open = Locks {
            auth_token: None,
            rig_tokens: BTreeMap::new(),
            openai_keys: vec![],
            shared_root: true,
        };
        let none = HeaderMap::new();
        assert!(open.opens_rig(&RigId::new("a").unwrap(), &none));
        assert!(open.opens_fan_out(&none) && open.opens_openai(&none));
    }
}
