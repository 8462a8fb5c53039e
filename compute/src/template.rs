//! The model's own chat template: a Jinja program from the file, run within bounds.
//!
//! Templates are code from strangers. They see the messages and a handful of pure functions, run on
//! limited fuel and may produce a limited amount of text. What they keep in variables meanwhile is not
//! limited here (`x ~ x` doubles a text for one step of fuel): a program that serves strangers' models
//! renders in a process of its own, whose memory the system bounds, from a [`TemplateText`]. Block trimming and the Python string
//! methods follow what `transformers` gives templates, since that is what their authors test with.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::llm::{Conversation, Message};

/// Steps a template may take: a conversation of a thousand turns needs about 100 000.
const FUEL: u64 = 5_000_000;
/// Longest prompt text a template may produce.
const PROMPT_BYTES_MAX: usize = 16 << 20;
const NAME: &str = "chat";

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the model file carries no chat template; send a plain prompt")]
    Missing,
    #[error("the template does not parse: {0}")]
    Syntax(String),
    #[error("{0}")]
    Refused(String),
    #[error("the prompt is longer than {PROMPT_BYTES_MAX} bytes")]
    TooLong,
}

/// A template as its model file gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateText {
    /// The Jinja program.
    pub source: String,
    /// Its variable `bos_token`.
    pub bos_text: String,
    /// Its variable `eos_token`.
    pub eos_text: String,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    text: TemplateText,
}

impl ChatTemplate {
    /// Compiles the template text of a model file; `bos_text` and `eos_text` are its variables
    /// `bos_token` and `eos_token`.
    pub fn new(source: &str, bos_text: &str, eos_text: &str) -> Result<Self, TemplateError> {
        let owned = str::to_owned;
        let (bos_text, eos_text) = (owned(bos_text), owned(eos_text));
        Self::compile(TemplateText { source: owned(source), bos_text, eos_text })
    }

    /// Compiles a template.
    pub fn compile(text: TemplateText) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| TemplateError::Syntax(describe(&error)))?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(NAME, text.source.clone())
            .map_err(|error| TemplateError::Syntax(describe(&error)))?;
        Ok(Self { environment, text })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn text(&self) -> &TemplateText {
        &self.text
    }

    /// The prompt for a conversation, ready for the assistant's answer. `now` is what templates
    /// that print today's date see. Our own variables win over the conversation's.
    pub fn render(
        &self,
        conversation: &Conversation,
        now: SystemTime,
    ) -> Result<String, TemplateError> {
        let refused = |error: Error| TemplateError::Refused(describe(&error));
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let strftime = Value::from_function(move |format: String| strftime(&format, now));
        // Templates ask `if tools is not none`, so that an empty list would count as tools.
        let tools: Option<Value> = (!conversation.tools.is_empty())
            .then(|| conversation.tools.iter().map(ordered).collect());
        let own = minijinja::context! {
            messages => conversation.messages.iter().map(message).collect::<Value>(),
            tools => tools,
            add_generation_prompt => true,
            bos_token => self.text.bos_text.as_str(),
            eos_token => self.text.eos_text.as_str(),
            strftime_now => strftime,
        };
        let theirs = map(&conversation.variables);
        let mut prompt = Prompt::default();
        let rendered =
            template.render_captured_to(minijinja::context! { ..own, ..theirs }, &mut prompt);
        if prompt.full {
            return Err(TemplateError::TooLong);
        }
        rendered.map_err(refused)?;
        Ok(String::from_utf8_lossy(&prompt.bytes).into_owned())
    }
}

/// What a template writes, up to [`PROMPT_BYTES_MAX`].
#[derive(Default)]
struct Prompt {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= self.bytes.len() + bytes.len() > PROMPT_BYTES_MAX;
        if self.full {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A dictionary that keeps the order of its keys, as Python's do: templates print the tools they are
/// given, and models were trained on that order.
#[derive(Debug)]
struct OrderedMap(Vec<(Arc<str>, Value)>);

impl Object for OrderedMap {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(Arc::clone(name))).collect())
    }
}

fn map(map: &serde_json::Map<String, Json>) -> Value {
    let entries = map.iter().map(|(name, value)| (Arc::from(name.as_str()), ordered(value)));
    Value::from_object(OrderedMap(entries.collect()))
}

fn ordered(json: &Json) -> Value {
    match json {
        Json::Object(fields) => map(fields),
        Json::Array(list) => list.iter().map(ordered).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Value::from(Serde(json)),
    }
}

fn message(message: &Message) -> Value {
    let text = |name: &str, text: &str| (Arc::from(name), Value::from(text));
    let more = message.more.iter().map(|(name, value)| (Arc::from(name.as_str()), ordered(value)));
    let own = [text("role", &message.role), text("content", &message.content)];
    Value::from_object(OrderedMap(own.into_iter().chain(more).collect()))
}

fn describe(error: &Error) -> String {
    let line = error.line().map(|l| format!(" (line {l})")).unwrap_or_default();
    match error.detail() {
        Some(detail) => format!("{detail}{line}"),
        None => format!("{}{line}", error.kind()),
    }
}

/// JSON as Python's `json.dumps(..., ensure_ascii=False)` writes it: no HTML escapes.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let json = match indent {
        Some(_) => serde_json::to_string_pretty(&value),
        None => serde_json::to_string(&value).map(|compact| spaced(&compact)),
    };
    json.map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// Adds the space Python puts after `,` and `:` outside strings.
fn spaced(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        out.push(c);
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            in_string = true;
        } else if c == ',' || c == ':' {
            out.push(' ');
        }
    }
    out
}

/// The Python methods of strings and dictionaries that chat templates use.
fn python_method(
    _state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().ok_or_else(unknown)?;
            string_method(text, method, arguments).unwrap_or_else(|| Err(unknown()))
        }
        ValueKind::Map => map_method(value, method, arguments).unwrap_or_else(|| Err(unknown())),
        _ => Err(unknown()),
    }
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let argument = |i: usize| arguments.get(i).and_then(Value::as_str);
    let set = argument(0);
    let in_set = |c: char| set.map_or(c.is_whitespace(), |s| s.contains(c));
    let affix = |test: &dyn Fn(&str) -> bool| {
        let first = arguments.first()?;
        match first.as_str() {
            Some(one) => Some(test(one)),
            None => Some(first.try_iter().ok()?.any(|v| v.as_str().is_some_and(test))),
        }
    };
    Some(Ok(match method {
        "strip" => text.trim_matches(in_set).into(),
        "lstrip" => text.trim_start_matches(in_set).into(),
        "rstrip" => text.trim_end_matches(in_set).into(),
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "title" => title(text).into(),
        "capitalize" => {
            let mut chars = text.chars();
            let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
            (first + &chars.as_str().to_lowercase()).into()
        }
        "startswith" => affix(&|a| text.starts_with(a))?.into(),
        "endswith" => affix(&|a| text.ends_with(a))?.into(),
        "replace" => text.replace(argument(0)?, argument(1)?).into(),
        "find" => text.find(argument(0)?).map_or(-1, |at| text[..at].chars().count() as i64).into(),
        "count" => (text.matches(argument(0)?).count() as i64).into(),
        "split" => match (set, arguments.get(1).and_then(Value::as_i64)) {
            (None, _) => text.split_whitespace().map(Value::from).collect(),
            (Some(separator), Some(most)) if most >= 0 => text
                .splitn(usize::try_from(most).ok()?.saturating_add(1), separator)
                .map(Value::from)
                .collect(),
            (Some(separator), _) => text.split(separator).map(Value::from).collect(),
        },
        _ => return None,
    }))
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let upper = start;
            start = !c.is_alphabetic();
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { c.to_lowercase().collect() }
        })
        .collect()
}

fn map_method(map: &Value, method: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let keys = || map.try_iter();
    Some(match method {
        "keys" => keys().map(Iterator::collect),
        "values" => keys().and_then(|k| k.map(|key| map.get_item(&key)).collect()),
        "items" => keys().and_then(|k| {
            k.map(|key| Ok(Value::from(vec![key.clone(), map.get_item(&key)?]))).collect()
        }),
        "get" => map.get_item(arguments.first()?).map(|found| {
            if found.is_undefined() {
                arguments.get(1).cloned().unwrap_or(Value::from(()))
            } else {
                found
            }
        }),
        _ => return None,
    })
}

/// The subset of C's strftime that templates use; unknown letters stay as they are.
fn strftime(format: &str, now: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&format!("{year:04}")),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('H') => out.push_str(&format!("{:02}", in_day / 3600)),
            Some('M') => out.push_str(&format!("{:02}", in_day / 60 % 60)),
            Some('S') => out.push_str(&format!("{:02}", in_day % 60)),
            Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('%') => out.push('%'),
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of the Gregorian calendar for a count of days since 1970-01-01.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // Eras of 400 years (146 097 days) counted from 0000-03-01, so leap days come last in a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn render(source: &str) -> Result<String, TemplateError> {
        let conversation = vec![Message::new("user", " Hi there ")].into();
        ChatTemplate::new(source, "<s>", "</s>")?.render(&conversation, at(1_700_000_000))
    }

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }

    #[test]
    fn python_methods_and_functions() {
        check("{{ bos_token + messages[0]['content'].strip() + eos_token }}", "<s>Hi there</s>");
        check("{{ messages[0].content.split()[1].upper() }}", "THERE");
        check("{{ 'a,b,c'.split(',', 1)[1] }}", "b,c");
        check("{{ messages[0].role.startswith('us') }}", "True");
        check("{{ messages[0].get('name', 'nobody') }}", "nobody");
        check("{% for k, v in messages[0].items() %}{{ k }};{% endfor %}", "role;content;");
        check("{{ {'a': [1, '<b>']} | tojson }}", r#"{"a": [1, "<b>"]}"#);
        check("{{ strftime_now('%d %b %Y') }}", "14 Nov 2023");
        check("{{ 'x'.title() ~ 'ab'.replace('a', 'c') }}", "Xcb");
    }

    #[test]
    fn tools_calls_and_variables_reach_the_template() {
        let mut call = Message::new("assistant", "");
        let arguments = json!({"city": "Graz"});
        let calls = json!([{"function": {"name": "weather", "arguments": arguments}}]);
        call.more.insert("tool_calls".into(), calls);
        let mut result = Message::new("tool", "rain");
        result.more.insert("tool_call_id".into(), json!("call-1"));
        let variables = json!({"enable_thinking": false, "bos_token": "ours wins"});
        let conversation = Conversation {
            messages: vec![call, result],
            tools: vec![json!({"type": "function", "function": {"name": "weather"}})],
            variables: variables.as_object().unwrap().clone(),
        };
        let check = |source: &str, expected: &str| {
            let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
            assert_eq!(template.render(&conversation, at(0)).unwrap(), expected, "{source}");
        };
        check("{{ messages[0].tool_calls[0].function.arguments | tojson }}", r#"{"city": "Graz"}"#);
        // The order of fields is the customer's, as in Python.
        check("{{ tools | tojson }}", r#"[{"type": "function", "function": {"name": "weather"}}]"#);
        check("{{ messages[1].tool_call_id }}{{ 'name' in messages[1] }}", "call-1False");
        check("{% for tool in tools %}{{ tool.function.name }}{% endfor %}", "weather");
        check("{{ enable_thinking }} {{ bos_token }}", "False <s>");
        super::tests::check("{{ tools is none }} {{ enable_thinking is defined }}", "True False");
    }

    #[test]
    fn refusals_carry_the_templates_words() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert!(matches!(render("{% if %}"), Err(TemplateError::Syntax(_))));
        assert!(matches!(render("{{ 'a'.nonsense() }}"), Err(TemplateError::Refused(_))));
    }

    #[test]
    fn endless_templates_run_out_of_fuel() {
        let source =
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        assert!(matches!(render(source), Err(TemplateError::Refused(_))));
    }

    #[test]
    fn dates() {
        assert_eq!(strftime("%F %A", at(0)), "1970-01-01 Thursday");
        assert_eq!(strftime("%F %a %H:%M:%S", at(951_827_696)), "2000-02-29 Tue 12:34:56");
        assert_eq!(strftime("%Q%%", at(0)), "%Q%");
    }
}
