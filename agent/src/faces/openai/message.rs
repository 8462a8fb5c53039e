//! The messages of a chat, as the model's template wants to see them.

use roadbed_compute::Message;
use serde_json::{Value, json};

use super::super::body::Fields;

/// Most messages of a conversation; each costs at least a few tokens, so no context holds more.
const MESSAGES_MAX: usize = 4096;
/// Most calls in one message.
const CALLS_MAX: usize = 128;

pub(super) fn read_messages(fields: &Fields<'_>) -> Option<Vec<Message>> {
    let Some(messages) = fields.objects("messages") else {
        if fields.value("messages").is_none() {
            fields.complain("messages", "missing", "Field required");
        }
        return None;
    };
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        fields.complain("messages", "too_short", format!("1 to {MESSAGES_MAX} messages"));
        return None;
    }
    let read: Vec<Message> = messages.iter().filter_map(read_message).collect();
    (read.len() == messages.len()).then_some(read)
}

fn read_message(message: &Fields<'_>) -> Option<Message> {
    let role: Option<String> = message.required("role");
    let content = read_content(message);
    // Templates know the older name of the same thing.
    let role = role.map(|role| if role == "developer" { "system".to_owned() } else { role });
    let mut read = Message::new(&role?, &content?);
    for name in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(text) = message.optional::<String>(name) {
            read.more.insert(name.into(), text.into());
        }
    }
    if message.value("function_call").is_some() {
        message.complain("function_call", "not_supported", "use `tool_calls`");
    }
    if let Some(calls) = message.objects("tool_calls") {
        if calls.len() > CALLS_MAX {
            message.complain("tool_calls", "too_long", format!("at most {CALLS_MAX} calls"));
            return None;
        }
        let calls: Vec<Value> = calls.iter().filter_map(read_call).collect();
        // Templates ask whether there are calls by asking whether there is the field.
        if !calls.is_empty() {
            read.more.insert("tool_calls".into(), Value::Array(calls));
        }
    }
    Some(read)
}

/// A call that the model made earlier. Clients send its arguments as text, templates print them as JSON.
fn read_call(call: &Fields<'_>) -> Option<Value> {
    let Some(function) = call.object("function") else {
        if call.value("function").is_none() {
            call.complain("function", "missing", "Field required");
        }
        return None;
    };
    let name: String = function.required("name")?;
    let arguments = match function.value("arguments") {
        None => json!({}),
        Some(Value::String(text)) => {
            serde_json::from_str(text).unwrap_or_else(|_no_json| json!(text))
        }
        Some(other) => other.clone(),
    };
    let mut read = json!({"type": "function", "function": {"name": name, "arguments": arguments}});
    if let Some(id) = call.optional::<String>("id") {
        read["id"] = id.into();
    }
    Some(read)
}

/// A text, or a list of text parts.
fn read_content(message: &Fields<'_>) -> Option<String> {
    match message.value("content") {
        // An assistant's turn may have none.
        None => Some(String::new()),
        Some(Value::Array(_)) => {
            let part = |part: &Fields<'_>| {
                let kind: String = part.required("type")?;
                match kind.as_str() {
                    "text" | "input_text" => part.required::<String>("text"),
                    "refusal" => part.required::<String>("refusal"),
                    _ => {
                        let message =
                            "only `text` parts: this engine reads no images, audio or files";
                        part.complain("type", "not_supported", message);
                        None
                    }
                }
            };
            let parts: Vec<Option<String>> = message.objects("content")?.iter().map(part).collect();
            parts.into_iter().collect()
        }
        Some(_) => message.required("content"),
    }
}
