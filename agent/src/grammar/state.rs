//! A compiled grammar, and one answer's way through it.

use std::sync::{Mutex, PoisonError};

use llguidance::Matcher;
use roadbed_compute::grammar::{GrammarFault, GrammarStart, GrammarState, TokenMask};

use super::compiler::GrammarSpec;

/// A compiled grammar, nothing of an answer read yet.
pub(super) struct Compiled {
    spec: GrammarSpec,
    start: Mutex<Matcher>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Compiled").field(&self.spec).finish()
    }
}

impl Compiled {
    pub(super) fn new(spec: GrammarSpec, start: Matcher) -> Self {
        Self { spec, start: Mutex::new(start) }
    }
}

impl GrammarStart for Compiled {
    fn start(&self) -> Box<dyn GrammarState> {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        // Deep: answers must not wait for one another's lexer.
        Box::new(Written { matcher: start.deep_clone(), taken: 0 })
    }
}

/// How far one answer has come.
struct Written {
    matcher: Matcher,
    taken: usize,
}

impl Written {
    fn fault(&self, reason: &str) -> GrammarFault {
        let reason = reason.lines().next().unwrap_or_default();
        GrammarFault(format!("the schema cannot be followed beyond token {}: {reason}", self.taken))
    }
}

impl GrammarState for Written {
    fn allowed(&mut self) -> Result<TokenMask, GrammarFault> {
        let words =
            self.matcher.compute_mask_or_eos().map_err(|error| self.fault(&error.to_string()))?;
        let mask = TokenMask::from_words(words.into());
        if mask.is_empty() {
            return Err(self.fault("no token of this model continues it"));
        }
        Ok(mask)
    }

    fn take(&mut self, id: u32) -> Result<(), GrammarFault> {
        self.matcher.consume_token(id).map_err(|error| self.fault(&error.to_string()))?;
        self.taken += 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }
}
