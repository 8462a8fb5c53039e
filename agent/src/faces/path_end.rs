//! The end of an address that names something: a job, a model.
//!
//! What a client writes there need not be UTF-8. A framework's own reading would refuse it with a text of its own, in a form
//! no client of ours knows; here it reads as a name that nothing has.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// What stands before such a name.
const HEADS: [&str; 3] =
    ["/api/v1/inference/pow/generate/", "/api/v1/pow/generate/", "/v1/models/"];

/// The name, decoded; bytes that are no UTF-8 become U+FFFD.
pub(super) struct PathEnd(pub(super) String);

impl<S: Sync> FromRequestParts<S> for PathEnd {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let path = parts.uri.path();
        let end = HEADS.iter().find_map(|head| path.strip_prefix(head));
        Ok(Self(decoded(end.unwrap_or_default())))
    }
}

/// Percent-decoded once; a percent sign that begins no escape stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escape = behind
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escape.unwrap_or(byte));
        rest = if escape.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_a_name() {
        for (text, name) in [
            ("5001:abc", "5001:abc"),
            ("5001%3Aabc", "5001:abc"),
            ("org/name%2Fx", "org/name/x"),
            ("a%252Fb", "a%2Fb"),
            ("%FF%C3%A9", "\u{fffd}\u{e9}"),
            ("%", "%"),
            ("%4", "%4"),
            ("%+1%zz%4%31", "%+1%zz%41"),
            ("", ""),
        ] {
            assert_eq!(decoded(text), name, "{text}");
        }
    }
}
