//! Why an engine job did not give what was asked.

use roadbed_compute::EngineError;

/// The one error of the engine's edge. Each variant is another HTTP status, which is why they are apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineFault {
    /// No model is loaded, or the rig does not serve now.
    #[error("no model is loaded")]
    NoModel,
    /// The rig finishes its open jobs and takes no new one.
    #[error("the rig takes no new jobs: it is about to change its workload")]
    Draining,
    /// The queue is full.
    #[error("{queued} jobs are waiting already; try again in about {retry_seconds} s")]
    QueueFull {
        /// Jobs waiting.
        queued: usize,
        /// When a place is likely to be free.
        retry_seconds: u64,
    },
    /// The caller asked for something impossible.
    #[error("{field}: {reason}")]
    BadRequest {
        /// Which part of the request.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody waits for the answer any more, or the engine was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The GPU is gone; the model must be loaded again.
    #[error("the GPU was lost: {reason}")]
    DeviceLost {
        /// The driver's words.
        reason: String,
    },
    /// The external server that answers in the engine's place is gone, or does not answer.
    #[error("the server in the engine's place was lost: {reason}")]
    ServerLost {
        /// What was seen of it last.
        reason: String,
    },
    /// The model cannot be loaded.
    #[error("cannot load the model: {reason}")]
    Load {
        /// What failed and where.
        reason: String,
    },
    /// Our failure.
    #[error("the engine failed: {reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
    /// The engine thread has ended.
    #[error("the engine has been shut down")]
    ShutDown,
}

impl EngineFault {
    /// A request that cannot be met, with the field to blame.
    #[must_use]
    pub fn bad_request(field: &str, reason: impl Into<String>) -> Self {
        Self::BadRequest { field: field.to_owned(), reason: reason.into() }
    }
}

impl From<EngineError> for EngineFault {
    fn from(error: EngineError) -> Self {
        if error.is_device_lost() {
            return Self::DeviceLost { reason: error.to_string() };
        }
        if let EngineError::Busy { waiting } = error {
            // More than a second is only known where answers are counted.
            return Self::QueueFull { queued: waiting, retry_seconds: 1 };
        }
        if matches!(error, EngineError::BrokenOff) {
            return Self::Cancelled;
        }
        if !error.is_callers_fault() {
            return Self::Failed { reason: error.to_string() };
        }
        match error {
            EngineError::BadRequest { field, reason } => {
                Self::BadRequest { field: field.to_owned(), reason }
            }
            EngineError::ContextFull { .. } | EngineError::Template(_) => {
                Self::BadRequest { field: "prompt".to_owned(), reason: error.to_string() }
            }
            EngineError::Gpu(_)
            | EngineError::Busy { .. }
            | EngineError::Memory { .. }
            | EngineError::Stage { .. }
            | EngineError::Split { .. }
            | EngineError::BrokenOff
            | EngineError::Gguf(_)
            | EngineError::Safetensors(_)
            | EngineError::Tokenizer(_)
            | EngineError::UnsupportedModel { .. } => Self::Failed { reason: error.to_string() },
        }
    }
}
