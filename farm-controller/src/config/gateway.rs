//! The gateway's part of a site: where rigs answer, where the gateway listens, and whose word it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::SocketAddr;

use axum::http::uri::{Authority, Uri};
use roadbed_protocol::{RigId, RigKind};
use serde::Deserialize;

use super::error::Problem;
use super::site::SiteRig;
use super::site_file::{RigFile, SiteFile};
use super::source::{FieldPath, Source};

/// Longest token: it travels in a header of every request.
const TOKEN_BYTES_MAX: usize = 512;
/// Keys of customers: each request is held against all of them.
const KEYS_MAX: usize = 1_000;
/// First steps of paths that have a meaning of their own.
const STEPS_TAKEN: [&str; 9] =
    ["rigs", "v1", "api", "tokenize", "detokenize", "health", "livez", "readyz", "metrics"];

/// A token or key. It is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, to be compared or sent.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn is_usable(&self) -> bool {
        let visible = self.0.bytes().all(|byte| byte.is_ascii_graphic());
        !self.0.is_empty() && self.0.len() <= TOKEN_BYTES_MAX && visible
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a rig's agent serves its MLNode and OpenAI faces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AiFace {
    /// Host and port; the faces speak plain HTTP.
    pub authority: Authority,
    /// The token that the agent asks for.
    pub token: Option<Secret>,
}

/// The HTTP gateway of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What a Network Node must show, at every rig without a token of its own and at the single MLNode.
    pub auth_token: Option<Secret>,
    /// Tokens for single rigs.
    pub rig_tokens: BTreeMap<RigId, Secret>,
    /// What customers must show; any of them will do.
    pub openai_keys: Vec<Secret>,
    /// The MLNode that several rigs are together.
    pub single_mlnode: Option<SingleMlNode>,
}

/// Several rigs as one MLNode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SingleMlNode {
    /// Its rigs. The place of a rig is its PoC group, so new ones belong at the end.
    pub rigs: Vec<RigId>,
    /// First step of its addresses; `None` if it stands at the root.
    pub base: Option<String>,
    /// The model all of them serve.
    pub model: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayFile {
    listen: SocketAddr,
    #[serde(default)]
    auth_token: Option<Secret>,
    #[serde(default)]
    rig_tokens: BTreeMap<RigId, Secret>,
    #[serde(default)]
    openai_keys: Vec<Secret>,
    #[serde(default)]
    single_mlnode: Option<SingleMlNodeFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SingleMlNodeFile {
    rigs: Vec<RigId>,
    #[serde(default = "mlnode")]
    base: String,
}

fn mlnode() -> String {
    "/mlnode".to_owned()
}

/// Reads `ai_url` and `ai_token` of a rig; complaints go to `say` with the field.
pub(super) fn ai_face(
    file: &RigFile,
    kind: RigKind,
    mut say: impl FnMut(&'static str, String),
) -> Option<AiFace> {
    let Some(url) = &file.ai_url else {
        if file.ai_token.is_some() {
            say("ai_token", "has no ai_url beside it".into());
        }
        return None;
    };
    match kind {
        RigKind::Gpu => {}
        RigKind::Asic => {
            say("ai_url", "an ASIC can only mine; remove the field".into());
            return None;
        }
    }
    if file.ai_token.as_ref().is_some_and(|token| !token.is_usable()) {
        say("ai_token", unusable_token());
    }
    match authority(url) {
        Some(authority) => Some(AiFace { authority, token: file.ai_token.clone() }),
        None => {
            let expected = "expected the address of its agent's face, like http://10.0.0.5:8080";
            say("ai_url", format!("\"{url}\" is no such address; {expected}"));
            None
        }
    }
}

/// Host and port of `http://host:port`, with at most a slash behind.
fn authority(url: &str) -> Option<Authority> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let plain = uri.scheme_str() == Some("http")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !url.contains(['#', '@'])
        && authority.port_u16().is_some_and(|port| port > 0)
        && !authority.host().is_empty();
    plain.then(|| authority.clone())
}

fn unusable_token() -> String {
    format!("is no token; expected 1 to {TOKEN_BYTES_MAX} visible ASCII characters")
}

/// Checks the section, and what rigs say of their addresses.
pub(super) fn check(
    source: &Source,
    file: &SiteFile,
    rigs: &[SiteRig],
    problems: &mut Vec<Problem>,
) -> Option<GatewaySettings> {
    let mut check = Check { source, rigs, problems };
    check.addresses(file);
    let section = file.gateway.as_ref()?;
    check.section(section, file);
    let single_mlnode = section.single_mlnode.as_ref().and_then(|single| check.single(single));
    Some(GatewaySettings {
        listen: section.listen,
        auth_token: section.auth_token.clone(),
        rig_tokens: section.rig_tokens.clone(),
        openai_keys: section.openai_keys.clone(),
        single_mlnode,
    })
}

struct Check<'c> {
    source: &'c Source,
    rigs: &'c [SiteRig],
    problems: &'c mut Vec<Problem>,
}

impl Check<'_> {
    fn say(&mut self, path: &FieldPath, text: impl Display) {
        self.problems.push(self.source.problem(path, text));
    }

    fn face(&self, id: &RigId) -> Option<&AiFace> {
        self.rigs.iter().find(|rig| rig.id == *id).and_then(|rig| rig.ai.as_ref())
    }

    /// Two rigs at one address would be one rig that proves everything twice.
    fn addresses(&mut self, file: &SiteFile) {
        let mut seen = BTreeSet::new();
        for (place, rig) in file.rigs.iter().enumerate() {
            let address = self.face(&rig.id).map(|face| face.authority.to_string());
            if let Some(address) = address
                && !seen.insert(address.clone())
            {
                let path = FieldPath::of("rigs").at(place).key("ai_url");
                self.say(&path, format!("{address} is another rig's address already"));
            }
        }
    }

    fn section(&mut self, section: &GatewayFile, file: &SiteFile) {
        let top = FieldPath::of("gateway");
        if section.listen == file.broker_listen && section.listen.port() != 0 {
            self.say(&top.key("listen"), format!("{} is the broker's address", section.listen));
        }
        if self.rigs.iter().all(|rig| rig.ai.is_none()) {
            self.say(&top, "has no rig behind it; expected ai_url at one GPU rig or more");
        }
        if section.auth_token.as_ref().is_some_and(|token| !token.is_usable()) {
            self.say(&top.key("auth_token"), unusable_token());
        }
        if section.openai_keys.len() > KEYS_MAX {
            let count = section.openai_keys.len();
            self.say(&top.key("openai_keys"), format!("has {count} entries; at most {KEYS_MAX}"));
        }
        for (place, key) in section.openai_keys.iter().enumerate() {
            if !key.is_usable() {
                self.say(&top.key("openai_keys").at(place), unusable_token());
            }
        }
        let tokens = top.key("rig_tokens");
        for (rig, token) in &section.rig_tokens {
            if self.face(rig).is_none() {
                self.say(&tokens, format!("\"{rig}\" is no rig with an ai_url"));
            }
            if !token.is_usable() {
                self.say(&tokens, format!("\"{rig}\": {}", unusable_token()));
            }
        }
        self.open_doors(section, file);
    }

    /// The gateway adds a rig's token to every request: whoever gets in here gets in there.
    fn open_doors(&mut self, section: &GatewayFile, file: &SiteFile) {
        for (place, rig) in file.rigs.iter().enumerate() {
            let is_open = section.auth_token.is_none()
                && (section.openai_keys.is_empty() || !section.rig_tokens.contains_key(&rig.id));
            if is_open && self.face(&rig.id).is_some_and(|face| face.token.is_some()) {
                let path = FieldPath::of("rigs").at(place).key("ai_token");
                self.say(
                    &path,
                    "would be added to everybody's requests; give the gateway an auth_token",
                );
            }
        }
    }

    fn single(&mut self, single: &SingleMlNodeFile) -> Option<SingleMlNode> {
        let top = FieldPath::of("gateway").key("single_mlnode");
        let base = match single.base.trim_matches('/') {
            "" => None,
            step => {
                let plain = step.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                if !plain || STEPS_TAKEN.contains(&step) {
                    let expected = "expected \"/\" or one step like \"/mlnode\"";
                    self.say(&top.key("base"), format!("\"{}\"; {expected}", single.base));
                }
                Some(step.to_owned())
            }
        };
        let rigs_at = top.key("rigs");
        if single.rigs.is_empty() {
            self.say(&rigs_at, "is empty; expected the ids of its rigs");
        }
        let mut model = None;
        for (place, id) in single.rigs.iter().enumerate() {
            let path = rigs_at.at(place);
            let rig = self.rigs.iter().find(|rig| rig.id == *id);
            let Some(rig) = rig.filter(|rig| rig.ai.is_some()) else {
                self.say(&path, format!("\"{id}\" is no rig with an ai_url"));
                continue;
            };
            if single.rigs.iter().take(place).any(|other| other == id) {
                self.say(&path, format!("\"{id}\" is listed twice"));
            }
            let first = model.get_or_insert_with(|| rig.model.clone());
            if *first != rig.model {
                self.say(&path, format!("\"{id}\" serves another model; one MLNode serves one"));
            }
        }
        Some(SingleMlNode { rigs: single.rigs.clone(), base, model: model.flatten()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        for good in ["http://10.0.0.5:8080", "http://rig-1.farm:80/", "http://[fd00::1]:8080"] {
            assert!(authority(good).is_some(), "{good}");
        }
        for bad in [
            "10.0.0.5:8080",
            "https://a:1",
            "http://a",
            "http://a:0",
            "http://a:8080/x",
            "http://a:8080?x",
            "http://u:p@a:8080",
            "http://:8080",
            "",
        ] {
            assert!(authority(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Some(Secret::from("s3cret"))), "Some(Secret(..))");
    }
}
