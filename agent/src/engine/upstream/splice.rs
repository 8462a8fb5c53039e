//! Changing single members of a JSON object while every other byte of it stays as it was written.
//!
//! A model goes by one name outside and by another at its server, in every request and in every chunk of an answer.
//! Reading a body into values and writing it again would change numbers on the way; so the text itself is cut.

use std::ops::Range;

/// Sets the members called `name` of an object to a JSON text; puts one in front if there is none.
///
/// `text` must be a JSON object, else it comes back as it is.
pub(crate) fn set_member(text: &[u8], name: &str, value: &str) -> Vec<u8> {
    let Some(members) = members(text) else { return text.to_vec() };
    let found: Vec<&Member> =
        members.iter().filter(|member| member.is_called(text, name)).collect();
    if !found.is_empty() {
        return replaced(text, found.iter().map(|member| member.value.clone()), value);
    }
    let Some(brace) = text.iter().position(|&byte| byte == b'{') else { return text.to_vec() };
    let comma = if members.is_empty() { "" } else { "," };
    let mut out = text[..=brace].to_vec();
    out.extend(format!("{}:{value}{comma}", serde_json::Value::from(name)).into_bytes());
    out.extend(&text[brace + 1..]);
    out
}

/// Sets the members called `name` that are the text `from` to the text `to`; others stay.
pub(super) fn rename(text: &[u8], name: &str, from: &str, to: &str) -> Vec<u8> {
    let Some(members) = members(text) else { return text.to_vec() };
    let is_from = |range: &Range<usize>| {
        serde_json::from_slice::<String>(&text[range.clone()]).is_ok_and(|text| text == from)
    };
    let found = members.iter().filter(|member| member.is_called(text, name));
    let found: Vec<Range<usize>> = found.map(|m| m.value.clone()).filter(is_from).collect();
    replaced(text, found.into_iter(), &serde_json::Value::from(to).to_string())
}

/// Sets a member of the object that is the member `outer`.
pub(crate) fn set_inner(text: &[u8], outer: &str, name: &str, value: &str) -> Vec<u8> {
    let Some(members) = members(text) else { return text.to_vec() };
    let mut out = text.to_vec();
    for member in members.iter().rev().filter(|member| member.is_called(text, outer)) {
        let inner = set_member(&text[member.value.clone()], name, value);
        out.splice(member.value.clone(), inner);
    }
    out
}

fn replaced(text: &[u8], ranges: impl Iterator<Item = Range<usize>>, value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + value.len());
    let mut done = 0;
    for range in ranges {
        out.extend(&text[done..range.start]);
        out.extend(value.as_bytes());
        done = range.end;
    }
    out.extend(&text[done..]);
    out
}

/// Where a member stands.
struct Member {
    /// With its quotes.
    name: Range<usize>,
    value: Range<usize>,
}

impl Member {
    fn is_called(&self, text: &[u8], name: &str) -> bool {
        // A name may be written with escapes and is then still the same name.
        serde_json::from_slice::<String>(&text[self.name.clone()]).is_ok_and(|own| own == name)
    }
}

/// The members of an object, in order; `None` if it is none.
fn members(text: &[u8]) -> Option<Vec<Member>> {
    let mut reader = Reader { text, at: 0 };
    reader.space();
    reader.take(b'{')?;
    let mut members = vec![];
    loop {
        reader.space();
        if reader.peek()? == b'}' {
            return Some(members);
        }
        let name = reader.value()?;
        reader.space();
        reader.take(b':')?;
        reader.space();
        let value = reader.value()?;
        members.push(Member { name, value });
        reader.space();
        if reader.peek()? == b',' {
            reader.at += 1;
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Passes over one value of any kind.
    fn value(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            let ends = |byte: u8| matches!(byte, b',' | b':' | b'}' | b']');
            let next = self.peek();
            if depth == 0 && next.is_none_or(|byte| ends(byte) || byte.is_ascii_whitespace()) {
                return Some(start..self.at);
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_member_changes_and_no_other_byte() {
        let body = br#" { "a" : 1.10e2, "model":"x" ,"n":{"model":"x"}, "mod\u0065l" : null } "#;
        assert_eq!(
            text(set_member(body, "model", "\"y\"")),
            r#" { "a" : 1.10e2, "model":"y" ,"n":{"model":"x"}, "mod\u0065l" : "y" } "#
        );
        assert_eq!(
            text(rename(body, "model", "x", "y\"")),
            r#" { "a" : 1.10e2, "model":"y\"" ,"n":{"model":"x"}, "mod\u0065l" : null } "#
        );
        assert_eq!(text(rename(body, "model", "other", "y")), text(body.to_vec()));
        assert_eq!(
            text(set_inner(body, "n", "k", "[1]")),
            r#" { "a" : 1.10e2, "model":"x" ,"n":{"k":[1],"model":"x"}, "mod\u0065l" : null } "#
        );
    }

    #[test]
    fn what_is_missing_is_put_in_front() {
        assert_eq!(text(set_member(b"{}", "a", "1")), r#"{"a":1}"#);
        assert_eq!(text(set_member(b" {\"b\":[]}", "a", "1")), r#" {"a":1,"b":[]}"#);
        assert_eq!(text(set_member(b"[1]", "a", "1")), "[1]");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            // Not every float survives being read and written; that is why nothing here does it.
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-d\"\\\\]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_does_what_reading_and_writing_would(
            object in proptest::collection::btree_map("[a-d\"\\\\]{1,2}", any_json(), 0..5),
            name in "[a-d]",
            pretty in any::<bool>(),
        ) {
            let mut object = Value::Object(object.into_iter().collect());
            let body = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
            let spliced = set_member(&body.unwrap(), &name, "[7]");
            object[name.as_str()] = json!([7]);
            prop_assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), object);
        }

        #[test]
        fn noise_never_panics(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop(set_member(&body, "a", "1"));
            let mut braced = b"{\"a\":".to_vec();
            braced.extend(&body);
            drop(set_inner(&braced, "a", "b", "1"));
        }
    }
}
