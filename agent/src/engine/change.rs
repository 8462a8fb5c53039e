//! A change of what is loaded, carried out by all replicas together.
//!
//! Each replica finishes what it runs and frees its GPU. When all have, and not before, the GPUs are shared out anew and
//! each replica loads its part: what one will take another may have held until then.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use roadbed_compute::AdapterChoice;
use tokio::sync::oneshot;

use super::backend::LoadRequest;
use super::fault::EngineFault;
use super::job::Control;

/// GPUs of each replica.
pub(super) type Placement = Result<Vec<Vec<AdapterChoice>>, EngineFault>;

pub(super) struct Change {
    /// What is loaded, and how it is broken off; `None` is nothing.
    pub(super) load: Option<(LoadRequest, Arc<AtomicBool>)>,
    pub(super) placement: OnceLock<Placement>,
    progress: Mutex<Progress>,
}

struct Progress {
    /// The first fault of a replica.
    fault: Option<EngineFault>,
    done: Option<Done>,
}

enum Done {
    Load(oneshot::Sender<Result<(), EngineFault>>),
    Unload(oneshot::Sender<()>),
}

impl Change {
    pub(super) fn new(control: Control) -> Self {
        let (load, done) = match control {
            Control::Load { request, break_off, done } => {
                (Some((*request, break_off)), Done::Load(done))
            }
            Control::Unload { done } => (None, Done::Unload(done)),
        };
        let progress = Mutex::new(Progress { fault: None, done: Some(done) });
        Self { load, placement: OnceLock::new(), progress }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica could not load its part.
    pub(super) fn failed(&self, fault: EngineFault) {
        self.lock().fault.get_or_insert(fault);
    }

    /// All replicas are done; `answers` says whether one of them has the model. Nobody may wait for it any more: it is
    /// loaded all the same, the state tells.
    pub(super) fn tell(&self, answers: bool) {
        let mut progress = self.lock();
        let outcome = match progress.fault.take() {
            Some(fault) if !answers => Err(fault),
            Some(_) | None => Ok(()),
        };
        match progress.done.take() {
            Some(Done::Load(done)) => drop(done.send(outcome)),
            Some(Done::Unload(done)) => drop(done.send(())),
            None => {}
        }
    }
}
