//! What every address of an MLNode means and who may knock: the rules that an agent's faces and the controller's gateway share.
//!
//! Pure, over texts and bytes. A Network Node may put a version before every path (`/v3.0.16/api/v1/state`), joins addresses
//! with double slashes, and shows its token as a bearer; health probes come without one.

/// Whether a plain path is one of OpenAI's or its kin.
#[must_use]
pub fn is_openai(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/") || matches!(path, "/tokenize" | "/detokenize")
}

/// The same path without a version in front and without empty steps; a slash at the end stays, because that is another
/// address.
#[must_use]
pub fn plain_path(path: &str) -> String {
    let mut steps: Vec<&str> = path.split('/').skip(1).collect();
    let last = steps.pop().unwrap_or_default();
    steps.retain(|step| !step.is_empty());
    steps.push(last);
    if steps.len() > 1 && is_version(steps[0]) {
        steps.remove(0);
    }
    format!("/{}", steps.join("/"))
}

/// `v<digits>.<anything>`: `v3.0.16`, but not the `v1` of the OpenAI paths.
#[must_use]
pub fn is_version(step: &str) -> bool {
    step.strip_prefix('v').and_then(|rest| rest.split_once('.')).is_some_and(|(major, rest)| {
        !major.is_empty() && major.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty()
    })
}

/// Whether a plain path is answered without a token. Health probes come without one, and one version of the Network Node's
/// client forgets it for `/v1/models`.
#[must_use]
pub fn is_open(method: &str, path: &str) -> bool {
    method == "GET"
        && matches!(path, "/health" | "/livez" | "/readyz" | "/v1/models" | "/api/v1/clock")
}

/// Whether the value of an `Authorization` header shows `token` as a bearer.
#[must_use]
pub fn shows_bearer(authorization: Option<&[u8]>, token: &[u8]) -> bool {
    let given = authorization.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    // Every byte is looked at, so that the time taken tells nothing about the token.
    let differences = given
        .iter()
        .zip(token)
        .fold(given.len() ^ token.len(), |all, (a, b)| all | usize::from(a ^ b));
    differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_plain() {
        for (path, plain) in [
            ("/api/v1/state", "/api/v1/state"),
            ("/v3.0.16/api/v1/state", "/api/v1/state"),
            ("//v3.0.16//api//v1/state", "/api/v1/state"),
            ("/v1/models", "/v1/models"),
            ("/v3.0.16/v1/models", "/v1/models"),
            ("/v3.0.16", "/v3.0.16"),
            ("/api/v1/state/", "/api/v1/state/"),
            ("/a%2F%252F/b", "/a%2F%252F/b"),
            ("/", "/"),
        ] {
            assert_eq!(plain_path(path), plain);
        }
    }

    #[test]
    fn a_bearer_is_equal_or_it_is_none() {
        assert!(shows_bearer(Some(b"Bearer secret"), b"secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "secret", "Bearer Secret"] {
            assert!(!shows_bearer(Some(wrong.as_bytes()), b"secret"), "{wrong}");
        }
        assert!(!shows_bearer(None, b"secret"));
        assert!(is_open("GET", "/readyz") && !is_open("POST", "/readyz"));
        assert!(!is_open("GET", "/api/v1/state"));
    }
}
