//! What a model's text says: thoughts, content, and calls of tools, taken apart while it comes.
//!
//! Models mark their calls as their template taught them; the marks do not resemble one another, so all are looked for
//! and no model need be known by name:
//!
//! | mark | models |
//! |---|---|
//! | `<tool_call>{"name": .., "arguments": ..}</tool_call>` | Hermes, Qwen 2.5 and 3, SmolLM 3 |
//! | `[TOOL_CALLS][{"name": .., "arguments": ..}]`, `[TOOL_CALLS]name[ARGS]{..}` | Mistral |
//! | <code><\|python_tag\|></code>`{"name": .., "parameters": ..}` or that alone | Llama 3 |
//!
//! Text between `<think>` and `</think>` at the beginning is the model's reasoning.

use serde_json::Value;

use super::tool::{ToolChoice, ToolUse};

const THINK: &str = "<think>";
const THINK_END: &str = "</think>";
const HERMES: &str = "<tool_call>";
const HERMES_END: &str = "</tool_call>";
const MISTRAL: &str = "[TOOL_CALLS]";
const MISTRAL_ARGUMENTS: &str = "[ARGS]";
const LLAMA: &str = "<|python_tag|>";

/// One call, or a further part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallPart {
    /// Which call of the answer.
    pub(super) index: usize,
    /// The tool's name, in the first part of a call.
    pub(super) name: Option<String>,
    /// JSON text.
    pub(super) arguments: String,
}

/// What a piece of text said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) reasoning: String,
    pub(super) content: String,
    pub(super) calls: Vec<CallPart>,
}

impl Said {
    pub(super) const fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }
}

/// Where the reader is in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first letter.
    Start,
    Thinking,
    /// After the thoughts, before the next letter.
    Thought,
    /// After a call, before the next letter.
    Called,
    Content,
    /// After a mark, until its end.
    Call(&'static str),
    /// In an answer that may be a call as a whole.
    Whole,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct AnswerReader {
    kind: Kind,
    place: Place,
    /// Text whose meaning the next piece decides.
    held: String,
    /// Calls given out.
    calls: usize,
}

#[derive(Debug)]
enum Kind {
    /// Everything is content.
    Plain,
    /// A chat without tools.
    Chat,
    /// A chat that may call these.
    Tools { names: Vec<String>, parallel: bool },
    /// Everything is the arguments of a call of this.
    Named(String),
    /// Everything is a list of calls.
    Required,
}

impl AnswerReader {
    /// A completion without a chat.
    pub(super) const fn plain() -> Self {
        Self::of(Kind::Plain)
    }

    /// A chat with the tools it may call.
    pub(super) fn chat(tools: Option<&ToolUse>) -> Self {
        Self::of(match tools.map(|tools| (tools, &tools.choice)) {
            None => Kind::Chat,
            Some((_, ToolChoice::Named(name))) => Kind::Named(name.clone()),
            Some((_, ToolChoice::Required)) => Kind::Required,
            Some((tools, ToolChoice::Auto)) => {
                let name = |tool: &Value| tool["function"]["name"].as_str().map(str::to_owned);
                let names = tools.tools.iter().filter_map(name).collect();
                Kind::Tools { names, parallel: tools.parallel }
            }
        })
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, place: Place::Start, held: String::new(), calls: 0 }
    }

    /// True if the answer ended in order to have tools called, which is another reason to end than having said it all.
    pub(super) const fn ends_with_calls(&self) -> bool {
        match self.kind {
            Kind::Tools { .. } | Kind::Required => self.calls > 0,
            Kind::Plain | Kind::Chat | Kind::Named(_) => false,
        }
    }

    /// Reads on.
    pub(super) fn push(&mut self, text: &str) -> Said {
        let mut said = Said::default();
        match &self.kind {
            Kind::Plain => said.content.push_str(text),
            Kind::Named(name) => {
                let name = (self.calls == 0).then(|| name.clone());
                if name.is_some() || !text.is_empty() {
                    self.calls = 1;
                    said.calls.push(CallPart { index: 0, name, arguments: text.to_owned() });
                }
            }
            Kind::Required => self.held.push_str(text),
            Kind::Chat | Kind::Tools { .. } => {
                self.held.push_str(text);
                while self.step(&mut said) {}
            }
        }
        said
    }

    /// The text has ended: what was held back is decided.
    pub(super) fn finish(&mut self) -> Said {
        let mut said = Said::default();
        let held = std::mem::take(&mut self.held);
        match (&self.kind, self.place) {
            (Kind::Required, _) => match calls_of(&held) {
                Some(calls) => self.give(calls, &mut said),
                None => said.content = held,
            },
            (Kind::Tools { names, .. }, Place::Whole) => {
                let calls = calls_of(&held);
                match calls.filter(|calls| calls.iter().all(|(name, _)| names.contains(name))) {
                    Some(calls) => self.give(calls, &mut said),
                    None => said.content = held,
                }
            }
            (_, Place::Call(mark)) => match calls_of(body(&held, mark)) {
                Some(calls) => self.give(calls, &mut said),
                None => said.content = format!("{mark}{held}"),
            },
            (_, Place::Thinking) => said.reasoning = held,
            (_, Place::Start | Place::Content | Place::Whole) => said.content = held,
            // Blanks between the parts are no content.
            (_, Place::Thought | Place::Called) => {}
        }
        said
    }

    /// Decides about the beginning of what is held; false if it needs more text.
    fn step(&mut self, said: &mut Said) -> bool {
        let tools = matches!(self.kind, Kind::Tools { .. });
        match self.place {
            Place::Start | Place::Thought => {
                let text = self.held.trim_start();
                if self.place == Place::Start {
                    if let Some(rest) = text.strip_prefix(THINK) {
                        self.held = rest.to_owned();
                        self.place = Place::Thinking;
                        return true;
                    }
                    if THINK.starts_with(text) {
                        return false;
                    }
                } else {
                    self.held = text.to_owned();
                    if self.held.is_empty() {
                        return false;
                    }
                }
                let text = self.held.trim_start();
                if tools && MISTRAL.starts_with(text) {
                    return false;
                }
                let marked = text.starts_with(MISTRAL);
                let whole = tools && !marked && text.starts_with(['{', '[']);
                self.place = if whole { Place::Whole } else { Place::Content };
                !whole
            }
            Place::Called => {
                self.held = self.held.trim_start().to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.place = Place::Content;
                true
            }
            Place::Thinking => {
                let (before, after) = cut(&self.held, &[THINK_END]);
                said.reasoning.push_str(before);
                match after {
                    Cut::Mark(_, rest) => {
                        self.held = rest.to_owned();
                        self.place = Place::Thought;
                        true
                    }
                    Cut::Maybe(rest) => {
                        self.held = rest.to_owned();
                        false
                    }
                }
            }
            Place::Content if !tools => {
                said.content.push_str(&std::mem::take(&mut self.held));
                false
            }
            Place::Content => {
                let (before, after) = cut(&self.held, &[HERMES, MISTRAL, LLAMA]);
                said.content.push_str(before);
                match after {
                    Cut::Mark(mark, rest) => {
                        self.held = rest.to_owned();
                        self.place = Place::Call(mark);
                        true
                    }
                    Cut::Maybe(rest) => {
                        self.held = rest.to_owned();
                        false
                    }
                }
            }
            Place::Call(HERMES) => {
                let Some((body, rest)) = self.held.split_once(HERMES_END) else { return false };
                let (body, rest) = (body.to_owned(), rest.to_owned());
                self.held = rest;
                self.place = Place::Called;
                match calls_of(&body) {
                    Some(calls) => self.give(calls, said),
                    None => {
                        said.content.push_str(&format!("{HERMES}{body}{HERMES_END}"));
                        self.place = Place::Content;
                    }
                }
                true
            }
            // These go on to the end of the answer.
            Place::Call(_) | Place::Whole => false,
        }
    }

    fn give(&mut self, calls: Vec<(String, String)>, said: &mut Said) {
        let most = match self.kind {
            Kind::Tools { parallel: false, .. } => 1,
            Kind::Tools { .. } | Kind::Required | Kind::Plain | Kind::Chat | Kind::Named(_) => {
                usize::MAX
            }
        };
        for (name, arguments) in calls {
            if self.calls < most {
                said.calls.push(CallPart { index: self.calls, name: Some(name), arguments });
                self.calls += 1;
            }
        }
    }
}

/// What comes after text that is decided.
enum Cut<'t> {
    /// A mark, and what follows it.
    Mark(&'static str, &'t str),
    /// Nothing, or what may become a mark.
    Maybe(&'t str),
}

/// Text before the first of the marks.
fn cut<'t>(text: &'t str, marks: &[&'static str]) -> (&'t str, Cut<'t>) {
    let first = marks.iter().filter_map(|mark| Some((text.find(mark)?, *mark))).min();
    if let Some((at, mark)) = first {
        return (&text[..at], Cut::Mark(mark, &text[at + mark.len()..]));
    }
    let maybe = |at: &usize| marks.iter().any(|mark| mark.starts_with(&text[*at..]));
    let at = text.char_indices().map(|(at, _)| at).find(maybe).unwrap_or(text.len());
    (&text[..at], Cut::Maybe(&text[at..]))
}

/// The calls after a mark that has no end.
fn body<'t>(held: &'t str, mark: &str) -> &'t str {
    match mark {
        HERMES => held.split(HERMES_END).next().unwrap_or(held),
        _ => held,
    }
}

/// Names and arguments of the calls that a text consists of; `None` if it is anything else.
fn calls_of(text: &str) -> Option<Vec<(String, String)>> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return named_calls_of(text);
    }
    let mut calls = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let (value, after) = next_json(rest)?;
        match value {
            Value::Array(list) => {
                for call in &list {
                    calls.push(call_of(call)?);
                }
            }
            call => calls.push(call_of(&call)?),
        }
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
    }
    (!calls.is_empty()).then_some(calls)
}

/// `name[ARGS]{..}` or `name{..}`, one after another with a mark between.
fn named_calls_of(text: &str) -> Option<Vec<(String, String)>> {
    let mut calls = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find('{')?;
        let name = rest[..at].trim().trim_start_matches(MISTRAL);
        let name = name.strip_suffix(MISTRAL_ARGUMENTS).unwrap_or(name).trim();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        let (arguments, after) = next_json(&rest[at..])?;
        calls.push((name.to_owned(), arguments.to_string()));
        rest = after.trim();
    }
    (!calls.is_empty()).then_some(calls)
}

/// The JSON value that a text begins with, and the text after it.
fn next_json(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

fn call_of(call: &Value) -> Option<(String, String)> {
    let call = call.as_object()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments").or(call.get("parameters")) {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
    };
    Some((name, arguments))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn tools(choice: ToolChoice, parallel: bool) -> ToolUse {
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        ToolUse { tools: vec![tool("add"), tool("weather")], choice, parallel }
    }

    fn read(mut reader: AnswerReader, pieces: &[&str]) -> (Said, AnswerReader) {
        let mut all = Said::default();
        for piece in pieces {
            add(&mut all, reader.push(piece));
        }
        add(&mut all, reader.finish());
        (all, reader)
    }

    fn add(all: &mut Said, more: Said) {
        all.reasoning.push_str(&more.reasoning);
        all.content.push_str(&more.content);
        all.calls.extend(more.calls);
    }

    /// Reads a text whole and letter by letter; both must say the same.
    #[track_caller]
    fn check(text: &str, reasoning: &str, content: &str, calls: &[(&str, &str)]) {
        let tools = tools(ToolChoice::Auto, true);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        for pieces in [&[text][..], &letters] {
            let (said, reader) = read(AnswerReader::chat(Some(&tools)), pieces);
            let said_calls: Vec<(&str, &str)> = said
                .calls
                .iter()
                .map(|call| (call.name.as_deref().unwrap(), call.arguments.as_str()))
                .collect();
            assert_eq!(said.reasoning, reasoning, "{text}");
            assert_eq!(said.content, content, "{text}");
            assert_eq!(said_calls, calls, "{text}");
            assert_eq!(reader.ends_with_calls(), !calls.is_empty());
        }
    }

    #[test]
    fn calls_are_read_as_models_write_them() {
        let add = ("add", r#"{"a":1,"b":[2]}"#);
        check(
            r#"<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}}</tool_call>"#,
            "",
            "",
            &[add],
        );
        check(
            "Yes. <tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1,\"b\":[2]}}\n</tool_call>\n<tool_call>\n{\"name\":\"weather\"}\n</tool_call>\n",
            "",
            "Yes. ",
            &[add, ("weather", "{}")],
        );
        check(r#"[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": [2]}}]"#, "", "", &[add]);
        check(r#"[TOOL_CALLS]add[ARGS]{"a": 1, "b": [2]}"#, "", "", &[add]);
        check(
            r#"[TOOL_CALLS]add{"a": 1, "b": [2]}[TOOL_CALLS]weather{}"#,
            "",
            "",
            &[add, ("weather", "{}")],
        );
        check(r#"{"name": "add", "parameters": {"a": 1, "b": [2]}}"#, "", "", &[add]);
        check(
            r#"<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": [2]}}; {"name": "weather"}"#,
            "",
            "",
            &[add, ("weather", "{}")],
        );
        check(
            "<think>\nhm\n</think>\n\n<tool_call>{\"name\": \"weather\"}",
            "\nhm\n",
            "",
            &[("weather", "{}")],
        );
    }

    #[test]
    fn what_is_no_call_is_content() {
        check("1 < 2 and [x] are fine", "", "1 < 2 and [x] are fine", &[]);
        check(
            "{\"name\": \"unknown\", \"parameters\": {}}",
            "",
            "{\"name\": \"unknown\", \"parameters\": {}}",
            &[],
        );
        check("{\"a\": 1}", "", "{\"a\": 1}", &[]);
        check("[1, 2]", "", "[1, 2]", &[]);
        check("<tool_call>oops</tool_call> so", "", "<tool_call>oops</tool_call> so", &[]);
        check("<|python_tag|>print(1)", "", "<|python_tag|>print(1)", &[]);
        check("so <tool_c", "", "so <tool_c", &[]);
        check("<think>never ended", "never ended", "", &[]);
        check("<thin", "", "<thin", &[]);
        check(" a", "", " a", &[]);
        check("", "", "", &[]);
    }

    #[test]
    fn forced_calls_are_read_as_they_were_forced() {
        let named = tools(ToolChoice::Named("add".into()), true);
        let (said, reader) = read(AnswerReader::chat(Some(&named)), &["{\"a\"", ":1}"]);
        assert_eq!(
            said.calls[0],
            CallPart { index: 0, name: Some("add".into()), arguments: "{\"a\"".into() }
        );
        assert_eq!(said.calls[1], CallPart { index: 0, name: None, arguments: ":1}".into() });
        assert!(!reader.ends_with_calls());
        let required = tools(ToolChoice::Required, true);
        let text = r#"[{"name": "add", "parameters": {"a": 1}}]"#;
        let (said, reader) = read(AnswerReader::chat(Some(&required)), &[text]);
        assert_eq!((said.calls.len(), reader.ends_with_calls()), (1, true));
        // Cut off in the middle by a length.
        let (said, _) = read(AnswerReader::chat(Some(&required)), &[&text[..20]]);
        assert_eq!(said.content, text[..20]);
        let one = tools(ToolChoice::Auto, false);
        let text =
            "<tool_call>{\"name\":\"add\"}</tool_call><tool_call>{\"name\":\"add\"}</tool_call>";
        assert_eq!(read(AnswerReader::chat(Some(&one)), &[text]).0.calls.len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_from_a_chat_without_tools(text in "[<>/think \n{}a]{0,60}") {
            let (said, _) = read(AnswerReader::chat(None), &[&text]);
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let all = letters(&format!("{}{}", said.reasoning, said.content));
            let shown = letters(&text);
            let bare = shown.strip_prefix(THINK).unwrap_or(&shown);
            prop_assert!(all == shown || all == bare.replacen(THINK_END, "", 1), "{said:?}");
        }

        #[test]
        fn any_text_is_read_alike_in_any_pieces(
            text in "([{}\\[\\]\"a:,<>/ ]|<tool_call>|</tool_call>|\\[TOOL_CALLS\\]|\\{\"name\":\"add\"\\}|<think>|</think>){0,12}",
        ) {
            let tools = tools(ToolChoice::Auto, true);
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            let (whole, _) = read(AnswerReader::chat(Some(&tools)), &[&text]);
            let (pieces, _) = read(AnswerReader::chat(Some(&tools)), &letters);
            prop_assert_eq!(whole, pieces);
        }
    }
}
