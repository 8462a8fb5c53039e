//! Text embeddings of a rig: an encoder with a thread, a GPU device and a queue of its own, beside the chat model or alone.
//!
//! ```text
//! face -> EmbeddingService (queue) -> embedding thread: control | take requests in | one pass -> EmbeddingBackend -> GPU
//! ```
//! A pass takes texts of all requests under way in turn, so that a request of one text does not wait for one of two
//! thousand, and short texts share a pass. The driver shares the card out between this thread and the chat model's.

mod backend;
mod encoder;
mod service;
mod worker;

pub use backend::{EmbedderInfo, EmbeddingBackend, EmbeddingLoader};
pub use encoder::EncoderLoader;
pub use service::{
    Embedded, EmbeddingInput, EmbeddingRequest, EmbeddingService, EmbeddingStats, QUEUED_BYTES_MAX,
    REQUESTS_QUEUED_MAX,
};
