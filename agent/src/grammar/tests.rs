//! A sampler that draws anything the mask allows must always write what the schema asks for.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use roadbed_compute::grammar::GrammarState;
use serde_json::{Value, json};

use super::{GrammarCompiler, GrammarSpec};

/// The tokens of the tests: every byte, some words of JSON, and the end.
const WORDS: [&str; 12] =
    ["{\"", "\":", "\": ", "\", \"", "true", "false", "null", "}}", "name", "12", "é", ", \""];
const END: u32 = 256 + WORDS.len() as u32;

fn compiler() -> GrammarCompiler {
    let bytes = (0..=255_u8).map(|byte| Some(vec![byte]));
    let words = WORDS.iter().map(|word| Some(word.as_bytes().to_vec()));
    GrammarCompiler::new(bytes.chain(words).chain([None]).collect(), &[END])
}

fn bytes_of(id: u32) -> Vec<u8> {
    match u8::try_from(id) {
        Ok(byte) => vec![byte],
        Err(_) => WORDS.get(id as usize - 256).map(|w| w.as_bytes().to_vec()).unwrap_or_default(),
    }
}

/// Draws allowed tokens, `choose(count)` saying which, until the answer ends; `None` after `most`.
fn write(
    mut state: Box<dyn GrammarState>,
    most: usize,
    mut choose: impl FnMut(usize) -> usize,
) -> Option<String> {
    let mut text = Vec::new();
    for _ in 0..most {
        if state.is_complete() {
            return Some(String::from_utf8(text).unwrap());
        }
        let mask = state.allowed().unwrap();
        let allowed: Vec<u32> = (0..=END).filter(|id| mask.contains(*id)).collect();
        // The end as soon as it is allowed, or random strings would never end.
        let id = match mask.contains(END) {
            true => END,
            false => allowed[choose(allowed.len()) % allowed.len()],
        };
        state.take(id).unwrap();
        text.extend(bytes_of(id));
    }
    None
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "kind": {"enum": ["cat", "dog"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]},
        },
        "required": ["name", "age", "kind", "tags", "next"],
        "additionalProperties": false,
        "$defs": {"point": {
            "type": "object",
            "properties": {"x": {"type": "number", "minimum": -9, "maximum": 9}},
            "required": ["x"],
            "additionalProperties": false,
        }},
    })
}

/// What [`schema`] says, said again in code.
fn meets_schema(value: &Value) -> bool {
    let fields = value.as_object().unwrap();
    let next = &value["next"];
    fields.len() == 5
        && value["name"].as_str().is_some_and(|name| name.chars().count() <= 6)
        && value["age"].as_u64().is_some_and(|age| age <= 150)
        && (value["kind"] == "cat" || value["kind"] == "dog")
        && value["tags"].as_array().is_some_and(|t| t.len() <= 3 && t.iter().all(Value::is_boolean))
        && (next.is_null() || (next["x"].is_number() && next.as_object().unwrap().len() == 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_allowed_text_meets_the_schema(seed in any::<u64>()) {
        let grammar = compiler().compile(&GrammarSpec::JsonSchema(schema())).unwrap();
        let mut state = seed;
        let choose = |count: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % count
        };
        // A number without a bound may be longer than we wait for.
        if let Some(text) = write(grammar.start(), 2000, choose) {
            let value: Value = serde_json::from_str(&text).expect(&text);
            prop_assert!(meets_schema(&value), "{text}");
        }
    }

    #[test]
    fn hostile_schemas_end(text in "[\\[\\]{}\",:a-z$#/*+?(){}0-9|]{0,60}", key in prop_oneof![
        Just("type"), Just("pattern"), Just("$ref"), Just("enum"), Just("anyOf"), Just("allOf"),
        Just("items"), Just("properties"), Just("maxLength"), Just("minItems"), Just("x-guidance"),
        Just("format"), Just("patternProperties"), Just("const"), Just("minimum"),
    ]) {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        drop(compiler().compile(&GrammarSpec::JsonSchema(json!({ key: value }))));
    }
}

#[test]
fn an_answer_follows_the_grammar_and_ends_with_it() {
    let grammar = compiler().compile(&GrammarSpec::JsonSchema(json!({"const": {"a": 1}}))).unwrap();
    let mut state = grammar.start();
    let mut other = grammar.start();
    for byte in br#"{"a":1}"# {
        let mask = state.allowed().unwrap();
        assert!(mask.contains(u32::from(*byte)), "{}", char::from(*byte));
        assert!(!mask.contains(END));
        state.take(u32::from(*byte)).unwrap();
    }
    assert!(state.is_complete() || state.allowed().unwrap().contains(END));
    assert!(!state.allowed().unwrap().contains(u32::from(b'}')));
    // Another answer of the same grammar is where it was.
    assert!(other.allowed().unwrap().contains(u32::from(b'{')));
    assert!(other.take(u32::from(b'x')).is_err());
}

#[test]
fn an_object_is_any_object_and_blanks_are_bounded() {
    let grammar = compiler().compile(&GrammarSpec::JsonObject).unwrap();
    let mut state = grammar.start();
    for byte in b"{\"a\": [1, {\"b\": null}],\n    \"c\"" {
        state.take(u32::from(*byte)).unwrap();
    }
    let mut state = grammar.start();
    state.take(u32::from(b'{')).unwrap();
    let blanks = (0..100).take_while(|_| state.take(u32::from(b' ')).is_ok()).count();
    assert!(blanks <= 2, "{blanks}");
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let refused = |schema: Value| {
        compiler().compile(&GrammarSpec::JsonSchema(schema)).unwrap_err().to_string()
    };
    let says = refused(json!({"type": "object", "minProperties": "x"}));
    assert!(says.starts_with("the schema cannot be used"), "{says}");
    let says = refused(json!({"not": {"type": "string"}}));
    assert!(says.contains("not"), "{says}");
    assert!(refused(json!("string")).contains("object"));
    assert!(refused(json!({"$ref": "http://elsewhere/schema"})).contains("ref"));
    let endless = GrammarCompiler::new(vec![Some(b"a".to_vec())], &[]);
    assert!(endless.compile(&GrammarSpec::JsonObject).is_err());
}

/// Schemas made to take long or to overflow a stack.
#[test]
fn attacks_end_in_bounded_time() {
    let deep =
        (0..100).fold(json!({"type": "null"}), |inner, _| json!({"items": inner, "type": "array"}));
    let definitions: serde_json::Map<String, Value> = (0..4000)
        .map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)})))
        .chain([("d4000".to_owned(), json!({"type": "null"}))])
        .collect();
    let chain = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    let nested: serde_json::Map<String, Value> = (0..2000)
        .map(|i| {
            let next = json!({"$ref": format!("#/$defs/d{}", (i + 1) % 2000)});
            (format!("d{i}"), json!({"allOf": [next, {"type": "object"}]}))
        })
        .collect();
    let circle = json!({"$ref": "#/$defs/d0", "$defs": nested});
    let names: Vec<String> = (0..8000).map(|i| format!("value-{}", i * 7919)).collect();
    let doubling = (0..13).fold(json!({"type": "null"}), |inner, _| {
        json!({"anyOf": [{"type": "array", "items": inner.clone()}, {"type": "object",
            "properties": {"a": inner}}]})
    });
    for (name, schema) in [
        ("deep", deep),
        ("self", json!({"$ref": "#"})),
        ("chain", chain),
        ("circle", circle),
        ("enum", json!({"enum": names})),
        ("regex", json!({"type": "string", "pattern": "^(a+)+$|(.*x.*){1,900}{1,900}"})),
        ("repeat", json!({"type": "string", "pattern": "((a{0,500}){0,500}){0,500}b"})),
        ("length", json!({"type": "string", "minLength": 1_000_000_000})),
        ("items", json!({"type": "array", "minItems": 1_000_000_000})),
        ("doubling", doubling),
    ] {
        let began = Instant::now();
        let compiled = compiler().compile(&GrammarSpec::JsonSchema(schema));
        // What compiles must also stay bounded while it is followed.
        if let Ok(grammar) = &compiled {
            let mut state = grammar.start();
            for _ in 0..8 {
                let Ok(mask) = state.allowed() else { break };
                let Some(id) = (0..=END).find(|id| mask.contains(*id)) else { break };
                if state.take(id).is_err() {
                    break;
                }
            }
        }
        let took = began.elapsed();
        println!("{name}: {took:?} {:?}", compiled.map(|_| ()).map_err(|e| e.to_string()));
        assert!(took < Duration::from_secs(60), "{name}: {took:?}");
    }
}
