//! Compiling the pipelines of a plan on several threads.
//!
//! A driver takes milliseconds to seconds for a kernel, and a model has dozens of them, all known once
//! its dispatches are planned. Drivers compile in the calling thread and allow many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::{Gpu, GpuError, Pipeline};

/// Most threads; a model has few more kernels than this.
const THREADS_MAX: usize = 32;
/// naga recurses over expressions: what a main thread has.
const STACK_BYTES: usize = 8 << 20;

impl Gpu {
    /// Compiles those of `pipelines` that are only planned, calling `told` with (done, all) after each.
    ///
    /// # Errors
    /// The first kernel that the driver refuses; the rest is left.
    pub fn compile<'p>(
        &self,
        pipelines: impl IntoIterator<Item = &'p Arc<Pipeline>>,
        told: &mut dyn FnMut(usize, usize),
    ) -> Result<(), GpuError> {
        let mut planned: Vec<&Arc<Pipeline>> =
            pipelines.into_iter().filter(|pipeline| !pipeline.is_compiled()).collect();
        planned.sort_unstable_by_key(|pipeline| Arc::as_ptr(pipeline));
        planned.dedup_by_key(|pipeline| Arc::as_ptr(pipeline));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS_MAX).min(planned.len());
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let work = |done: &mut dyn FnMut(Result<(), GpuError>)| {
            while !failed.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(pipeline) = planned.get(index) else { return };
                let compiled = self.compile_one(pipeline);
                failed.fetch_or(compiled.is_err(), Ordering::Relaxed);
                done(compiled);
            }
        };
        let work = &work;
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let spawned = (0..threads)
                .filter(|_| {
                    let sender = sender.clone();
                    thread::Builder::new()
                        .name("compile".to_owned())
                        .stack_size(STACK_BYTES)
                        // The receiver hears all of them out.
                        .spawn_scoped(scope, move || work(&mut |result| drop(sender.send(result))))
                        .is_ok()
                })
                .count();
            drop(sender);
            let mut first = Ok(());
            if spawned == 0 {
                work(&mut |result| first = result);
            }
            for (done, result) in receiver.into_iter().enumerate() {
                first = first.and(result);
                told(done + 1, planned.len());
            }
            first
        })
    }
}
