//! Reads the server-sent events of an answer as they come, and says at once when they are none.
//!
//! An event is lines up to an empty one; those that begin with `data:` are its content, which is one JSON object or
//! `[DONE]`. A server that fails in the middle sends an object with `error` in it; older llama.cpp servers write a line
//! that begins with `error:` instead.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fault::UpstreamFault;

/// Longest event taken: the first chunk of an answer with `echo` may carry log probabilities of a whole prompt.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A comment that keeps the connection open; its text.
    Comment(Vec<u8>),
    /// A chunk.
    Chunk {
        /// The JSON as it was written.
        data: Vec<u8>,
        /// What of it is counted.
        head: Head,
    },
    /// The server's own word that it failed.
    Failed(Vec<u8>),
    /// Nothing follows.
    Done,
}

/// The members of an answer, or of a chunk of one, that are looked at.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Head {
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) choices: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}

impl Head {
    /// Reads what is looked at; fails unless the text is a JSON object.
    pub(super) fn read(text: &[u8]) -> Result<Self, UpstreamFault> {
        let read = serde_json::from_slice(text).map_err(|error| UpstreamFault::BadAnswer {
            reason: format!("no JSON as expected: {error}"),
        })?;
        // The derived reader takes a list for an object.
        if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(UpstreamFault::BadAnswer { reason: "no JSON object".into() });
        }
        Ok(read)
    }

    /// True if the server says that it failed.
    pub(super) const fn is_failure(&self) -> bool {
        self.error.is_some()
    }

    /// True if it counts tokens and says nothing else.
    pub(super) fn is_usage_alone(&self) -> bool {
        self.usage.is_some() && self.choices.as_ref().is_none_or(Vec::is_empty)
    }
}

/// Takes bytes in and gives events out.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    held: Vec<u8>,
    /// Bytes of `held` that hold no end of a line.
    looked_at: usize,
    data: Option<Vec<u8>>,
    failed: Option<Vec<u8>>,
    comment: Option<Vec<u8>>,
}

impl EventReader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole event; `None` if it has not come yet.
    pub(super) fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        let bad = |reason: String| UpstreamFault::BadAnswer { reason };
        while let Some(line) = self.line() {
            let (field, value) = match line.iter().position(|&byte| byte == b':') {
                Some(at) => {
                    (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..]))
                }
                None => (&line[..], &[][..]),
            };
            match field {
                b"" if line.is_empty() => {
                    if let Some(event) = self.whole()? {
                        return Ok(Some(event));
                    }
                }
                b"" => add(&mut self.comment, value),
                b"data" => add(&mut self.data, value),
                b"error" => add(&mut self.failed, value),
                b"event" | b"id" | b"retry" => {}
                _ => {
                    let line = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
                    return Err(bad(format!("a line of its stream is no event: {line:?}")));
                }
            }
        }
        let size = self.held.len() + self.data.as_ref().map_or(0, Vec::len);
        if size > EVENT_BYTES_MAX {
            return Err(bad(format!(
                "an event of its stream is longer than {EVENT_BYTES_MAX} bytes"
            )));
        }
        Ok(None)
    }

    fn whole(&mut self) -> Result<Option<Event>, UpstreamFault> {
        let comment = self.comment.take();
        if let Some(words) = self.failed.take() {
            return Ok(Some(Event::Failed(words)));
        }
        let Some(data) = self.data.take() else { return Ok(comment.map(Event::Comment)) };
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Some(Event::Done));
        }
        let head = Head::read(&data)?;
        Ok(Some(if head.is_failure() { Event::Failed(data) } else { Event::Chunk { data, head } }))
    }

    /// The next whole line without its end.
    fn line(&mut self) -> Option<Vec<u8>> {
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let Some(at) = self.held[self.looked_at..].iter().position(ends) else {
            self.looked_at = self.held.len();
            return None;
        };
        let end = self.looked_at + at;
        let crlf = self.held[end] == b'\r';
        if crlf && end + 1 == self.held.len() {
            // A line feed may belong to it.
            self.looked_at = end;
            return None;
        }
        let next = end + 1 + usize::from(crlf && self.held[end + 1] == b'\n');
        let line = self.held[..end].to_vec();
        self.held.drain(..next);
        self.looked_at = 0;
        Some(line)
    }
}

fn add(lines: &mut Option<Vec<u8>>, line: &[u8]) {
    match lines {
        Some(lines) => {
            lines.push(b'\n');
            lines.extend_from_slice(line);
        }
        None => *lines = Some(line.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut EventReader) -> Vec<Event> {
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn words(events: &[Event]) -> Vec<String> {
        let word = |event: &Event| match event {
            Event::Comment(text) => format!(":{}", String::from_utf8_lossy(text)),
            Event::Chunk { data, .. } => String::from_utf8_lossy(data).into_owned(),
            Event::Failed(text) => format!("failed {}", String::from_utf8_lossy(text)),
            Event::Done => "done".to_owned(),
        };
        events.iter().map(word).collect()
    }

    const STREAM: &str = ": ping\n\ndata: {\"a\":1}\n\nevent: x\r\nid: 7\r\ndata:{\"b\":\r\ndata: 2}\r\n\r\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";

    #[test]
    fn events_are_read_however_the_bytes_come() {
        let expected = [
            ":ping",
            r#"{"a":1}"#,
            "{\"b\":\n2}",
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            "done",
        ];
        for size in 1..STREAM.len() {
            let mut reader = EventReader::default();
            let mut events = vec![];
            for piece in STREAM.as_bytes().chunks(size) {
                reader.push(piece);
                events.extend(read(&mut reader));
            }
            assert_eq!(words(&events), expected, "{size}");
            let Event::Chunk { head, .. } = &events[3] else { panic!("no chunk") };
            assert!(head.is_usage_alone());
            let usage = Usage { prompt_tokens: 3, completion_tokens: 4 };
            assert_eq!(head.usage, Some(usage));
        }
    }

    #[test]
    fn what_is_no_event_is_told() {
        for (text, word) in [
            ("<html>\n", "no event"),
            ("data: {\"a\":\n\n", "no JSON"),
            ("data: [1]\n\n", "no JSON"),
            ("data: hello\n\n", "no JSON"),
        ] {
            let mut reader = EventReader::default();
            reader.push(text.as_bytes());
            let fault = reader.next().unwrap_err().to_string();
            assert!(fault.contains(word), "{fault}");
        }
        let mut reader = EventReader::default();
        reader.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert!(reader.next().unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn a_servers_failure_is_told_apart() {
        let mut reader = EventReader::default();
        reader.push(b"data: {\"error\":{\"message\":\"no\"}}\n\nerror: {\"message\":\"old\"}\n\n");
        let seen = words(&read(&mut reader));
        assert_eq!(seen, [r#"failed {"error":{"message":"no"}}"#, r#"failed {"message":"old"}"#]);
        // A member that is null is no failure.
        reader.push(b"data: {\"error\":null,\"usage\":null}\n\n");
        assert_eq!(words(&read(&mut reader)), [r#"{"error":null,"usage":null}"#]);
    }

    proptest! {
        #[test]
        fn noise_never_panics(text in "(data|event|:|error|[ -~]{0,4}|\n|\r|\\{\\}){0,40}") {
            let mut reader = EventReader::default();
            reader.push(text.as_bytes());
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
