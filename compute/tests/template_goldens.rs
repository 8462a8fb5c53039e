//! Published chat templates against Python's jinja2 as `transformers` uses it: equal prompts.

use std::time::SystemTime;

use roadbed_compute::Conversation;
use roadbed_compute::template::{ChatTemplate, TemplateError};
use serde_json::{Value, json};

use crate::models::vectors;

fn conversations() -> Vec<Conversation> {
    let list = vectors("templates/conversations.json");
    let one = |c: &Value| Conversation {
        messages: serde_json::from_value(c["messages"].clone()).unwrap(),
        tools: c["tools"].as_array().unwrap().clone(),
        variables: c["variables"].as_object().unwrap().clone(),
    };
    list.as_array().unwrap().iter().map(one).collect()
}

/// `None` where a template refuses a conversation.
fn check(name: &str, template: &Value, prompts: &Value) {
    let text = |key: &str| template[key].as_str().unwrap();
    let compiled = ChatTemplate::new(text("source"), text("bos"), text("eos")).unwrap();
    for (place, conversation) in conversations().iter().enumerate() {
        let found = compiled.render(conversation, SystemTime::UNIX_EPOCH);
        let expected = prompts[place].as_str();
        assert_eq!(found.as_deref().ok(), expected, "{name} {place}: {found:?}");
    }
}

#[test]
fn prompts_are_those_of_jinja2() {
    for case in vectors("templates/goldens.json").as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let mut template = vectors("templates/tokens.json")[name].clone();
        let path = format!("../tests/data/templates/{name}.jinja");
        template["source"] = json!(std::fs::read_to_string(path).unwrap());
        check(name, &template, &case["prompts"]);
    }
}

/// Further templates, whose licences keep them out of this repository: the output of
/// `tests/peers/template_goldens.py OUT TOKENIZER_CONFIG...`, named by this variable.
#[test]
fn prompts_of_other_templates() {
    let Some(path) = std::env::var_os("ROADBED_TEMPLATE_GOLDENS") else {
        return;
    };
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["template"]["name"].as_str().unwrap();
        check(name, &case["template"], &case["prompts"]);
    }
}

#[test]
fn endless_output_is_cut_off() {
    let source = "{% for i in range(9999) %}{{ 'x' * 9999999 }}{% endfor %}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    let found = template.render(&Conversation::default(), SystemTime::UNIX_EPOCH);
    assert!(matches!(found, Err(TemplateError::TooLong)), "{found:?}");
}
