//! The form an answer is asked to have: `response_format`.

use serde_json::Value;

use super::super::body::Fields;
use crate::grammar::GrammarSpec;

/// Ways to ask for a form that other servers have and we have not.
const FOREIGN: [&str; 5] = [
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "guided_decoding_backend",
];

pub(super) fn read_form(fields: &Fields<'_>) -> Option<GrammarSpec> {
    for name in FOREIGN {
        if fields.value(name).is_some() {
            fields.complain(name, "not_supported", "use `response_format` with a `json_schema`");
        }
    }
    if let Some(schema) = fields.value("guided_json") {
        return read_schema(fields, "guided_json", schema);
    }
    let format = fields.object("response_format")?;
    let kind: String = format.required("type")?;
    match kind.as_str() {
        "text" => None,
        "json_object" => Some(GrammarSpec::JsonObject),
        "json_schema" => {
            let Some(named) = format.object("json_schema") else {
                if format.value("json_schema").is_none() {
                    format.complain("json_schema", "missing", "Field required");
                }
                return None;
            };
            match named.value("schema") {
                Some(schema) => read_schema(&named, "schema", schema),
                None => {
                    named.complain("schema", "missing", "Field required");
                    None
                }
            }
        }
        _ => {
            let message = "one of `text`, `json_object` and `json_schema`";
            format.complain("type", "not_supported", message);
            None
        }
    }
}

fn read_schema(fields: &Fields<'_>, name: &str, schema: &Value) -> Option<GrammarSpec> {
    // vLLM's clients may send it as text.
    let parsed = schema.as_str().and_then(|text| serde_json::from_str(text).ok());
    let schema: Value = parsed.unwrap_or_else(|| schema.clone());
    if !schema.is_object() {
        fields.complain(name, "dict_type", "a JSON schema is an object");
        return None;
    }
    Some(GrammarSpec::JsonSchema(schema))
}
