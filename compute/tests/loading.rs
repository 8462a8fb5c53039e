//! A load that another thread does not want any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roadbed_compute::gguf::TensorType;
use roadbed_compute::llm::{EngineError, LoadProgress};
use roadbed_compute::{Card, Engine, EngineOptions};

use crate::adapters;
use crate::tiny_language::random_model;

#[test]
fn a_load_ends_at_the_next_piece_once_nobody_wants_it() {
    let file = random_model(TensorType::Q8_0, false);
    for gpu in adapters::all() {
        let break_off = Arc::new(AtomicBool::new(false));
        let options =
            EngineOptions { break_off: Some(Arc::clone(&break_off)), ..EngineOptions::default() };
        let cards = [Card { gpu: Arc::clone(gpu), memory_bytes: None }];
        let load = |tell: &dyn Fn(LoadProgress)| {
            Engine::load_over(&file, "tiny", &cards, &options, tell).map(drop)
        };
        let told = std::cell::RefCell::new(Vec::new());
        let tell = |progress| {
            told.borrow_mut().push(progress);
            break_off.store(true, Ordering::Release);
        };
        assert!(matches!(load(&tell), Err(EngineError::BrokenOff)));
        let last = *told.borrow().last().unwrap();
        let LoadProgress::Weights { done_bytes, total_bytes } = last else { panic!("{last:?}") };
        assert!(done_bytes < total_bytes, "{done_bytes} of {total_bytes}");
        // The next one is wanted.
        break_off.store(false, Ordering::Release);
        load(&|_| ()).unwrap();
    }
}
