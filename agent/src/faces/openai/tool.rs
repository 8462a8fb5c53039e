//! The tools a request offers, and what it wants of them.

use serde_json::{Value, json};

use super::super::body::Fields;
use crate::grammar::GrammarSpec;

/// Most tools of a request, as OpenAI has it.
const TOOLS_MAX: usize = 128;
/// Longest name of a tool, as OpenAI has it.
const NAME_BYTES_MAX: usize = 64;
/// Most calls of an answer that must call.
const CALLS_MAX: usize = 16;

/// Whether and which tools the model shall call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// As it likes.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// The tools of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolUse {
    /// As the request has them; what the template sees.
    pub(super) tools: Vec<Value>,
    pub(super) choice: ToolChoice,
    /// More than one call in an answer.
    pub(super) parallel: bool,
}

impl ToolUse {
    /// The form of an answer that must call.
    pub(super) fn form(&self) -> Option<GrammarSpec> {
        let parameters = |tool: &Value| match &tool["function"]["parameters"] {
            schema @ Value::Object(_) => schema.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => json!({"type": "object"}),
        };
        match &self.choice {
            ToolChoice::Auto => None,
            ToolChoice::Named(name) => {
                let tool = self.tools.iter().find(|tool| tool["function"]["name"] == **name)?;
                Some(GrammarSpec::JsonSchema(parameters(tool)))
            }
            ToolChoice::Required => {
                // References stay within a tool's own schema, so definitions move to the top under names of their own.
                let mut definitions = serde_json::Map::new();
                let calls: Vec<Value> = (0..)
                    .zip(&self.tools)
                    .map(|(at, tool)| {
                        let schema = lift(parameters(tool), at, &mut definitions);
                        json!({
                            "type": "object",
                            "properties": {
                                "name": {"const": tool["function"]["name"]},
                                "parameters": schema,
                            },
                            "required": ["name", "parameters"],
                            "additionalProperties": false,
                        })
                    })
                    .collect();
                let most = if self.parallel { CALLS_MAX } else { 1 };
                Some(GrammarSpec::JsonSchema(json!({
                    "type": "array", "minItems": 1, "maxItems": most,
                    "items": {"anyOf": calls}, "$defs": definitions,
                })))
            }
        }
    }
}

/// Moves the definitions of the schema of tool number `at` into `all`, and points its references there.
fn lift(mut schema: Value, at: usize, all: &mut serde_json::Map<String, Value>) -> Value {
    for place in ["$defs", "definitions"] {
        let Some(Value::Object(own)) = schema.as_object_mut().and_then(|s| s.remove(place)) else {
            continue;
        };
        for (name, definition) in own {
            all.insert(format!("{at}-{name}"), redirect(definition, at));
        }
    }
    redirect(schema, at)
}

fn redirect(schema: Value, at: usize) -> Value {
    let moved = |target: &str| {
        let name = target.strip_prefix("#/$defs/").or(target.strip_prefix("#/definitions/"))?;
        Some(Value::from(format!("#/$defs/{at}-{name}")))
    };
    match schema {
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let target = if name == "$ref" { value.as_str().and_then(moved) } else { None };
                let value = target.unwrap_or_else(|| redirect(value, at));
                (name, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(list) => list.into_iter().map(|value| redirect(value, at)).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

/// Reads `tools` and `tool_choice`; `None` if there are none or the model shall call none.
pub(super) fn read_tools(fields: &Fields<'_>) -> Option<ToolUse> {
    for name in ["functions", "function_call"] {
        if fields.value(name).is_some_and(|value| *value != json!([])) {
            fields.complain(name, "not_supported", "use `tools` and `tool_choice`");
        }
    }
    let offered = fields.objects("tools").unwrap_or_default();
    if offered.len() > TOOLS_MAX {
        fields.complain("tools", "too_long", format!("at most {TOOLS_MAX} tools"));
        return None;
    }
    let names: Vec<String> = offered.iter().filter_map(read_tool).collect();
    let choice = read_choice(fields, &names)?;
    if names.len() != offered.len() || names.is_empty() {
        return None;
    }
    let tools: &Vec<Value> = fields.optional("tools")?;
    let parallel = fields.optional("parallel_tool_calls").unwrap_or(true);
    Some(ToolUse { tools: tools.clone(), choice, parallel })
}

/// The name of a tool, if it is one.
fn read_tool(tool: &Fields<'_>) -> Option<String> {
    let kind: String = tool.required("type")?;
    if kind != "function" {
        tool.complain("type", "not_supported", "only `function` tools are supported");
        return None;
    }
    let Some(function) = tool.object("function") else {
        if tool.value("function").is_none() {
            tool.complain("function", "missing", "Field required");
        }
        return None;
    };
    let name: String = function.required("name")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let message = "1 to 64 letters, digits, `_`, `-` and `.`";
        function.complain("name", "string_pattern_mismatch", message);
        return None;
    }
    if function.value("parameters").is_some_and(|schema| !schema.is_object()) {
        function.complain("parameters", "dict_type", "a JSON schema is an object");
        return None;
    }
    Some(name)
}

/// `None` for the choice `none`, and for one that cannot be met.
fn read_choice(fields: &Fields<'_>, names: &[String]) -> Option<ToolChoice> {
    let wrong = |message: &str| fields.complain("tool_choice", "value_error", message);
    let choice = match fields.value("tool_choice") {
        None => return Some(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => return None,
            "auto" => return Some(ToolChoice::Auto),
            "required" => ToolChoice::Required,
            _ => {
                wrong("one of `none`, `auto`, `required`, or a function's name in an object");
                return None;
            }
        },
        Some(_) => {
            let choice = fields.object("tool_choice")?;
            if choice.value("function").is_none() {
                choice.complain("function", "missing", "Field required");
            }
            ToolChoice::Named(choice.object("function")?.required("name")?)
        }
    };
    let known = match &choice {
        ToolChoice::Named(name) => names.contains(name),
        ToolChoice::Auto | ToolChoice::Required => !names.is_empty(),
    };
    if !known {
        wrong("the tool is not among `tools`");
        return None;
    }
    Some(choice)
}
