//! From a JSON schema to a grammar over one model's tokens, within bounds.

use std::sync::{Arc, OnceLock};
use std::thread;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use roadbed_compute::grammar::Grammar;
use serde_json::{Value, json};

use super::error::GrammarError;
use super::state::Compiled;

/// Largest schema, as text: ten times the largest schemas in public collections of tool schemas.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Most objects and lists in a schema; each may cost a level of recursion, see [`STACK_BYTES`].
const SCHEMA_NODES_MAX: usize = 8192;
/// Deepest nesting; what a body's reader takes at most.
const SCHEMA_DEPTH_MAX: usize = 128;
/// Stack of the thread that compiles. A chain of references goes one level deeper for each.
const STACK_BYTES: usize = 64 << 20;
/// Longest token the prefix tree takes.
const TOKEN_BYTES_MAX: usize = 1000;
/// White space between JSON's parts: one line break with its indentation, or two blanks. Without a
/// bound small models go on with blanks until their context is full.
const WHITE_SPACE: &str = r"(\n[ \t]{0,24}|[ ]{1,2})";

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that meets a schema.
    JsonSchema(Value),
}

/// Compiles grammars for one vocabulary. Cheap to clone, and needs no GPU.
#[derive(Clone)]
pub struct GrammarCompiler(Arc<Vocabulary>);

struct Vocabulary {
    /// What each token adds to the text; empty for those that no grammar allows.
    words: Vec<Vec<u8>>,
    end_ids: Vec<u32>,
    /// Made when it is first asked for: it takes a tenth of a second, and most models are switched
    /// before anybody asks.
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler").field("tokens", &self.0.words.len()).finish()
    }
}

impl PartialEq for GrammarCompiler {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for GrammarCompiler {}

impl GrammarCompiler {
    /// `tokens` are, by id, the bytes that a token adds to the text; `None` for control tokens, which no grammar
    /// allows. `end_ids` end an answer and are allowed where the grammar may end.
    #[must_use]
    pub fn new(tokens: Vec<Option<Vec<u8>>>, end_ids: &[u32]) -> Self {
        let word = |token: Option<Vec<u8>>| {
            token.filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX).unwrap_or_default()
        };
        Self(Arc::new(Vocabulary {
            words: tokens.into_iter().map(word).collect(),
            end_ids: end_ids.to_vec(),
            factory: OnceLock::new(),
        }))
    }

    /// Compiles a grammar; takes milliseconds, a hostile one up to a second.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let schema = match spec {
            GrammarSpec::JsonObject => json!({"type": "object"}),
            GrammarSpec::JsonSchema(schema) => {
                check_size(schema)?;
                schema.clone()
            }
        };
        let schema = with_options(schema)?;
        let vocabulary = Arc::clone(&self.0);
        // A thread of its own for its stack.
        let compiling = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let factory = vocabulary.factory()?;
            let grammar = TopLevelGrammar::from_json_schema(schema);
            let matcher = Matcher::new(factory.create_parser(grammar));
            match matcher.get_error() {
                Some(reason) => Err(GrammarError::Unsupported(first_line(&reason))),
                None => Ok(matcher),
            }
        });
        let failed = |reason: String| GrammarError::Unsupported(reason);
        let matcher = compiling
            .map_err(|error| failed(error.to_string()))?
            .join()
            .map_err(|_panic| failed("the compiler failed".into()))??;
        Ok(Grammar::new(Compiled::new(spec.clone(), matcher)))
    }
}

impl Vocabulary {
    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        self.factory.get_or_init(|| self.make_factory()).as_ref().map_err(GrammarError::clone)
    }

    fn make_factory(&self) -> Result<ParserFactory, GrammarError> {
        let bad = |reason: String| GrammarError::Vocabulary(reason);
        let count = u32::try_from(self.words.len()).map_err(|e| bad(e.to_string()))?;
        let Some(end) = self.end_ids.first().filter(|_| self.end_ids.iter().all(|id| *id < count))
        else {
            return Err(bad("it has no token that ends an answer".into()));
        };
        let trie = TokTrie::from(&TokRxInfo::new(count, *end), &self.words);
        let trie = trie.with_eos_tokens(&self.end_ids);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let made = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
        let mut factory = made.map_err(|error| bad(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(factory)
    }
}

/// What one grammar may cost. The numbers beside them are the crate's own measurements.
fn limits() -> ParserLimits {
    ParserLimits {
        // 50 000 a millisecond.
        initial_lexer_fuel: 1_000_000,
        // 14 000 and 20 000 a millisecond: a step stays below 20 ms.
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // Up to 2 kB each.
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        max_items_in_row: 2000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

fn check_size(schema: &Value) -> Result<(), GrammarError> {
    let too_large = |what, most| Err(GrammarError::TooLarge { what, most });
    let mut nodes = 0_usize;
    let mut bytes = 0_usize;
    let mut left = vec![(schema, 1_usize)];
    while let Some((value, depth)) = left.pop() {
        if depth > SCHEMA_DEPTH_MAX {
            return too_large("levels", SCHEMA_DEPTH_MAX);
        }
        match value {
            Value::Object(fields) => {
                nodes += 1;
                bytes += fields.keys().map(String::len).sum::<usize>();
                left.extend(fields.values().map(|value| (value, depth + 1)));
            }
            Value::Array(list) => {
                nodes += 1;
                left.extend(list.iter().map(|value| (value, depth + 1)));
            }
            Value::String(text) => bytes += text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => bytes += 8,
        }
        if nodes > SCHEMA_NODES_MAX {
            return too_large("objects and lists", SCHEMA_NODES_MAX);
        }
        if bytes > SCHEMA_BYTES_MAX {
            return too_large("bytes", SCHEMA_BYTES_MAX);
        }
    }
    Ok(())
}

/// The schema with our options in place of any of its own.
fn with_options(schema: Value) -> Result<Value, GrammarError> {
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITE_SPACE.into()),
        // `oneOf` as `anyOf`: whether exactly one alternative matches cannot be asked of a beginning.
        coerce_one_of: true,
        ..JsonCompileOptions::default()
    };
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        schema @ Value::Object(_) => schema,
        Value::Null
        | Value::Bool(false)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_) => {
            return Err(GrammarError::Unsupported("a schema is a JSON object".into()));
        }
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// The words before any backtrace.
fn first_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    match line.strip_prefix("panic: ") {
        Some(_) => "the schema compiler failed on it".into(),
        None => line.to_owned(),
    }
}
